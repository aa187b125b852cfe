"""NIfTI-1 and NIfTI-2: one file (.nii, .nii.gz) or a pair (.hdr, .img). The header is kept byte for byte, extensions included."""

from __future__ import annotations

import gzip
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.grid import check_grid, check_spacing, geometry_from_matrix
from MedProtectLib.io.names import extension_of
from MedProtectLib.io.source import LONGEST_HEADER, HeaderSource
from MedProtectLib.io.voxels import Layout, read_voxels
from MedProtectLib.volume import ChannelType, Geometry, Volume

FORMATS = {
    348: (nib.Nifti1Header, b"n+1\0", b"ni1\0"),
    540: (nib.Nifti2Header, b"n+2\0", b"ni2\0"),
}  # by size: class, magic of file, of pair
CHANNELS = {128: 3, 2304: 4}  # by datatype: RGB24, RGBA32
MILLIMETRES = {1: 1000.0, 3: 0.001}  # by spatial unit: metre, micrometre; every other code counts as millimetre
LONGEST_AXIS = 32767
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NiftiSource(HeaderSource):
    """``hdr`` is the content of the .hdr file of a pair; None where header and voxels share a file."""

    hdr: bytes | None

    def targets(self, path: Path) -> tuple[Path, ...]:
        return (path,) if self.hdr is None else _pair_of(path)

    def header(self, data_name: str | None, data_size: int) -> bytes:
        return self.hdr or b""


def read(path: Path) -> Volume:
    """Read a NIfTI file with its stored values; scl_slope and scl_inter become ``slope`` and ``intercept``.

    An axis of several images beyond the third (sequences, modalities, time) holds channels that are images of their own.

    The grid is that of the sform, else of the qform. With both codes 0 it is the voxel spacing along the LPS axes from the
    origin, which is where SimpleITK and 3D Slicer put such a file; a warning is logged.

    Raises:
        MedProtectError: not NIfTI, damaged, of complex type, with several axes beyond the third, or without a rectangular grid.
    """
    extension = extension_of(path)
    is_pair, packed = extension in (".hdr", ".img"), extension == ".nii.gz"
    header_path, data_path = _pair_of(path) if is_pair else (path, path)
    for file in (header_path, data_path):
        if not file.is_file():
            raise MedProtectError(f"{path}: '{file.name}' is missing; a .hdr and its .img belong together.")
    if is_pair and header_path.stat().st_size > LONGEST_HEADER:
        raise MedProtectError(f"{path}: '{header_path.name}' is far too long for a header. Get a fresh copy.")

    header = _header(path, _first_bytes(header_path, packed, max(FORMATS)), is_pair)
    sizes = [int(size) for size in header["dim"][1 : 1 + header["dim"][0]]]
    if not sizes or min(sizes) < 1:
        raise MedProtectError(f"{path}: damaged NIfTI header: dim is {header['dim'].tolist()}.")
    images = next((axis for axis in range(len(sizes) - 1, 2, -1) if sizes[axis] > 1), None)
    check_grid(path, [size for axis, size in enumerate(sizes) if axis != images][::-1])
    check_spacing(path, header["pixdim"][1 : 1 + min(len(sizes), 3)])
    geometry = _geometry(path, header, sizes)
    slope, intercept = _scaling(path, header)

    channels = CHANNELS.get(int(header["datatype"]))
    if channels and images is not None:
        raise MedProtectError(f"{path}: several colour images in one file are not supported. Split it.")
    shape = (*sizes[::-1], channels) if channels else tuple(sizes[::-1])
    channel_axis = len(sizes) if channels else None if images is None else len(sizes) - 1 - images
    layout = Layout(shape, _dtype(path, header), "gzip" if packed else "raw", channel_axis)
    if not (0 if is_pair else header.sizeof_hdr) <= header["vox_offset"] < float("inf"):
        raise MedProtectError(f"{path}: damaged NIfTI header: the voxels cannot begin at byte {header['vox_offset']:g}.")
    skip = int(header["vox_offset"])

    array = read_voxels(data_path, layout, skip=skip)
    source = NiftiSource(
        files=(header_path, data_path) if is_pair else (path,),
        extension=extension,
        shape=array.shape,
        dtype=array.dtype,
        layout=layout,
        prefix=_first_bytes(data_path, packed, skip),
        hdr=header_path.read_bytes() if is_pair else None,
    )
    types = () if images is None else (ChannelType(array.dtype, slope, intercept),) * sizes[images]
    return Volume(array, geometry, path.name, slope, intercept, alpha=3 if channels == 4 else None, channel_types=types, source=source)


