"""File names: double extensions such as ``.nii.gz`` count as one."""

from __future__ import annotations

import os
from pathlib import Path

DOUBLE_EXTENSIONS = (".nii.gz", ".seg.nrrd", ".seg.nhdr", ".hdr.gz", ".img.gz", ".raw.gz", ".tar.gz")


def extension_of(path: str | os.PathLike[str]) -> str:
    """The extension in lower case with its dot, such as ``.nii.gz``, ``.seg.nrrd`` or ``.png``; empty when there is none."""
    name = Path(path).name.lower()
    return next((double for double in DOUBLE_EXTENSIONS if name.endswith(double)), Path(name).suffix)


def stem_of(path: str | os.PathLike[str]) -> str:
    """The file name without its folder and without :func:`extension_of`: ``a/ct.01.nii.gz`` gives ``ct.01``."""
    name = Path(path).name
    return name[: len(name) - len(extension_of(path))]
