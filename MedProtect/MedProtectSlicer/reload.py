"""Working Reload: Slicer itself reloads MedProtect.py alone."""

from __future__ import annotations

import sys

PACKAGES = ("MedProtectLib", "MedProtectSlicer")


def forgetModules() -> None:
    """Drop the library and the module's parts, so that the next import reads their files again."""
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]
