"""MedProtect: make annotated medical images unlearnable before they are published.

    from MedProtectLib import Protector, read_volume, read_labels
    result = Protector(method="umed").protect(read_volume("ct.nrrd"), read_labels("ct.seg.nrrd"))

The names below are loaded when first used, so that importing the package loads no heavy library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.version import __version__

if TYPE_CHECKING:
    from MedProtectLib.io import read_labels, read_volume, write_volume
    from MedProtectLib.job import ProtectJob, protect_file
    from MedProtectLib.profile import Profile
    from MedProtectLib.protection import Protection
    from MedProtectLib.protector import Protector
    from MedProtectLib.release.restore import restore_file
    from MedProtectLib.verify import verify_files
    from MedProtectLib.volume import Geometry, LabelMap, Segment, Volume

_HOME = {
    "Geometry": "volume",
    "LabelMap": "volume",
    "Profile": "profile",
    "ProtectJob": "job",
    "Protection": "protection",
    "Protector": "protector",
    "Segment": "volume",
    "Volume": "volume",
    "protect_file": "job",
    "read_labels": "io",
    "read_volume": "io",
    "restore_file": "release.restore",
    "verify_files": "verify",
    "write_volume": "io",
}

__all__ = [
    "Geometry",
    "LabelMap",
    "MedProtectError",
    "Profile",
    "ProtectJob",
    "Protection",
    "Protector",
    "Segment",
    "UsageError",
    "Volume",
    "__version__",
    "protect_file",
    "read_labels",
    "read_volume",
    "restore_file",
    "verify_files",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'MedProtectLib' has no attribute '{name}'")
    return getattr(import_module(f"MedProtectLib.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
