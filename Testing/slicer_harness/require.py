"""Skip where the packages of the harness are missing, unless this is CI: there nothing may be left untested."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

PACKAGES = {"slicer": "slicer-core", "PySide6": "PySide6-Essentials"}


def missing_packages() -> list[str]:
    """What the harness lacks; everything inside of Slicer, where the module is tested by MedProtectTest."""
    if hasattr(sys.modules.get("slicer"), "app") and "slicer_harness.install" not in sys.modules:
        return list(PACKAGES.values())
    return [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]


def require_harness() -> None:
    """Call it first in a test module.

    Raises:
        RuntimeError: in CI, a package is missing.
    """
    missing = missing_packages()
    if not missing:
        return
    if os.environ.get("CI", "").lower() in ("1", "true"):
        raise RuntimeError(f"CI must test the Slicer module, but {', '.join(missing)} is not installed (pip install .[slicer-test])")
    pytest.skip(f"{', '.join(missing)} not installed (pip install .[slicer-test])", allow_module_level=True)