def new_source(volume: Volume, extension: str) -> NiftiSource:
    """A header with nothing but type and grid, for a volume (k, j, i) that was not read from a file.

    Raises:
        MedProtectError: several channels, or an axis of more than 32767 voxels.
    """
    if volume.array.ndim > 3:
        raise MedProtectError(f"{volume.name}: several channels can be written as .nrrd only.")
    if max(volume.geometry.size) > LONGEST_AXIS:
        raise MedProtectError(f"{volume.name}: too large for NIfTI; write it as .nrrd.")
    used = volume.geometry.dimension
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(volume.array.dtype)
    header.set_data_shape(volume.geometry.size[:used])
    affine = RAS_TO_LPS @ volume.geometry.index_to_physical()
    header.set_qform(affine, "scanner")
    header.set_sform(affine, "scanner")
    header.set_xyzt_units("mm")
    header["vox_offset"] = header.single_vox_offset
    layout = Layout(volume.geometry.shape[3 - used :], volume.array.dtype.newbyteorder("<"), "gzip" if extension == ".nii.gz" else "raw")
    no_extensions = bytes(4)
    return NiftiSource(
        files=(),
        extension=extension,
        shape=volume.array.shape,
        dtype=volume.array.dtype,
        layout=layout,
        prefix=header.binaryblock + no_extensions,
        hdr=None,
    )


def data_of(path: Path) -> tuple[Path, str]:
    """The other file of a pair and the extension that it is written with.

    Raises:
        MedProtectError: it is missing.
    """
    (other,) = set(_pair_of(path)) - {path}
    if not other.is_file():
        raise MedProtectError(f"{path}: '{other.name}' is missing; a .hdr and its .img belong together.")
    return other, other.suffix


def _pair_of(path: Path) -> tuple[Path, Path]:
    """The .hdr and the .img of a pair of which one is named; the other has the same case."""
    if path.suffix.lower() == ".hdr":
        return path, path.with_suffix(".IMG" if path.suffix.isupper() else ".img")
    return path.with_suffix(".HDR" if path.suffix.isupper() else ".hdr"), path


def _first_bytes(path: Path, packed: bool, count: int) -> bytes:
    """The first ``count`` bytes after decompression."""
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            return bytes(stream.read(count))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise MedProtectError(f"{path}: not a readable gzip file ({error}). Get a fresh copy, or correct its extension.") from error


def _header(path: Path, content: bytes, is_pair: bool) -> Any:
    """The header as nibabel sees it, without nibabel's repairs."""
    for length, (header_class, single_magic, pair_magic) in FORMATS.items():
        for order in ("little", "big"):
            if len(content) >= length and int.from_bytes(content[:4], order) == length:
                magic = content[344:348] if length == 348 else content[4:8]
                if magic == (pair_magic if is_pair else single_magic):
                    return header_class(content[:length], check=False)
                if not any(magic):
                    raise MedProtectError(f"{path}: an Analyze 7.5 file, which does not say where it lies in space. Convert it to NIfTI.")
    raise MedProtectError(f"{path}: not a NIfTI file{' pair' if is_pair else ''}, or a damaged one.")


def _geometry(path: Path, header: Any, sizes: list[int]) -> Geometry:
    used = min(len(sizes), 3)
    if header["pixdim"][0] == 0:  # the standard reads a qfac of 0 as 1, nibabel refuses it
        header["pixdim"][0] = 1
    try:
        if header["sform_code"] > 0:
            matrix = RAS_TO_LPS @ header.get_sform()
        elif header["qform_code"] > 0:
            matrix = RAS_TO_LPS @ header.get_qform()
        else:
            logger.warning("%s: no position in space (sform and qform code 0); taken as lying along the LPS axes from the origin.", path)
            matrix = np.diag([*header["pixdim"][1 : 1 + used], *(1,) * (4 - used)])
    except (HeaderDataError, ValueError) as error:
        raise MedProtectError(f"{path}: damaged NIfTI header: {error}.") from error
    matrix[:3] *= MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    return geometry_from_matrix(path, (*sizes[:used], *(1,) * (3 - used)), matrix, used)


def _dtype(path: Path, header: Any) -> np.dtype:
    code = int(header["datatype"])
    known: Any = nib.nifti1.data_type_codes.dtype
    dtype = np.dtype("u1" if code in CHANNELS else known.get(code, "V"))
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise MedProtectError(f"{path}: voxels of NIfTI datatype {code} ({dtype.name}) are not supported; real numbers up to 64 bits are.")
    return dtype.newbyteorder(header.endianness)


def _scaling(path: Path, header: Any) -> tuple[float, float]:
    """Slope and intercept; (1, 0) where the header says that there is no scaling."""
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise MedProtectError(f"{path}: damaged NIfTI header: {error}.") from error
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept))
