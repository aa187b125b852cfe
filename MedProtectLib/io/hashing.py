"""SHA-256 of files, of folders and of voxel data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.channels import channel_files
from MedProtectLib.io.source import Source


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the bytes of a file, or of the files of a channel group one after the other, in hexadecimal.

    Raises:
        MedProtectError: the file cannot be read.
    """
    return _sha256_in_turn(channel_files(path) or (Path(path),))


def _sha256_in_turn(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)
        except OSError as error:
            raise MedProtectError(f"{file}: cannot be read ({error.strerror}).") from error
    return digest.hexdigest()


def sha256_path(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, or of a folder with all files below it, as :func:`sha256_files` has it.

    Raises:
        MedProtectError: a file cannot be read.
    """
    path = Path(path)
    return sha256_files([p for p in path.rglob("*") if p.is_file()], path) if path.is_dir() else sha256_file(path)


def sha256_image(path: str | os.PathLike[str], source: Source) -> str:
    """SHA-256 of the image that was read from ``path``, as records have it.

    It is that of its file; where header and voxels, or the channels, are files of their own, of these one after the other, the
    header first; of a DICOM series in a folder :func:`sha256_path`.

    Raises:
        MedProtectError: a file cannot be read.
    """
    return _sha256_in_turn(source.files) if source.extension else sha256_path(path)


def sha256_files(files: Iterable[Path], folder: Path) -> str:
    """SHA-256 of some files below a folder, in hexadecimal.

    It is that of a text which has a line for every file, sorted by the bytes of their names: the file's SHA-256, two blanks, and its
    name relative to the folder with "/" between the parts. ``sha256sum`` prints such lines.

    Raises:
        MedProtectError: a file cannot be read.
    """
    named = sorted((file.relative_to(folder).as_posix().encode("utf-8", "surrogateescape"), file) for file in files)
    return hashlib.sha256(b"".join(b"%s  %s\n" % (sha256_file(file).encode(), name) for name, file in named)).hexdigest()


def sha256_voxels(array: np.ndarray) -> str:
    """SHA-256 of voxel values as little-endian bytes in C order (k, j, i[, c]), in hexadecimal.

    It depends on the values and their type only, not on the file format, its byte order or its compression.
    """
    digest = hashlib.sha256()
    for slab in array:
        digest.update(np.ascontiguousarray(slab, slab.dtype.newbyteorder("<")).data)
    return digest.hexdigest()
