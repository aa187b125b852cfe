"""Where the tests run: in the harness, which may be incomplete, or inside of Slicer, which has all that the harness stands in for."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

PACKAGES = {"slicer": "slicer-core", "PySide6": "PySide6-Essentials"}


def inside_slicer() -> bool:
    """Whether this is Slicer's own Python, with its real widgets."""
    application = getattr(sys.modules.get("slicer"), "app", None)
    return application is not None and not getattr(application, "stand_in", False)


def missing_packages() -> list[str]:
    """What the harness lacks."""
    return [] if inside_slicer() else [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]


def require_harness() -> None:
    """Call it first in a test module: afterwards the module MedProtect can be imported.

    Raises:
        RuntimeError: in CI, a package is missing.
    """
    missing = missing_packages()
    if missing and os.environ.get("CI", "").lower() in ("1", "true"):
        raise RuntimeError(f"CI must test the Slicer module, but {', '.join(missing)} is not installed (pip install .[slicer-test])")
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (pip install .[slicer-test])", allow_module_level=True)
    if not inside_slicer():
        from slicer_harness.install import prepare

        prepare()


def of_stand_ins(what: str) -> pytest.MarkDecorator:
    """Marks a test that makes no sense inside of Slicer: ``what`` it needs is there only as a stand-in."""
    return pytest.mark.skipif(inside_slicer(), reason=f"needs {what}, which only the harness has")
