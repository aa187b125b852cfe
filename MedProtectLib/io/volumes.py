"""Image files of every format: which module reads them, and the checks that hold for all."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.channels import channel_files, together
from MedProtectLib.io.names import DICOM_EXTENSIONS, NO_MARK, extension_of, is_dicom
from MedProtectLib.io.source import Source
from MedProtectLib.untrusted import is_file
from MedProtectLib.volume import Volume, check_finite

SUPPORTED = "NIfTI (.nii, .nii.gz, .hdr/.img), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), PNG, TIFF and DICOM"
READERS = {
    **dict.fromkeys((".nii", ".nii.gz", ".hdr", ".img"), "nifti"),
    **dict.fromkeys((".nrrd", ".nhdr", ".seg.nrrd", ".seg.nhdr"), "nrrd"),
    **dict.fromkeys((".mha", ".mhd"), "metaimage"),
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    ".png": "png",
}
NEW_TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
LOSSY = (".jpg", ".jpeg", ".jpe", ".jp2", ".j2k", ".jxl", ".webp", ".avif", ".heic")


def read_volume(path: str | os.PathLike[str], series: str | None = None) -> Volume:
    """Read an image with its stored values, (k, j, i) or (k, j, i, c), its grid, and what is needed to write it back.

    A path that names no file but a channel group (``case.nii.gz`` for ``case_0000.nii.gz``, ``case_0001.nii.gz``, ...) is read as
    one image of several channels. A folder stands for the DICOM series in it, a DICOM file for the series to which it belongs;
    where a folder holds several, ``series`` names one by its Series Instance UID, number or description.

    Raises:
        MedProtectError: the file is missing, empty, truncated, damaged, lossy, of an unknown format or pixel type, has no valid
            grid, holds voxels that are not finite, or could not be written back as it is (palettes, fewer than 8 bits); no series
            or several.
    """
    path = Path(path)
    if files := channel_files(path):
        return together(path, [read_volume(file) for file in files])
    volume = read_stored(path, series)
    if volume.source.refusal:
        raise MedProtectError(f"{path}: {volume.source.refusal}")
    return volume


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a volume to ``path`` in the format, stored type, byte order, compression and with the header it was read with.

    Formats with a data file of their own get it beside ``path`` under the same name. A DICOM series becomes a new folder ``path``
    of derived instances, a DICOM image that was named as one file such a file. A volume that was not read from a file can be
    written as .nrrd, .nii or .nii.gz. The same volume gives the same bytes. Nothing is left behind when writing fails.

    Raises:
        MedProtectError: another extension or another type of voxels than the source's, a file that the volume was read from, or no
            space, permission or folder.
    """
    path = Path(path)
    source = volume.source or _new_source(volume, path)
    if not isinstance(source, Source):
        raise MedProtectError(f"{volume.name}: it was not read from an image file and cannot be written as one.")
    if source.extension and extension_of(path) != source.extension:
        raise MedProtectError(f"{path}: {volume.name} keeps its format; give it a name that ends in {source.extension}.")
    if (volume.array.shape, volume.array.dtype) != (source.shape, source.dtype):
        raise MedProtectError(
            f"{path}: {volume.name} is stored as {source.dtype} {source.shape}, not {volume.array.dtype} {volume.array.shape}."
        )
    for target in source.targets(path):
        if any(target.exists() and file.exists() and target.samefile(file) for file in source.files):
            raise MedProtectError(f"{path}: writing it would replace '{target.name}' of the original. Choose another folder or name.")
    try:
        source.write(volume.array, path)
    except OSError as error:
        raise MedProtectError(f"{path}: cannot be written ({error.strerror}).") from error


def read_stored(path: Path, series: str | None = None) -> Volume:
    """Read a file of any supported format or a DICOM series, also such as can only serve as a label map.

    Raises:
        MedProtectError: the file is missing, empty, of another format, damaged, or holds voxels that are not finite.
    """
    try:
        if not path.is_dir() and path.stat().st_size == 0:
            raise MedProtectError(f"{path}: the file is empty; get a fresh copy.")
        volume: Volume
        if path.is_dir() or is_dicom(path):
            from MedProtectLib.io import dicom

            volume = dicom.read(path, series)
        elif series is not None:
            raise MedProtectError(f"{path}: no DICOM, so it has no series to choose from. Leave out --series.")
        else:
            volume = _reader_for(path).read(path)
    except FileNotFoundError as error:
        raise MedProtectError(f"{path}: no such file.") from error
    except OSError as error:
        raise MedProtectError(f"{path}: cannot be read ({error.strerror}).") from error
    check_finite(volume.array, path)
    return volume


def data_of(path: Path) -> tuple[Path, str] | None:
    """The second file of an image of two: the data file that a header names, or the other one of a pair.

    Returns:
        It, and the extension that :func:`write_volume` gives such a file; None for an image in one file, and where there is no file.

    Raises:
        MedProtectError: the second file is missing, or the header is damaged.
    """
    extension = extension_of(path)
    if READERS.get(extension) not in ("nifti", "nrrd", "metaimage") or extension in (".nii", ".nii.gz") or not is_file(path):
        return None
    try:
        found: tuple[Path, str] | None = _reader_for(path).data_of(path)
    except OSError as error:
        raise MedProtectError(f"{path}: cannot be read ({error.strerror}).") from error
    return found


def _reader_for(path: Path) -> Any:
    """The module that reads files with this extension.

    Raises:
        MedProtectError: there is none.
    """
    extension = extension_of(path)
    if extension in LOSSY:
        raise MedProtectError(f"{path}: lossy compression destroys the perturbation. Supported are {SUPPORTED}.")
    if extension in DICOM_EXTENSIONS:
        raise MedProtectError(f"{path}: {NO_MARK}")
    if extension not in READERS:
        raise MedProtectError(f"{path}: no image format is known by '{extension or path.name}'. Supported are {SUPPORTED}.")
    return import_module(f"MedProtectLib.io.{READERS[extension]}")


def _new_source(volume: Volume, path: Path) -> Source:
    extension = extension_of(path)
    if extension not in (".nrrd", ".nii", ".nii.gz"):
        raise MedProtectError(f"{path}: {volume.name} was not read from a file; it can be written as .nrrd, .nii or .nii.gz.")
    if volume.array.dtype.str[1:] not in NEW_TYPES:
        raise MedProtectError(f"{path}: {volume.name} has values of type {volume.array.dtype}, which a file cannot hold.")
    if (volume.slope, volume.intercept) != (1.0, 0.0):
        raise MedProtectError(f"{path}: {volume.name} was not read from a file and has a slope or intercept, which a new file would lose.")
    source: Source = _reader_for(path).new_source(volume, extension)
    return source
