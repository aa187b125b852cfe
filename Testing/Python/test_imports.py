from __future__ import annotations

import subprocess
import sys

import pytest

from MedProtectLib.cli.main import COMMANDS

HEAVY = ("torch", "monai", "skimage", "pydicom", "dask", "matplotlib", "cryptography")


@pytest.mark.parametrize("module", ["MedProtectLib", "MedProtectLib.cli", "MedProtectLib.cli.main"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    script = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_of_every_command_loads_nothing_heavy() -> None:
    script = (
        "import sys, contextlib\nfrom MedProtectLib.cli.main import COMMANDS, main\n"
        "for name in COMMANDS:\n    with contextlib.suppress(SystemExit): main([name, '--help'])\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
    assert done.stdout.count("example:") == len(COMMANDS)


def test_everything_that_is_promised_can_be_imported() -> None:
    import MedProtectLib

    for name in MedProtectLib.__all__:
        assert getattr(MedProtectLib, name) is not None
    with pytest.raises(AttributeError):
        _ = MedProtectLib.nosuch
