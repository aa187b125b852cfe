"""SHA-256 of files and of voxel data."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from MedProtectLib.errors import MedProtectError


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal.

    Raises:
        MedProtectError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise MedProtectError(f"{os.fspath(path)}: cannot be read ({error.strerror}).") from error


def sha256_voxels(array: np.ndarray) -> str:
    """SHA-256 of voxel values as little-endian bytes in C order (k, j, i[, c]), in hexadecimal.

    It depends on the values and their type only, not on the file format, its byte order or its compression.
    """
    digest = hashlib.sha256()
    for slab in array:
        digest.update(np.ascontiguousarray(slab, slab.dtype.newbyteorder("<")).data)
    return digest.hexdigest()
