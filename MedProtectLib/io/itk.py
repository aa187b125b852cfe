"""SimpleITK: geometry of NRRD and MetaImage headers, voxels of PNG and TIFF pictures, resampling."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.grid import geometry_from_matrix
from MedProtectLib.volume import Geometry


def read_geometry(path: Path, reader: str, header: bytes) -> Geometry:
    """The grid that a header describes. A 4D header with one volume counts as 3D.

    ``reader`` is SimpleITK's name for the format. ``header`` holds what is needed of the header of ``path`` and nothing else,
    newly written: ITK 5.4's parsers write past their buffers where a file has words or lists of unexpected length.

    Raises:
        MedProtectError: SimpleITK does not understand the header, or the grid is singular or sheared.
    """
    with tempfile.TemporaryDirectory() as folder, _one_line_errors(path):
        plain = Path(folder, "header")
        plain.write_bytes(header)
        return _geometry(path, _header(plain, reader))


def read_picture(path: Path, reader: str) -> tuple[np.ndarray, Geometry]:
    """Voxels (k, j, i[, c]) and grid of a PNG or TIFF file.

    Raises:
        MedProtectError: SimpleITK cannot decode it.
    """
    with _one_line_errors(path), _utf8_name(path) as named:
        header = _header(named, reader)
        array = sitk.GetArrayFromImage(header.Execute())
        geometry = replace(_geometry(path, header), placed=False)
    return array.reshape((*geometry.shape, *array.shape[header.GetDimension() :])), geometry


def resample_nearest(array: np.ndarray, geometry: Geometry, target: Geometry) -> np.ndarray:
    """An integer array (k, j, i) on ``geometry``, looked up at the voxel centres of ``target``; 0 outside.

    Directions are rounded because ITK inverts matrices with denormal numbers in them wrongly.
    """
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(np.round(geometry.direction, 12).tolist())
    direction = np.round(target.direction, 12).tolist()
    resampled = sitk.Resample(image, target.size, sitk.Transform(), sitk.sitkNearestNeighbor, target.origin, target.spacing, direction)
    return sitk.GetArrayFromImage(resampled)


def _header(path: Path, reader: str) -> sitk.ImageFileReader:
    header = sitk.ImageFileReader()
    header.SetImageIO(reader)
    header.SetFileName(str(path))
    header.ReadImageInformation()
    return header


@contextmanager
def _utf8_name(path: Path) -> Iterator[Path]:
    """The file under a name that SimpleITK takes: one that is not UTF-8 ends the process."""
    if os.fsencode(path).decode(errors="replace") == str(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "picture")
        link.symlink_to(path.absolute())
        yield link


def _geometry(path: Path, header: sitk.ImageFileReader) -> Geometry:
    dimension, size = header.GetDimension(), header.GetSize()
    used = min(dimension, 3)
    matrix = np.eye(4)
    matrix[:used, :used] = (np.reshape(header.GetDirection(), (dimension, dimension)) * header.GetSpacing())[:used, :used]
    matrix[:used, 3] = header.GetOrigin()[:used]
    return geometry_from_matrix(path, (*size[:used], *(1,) * (3 - used)), matrix, used)


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Keep ITK's warnings off the terminal, and of its error texts only the line that says what is wrong."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except RuntimeError as error:
        line = [line for line in str(error).splitlines() if line and not line.startswith("Reason:")][-1]
        reason = re.sub(r"^(\[nrrd\]|.*(ERROR|\(0x[0-9a-f]+\)):)\s*", "", line).strip().rstrip(".")
        raise MedProtectError(f"{path}: not a readable image ({reason}).") from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
