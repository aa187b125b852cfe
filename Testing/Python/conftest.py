"""Real data for the tests: what the project ships, and more where a folder of public datasets lies beside it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from MedProtectLib.cli.main import main
from release_cases import own_profile
from samples import SAMPLES, SHARED, Run


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Processes that tests start can be interrupted, also where the tests run in a shell's background, which ignores SIGINT."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public datasets that are too large to ship."""
    if not SHARED.is_dir():
        pytest.skip("no folder of shared datasets (set MEDPROTECT_SHARED_DATA to one)")
    return SHARED


@pytest.fixture(scope="session")
def ct() -> tuple[Path, Path]:
    """The bundled CT and its labels."""
    return SAMPLES / "totalseg_ct" / "ct.nii.gz", SAMPLES / "totalseg_ct" / "labels.seg.nrrd"


@pytest.fixture(scope="session")
def hippocampus() -> tuple[Path, Path]:
    """One bundled float32 MR whose values lie on a grid, and its labels."""
    folder = SAMPLES / "hippocampus"
    return folder / "imagesTr" / "hippocampus_011.nii.gz", folder / "labelsTr" / "hippocampus_011.nii.gz"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command line in this process: arguments -> exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a method whose pattern depends on the labels and on a random part, so that a second protection is another one."""
    return own_profile(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time of a small case, and one test looks at them."""
    monkeypatch.setattr("MedProtectLib.release.make.write_pictures", lambda *_, **__: None)
