"""MetaImage: one file (.mha) or a header with a data file (.mhd). Format: https://itk.org/Wiki/ITK/MetaIO/Documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.grid import check_grid, check_spacing
from MedProtectLib.io.itk import read_geometry
from MedProtectLib.io.names import extension_of, stem_of
from MedProtectLib.io.source import HeaderSource, data_file, header_lines
from MedProtectLib.io.voxels import Layout, read_voxels
from MedProtectLib.volume import Volume

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
DATA_EXTENSIONS = {"raw": ".raw", "zlib": ".zraw", "ascii": ".txt"}
POSITIONS = ("Offset", "Position", "Origin")
MATRICES = ("TransformMatrix", "Rotation", "Orientation")
UNITS = ("um", "mm", "cm")
MODALITIES = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR", "MET_MOD_US": "US"}
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True)
class MetaImageSource(HeaderSource):
    """``lines`` are the header's with their line ends, ElementDataFile last."""

    lines: tuple[bytes, ...]
    detached: bool

    def targets(self, path: Path) -> tuple[Path, ...]:
        return (path, path.with_name(stem_of(path) + DATA_EXTENSIONS[self.layout.encoding])) if self.detached else (path,)

    def header(self, data_name: str | None, data_size: int) -> bytes:
        written = {"ElementDataFile": data_name or "LOCAL"}
        if self.layout.encoding == "zlib":
            written = {"CompressedDataSize": str(data_size), **written}
        dropped = {"CompressedDataSize", "ElementDataFile", "HeaderSize"}
        kept = [line for line in self.lines if _parse_line(line)[0] not in dropped]
        end = "\r\n" if self.lines[0].endswith(b"\r\n") else "\n"
        return b"".join(kept) + "".join(f"{key} = {value}{end}" for key, value in written.items()).encode("utf-8", "surrogateescape")


def read(path: Path) -> Volume:
    """Read a MetaImage file.

    Raises:
        MedProtectError: not MetaImage, damaged, or laid out in a way that is not supported (4D, several data files).
    """
    lines = header_lines(path, rb"\w+\s*[=:]", lambda line: _parse_line(line)[0] == "ElementDataFile")
    fields = dict(map(_parse_line, lines))
    layout = _layout(path, fields)
    check_grid(path, layout.grid)
    (leading,) = _numbers(path, fields, "HeaderSize", int, 1, "0")
    for spacing in ("ElementSpacing", "ElementSize"):
        if spacing in fields:
            check_spacing(path, _numbers(path, fields, spacing, float, len(layout.grid)))
    name = fields["ElementDataFile"]
    data = path if name.upper() == "LOCAL" else data_file(path, name)
    geometry = read_geometry(path, "MetaImageIO", _plain_header(path, fields, layout))
    offset = sum(map(len, lines)) if data == path else 0
    if leading == -1 and layout.encoding == "raw":
        offset = max(offset, data.stat().st_size - layout.nbytes)
    elif leading < 0 or (leading > 0 and data == path):
        raise MedProtectError(f"{path}: 'HeaderSize = {leading}' is not supported here. Save the image anew.")
    else:
        offset += leading

    array = read_voxels(data, layout, offset)
    source = MetaImageSource(
        files=(path,) if data == path else (path, data),
        extension=extension_of(path),
        shape=array.shape,
        dtype=array.dtype,
        layout=layout,
        lines=lines,
        detached=data != path,
    )
    return Volume(array, geometry, path.name, modality=MODALITIES.get(fields.get("Modality", "")), source=source)


def data_of(path: Path) -> tuple[Path, str] | None:
    """The data file that a header names and the extension of one that is written anew; None where voxels follow the header.

    Raises:
        MedProtectError: not MetaImage, or the data file is missing.
    """
    fields = dict(map(_parse_line, header_lines(path, rb"\w+\s*[=:]", lambda line: _parse_line(line)[0] == "ElementDataFile")))
    name = fields.get("ElementDataFile", "LOCAL")
    return None if name.upper() == "LOCAL" else (data_file(path, name), DATA_EXTENSIONS[_encoding(fields)])


def _parse_line(line: bytes) -> tuple[str, str]:
    key, _, value = re.sub(r"[=:]", "\0", line.decode("utf-8", "surrogateescape"), count=1).partition("\0")
    return key.strip(), value.strip()


def _layout(path: Path, fields: Mapping[str, str]) -> Layout:
    for required in ("NDims", "DimSize", "ElementType", "ElementDataFile"):
        if required not in fields:
            raise MedProtectError(f"{path}: not a MetaImage file, or a damaged one: the field '{required}' is missing.")
    element = fields["ElementType"].removesuffix("_ARRAY")
    if element not in TYPES:
        raise MedProtectError(f"{path}: voxels of type '{fields['ElementType']}' are not supported.")
    big = _is_true(fields, "BinaryDataByteOrderMSB") or _is_true(fields, "ElementByteOrderMSB")
    dtype = np.dtype(TYPES[element]).newbyteorder(">" if big else "<")
    encoding = _encoding(fields)
    (axes,) = _numbers(path, fields, "NDims", int, 1)
    shape = tuple(reversed(_numbers(path, fields, "DimSize", int, axes)))
    (channels,) = _numbers(path, fields, "ElementNumberOfChannels", int, 1, "1")
    if min((*shape, channels)) < 1:
        raise MedProtectError(f"{path}: damaged MetaImage header: sizes must be positive.")
    return Layout(shape, dtype, encoding) if channels == 1 else Layout((*shape, channels), dtype, encoding, len(shape))


def _encoding(fields: Mapping[str, str]) -> str:
    if "BinaryData" in fields and not _is_true(fields, "BinaryData"):
        return "ascii"
    return "zlib" if _is_true(fields, "CompressedData") else "raw"


def _plain_header(path: Path, fields: Mapping[str, str], layout: Layout) -> bytes:
    """A header that says nothing but where the voxels lie, in numbers as Python writes them."""
    axes = len(layout.grid)
    plain = {"ObjectType": "Image", "NDims": str(axes), "DimSize": " ".join(map(str, reversed(layout.grid)))}
    for name, count in {
        "ElementSpacing": axes,
        "ElementSize": axes,
        **dict.fromkeys(POSITIONS, axes),
        **dict.fromkeys(MATRICES, axes**2),
    }.items():
        if name in fields:
            plain[name] = " ".join(map(repr, _numbers(path, fields, name, float, count)))
    if fields.get("DistanceUnits") in UNITS:
        plain["DistanceUnits"] = fields["DistanceUnits"]
    plain |= {"ElementType": "MET_UCHAR", "ElementDataFile": "LOCAL"}
    return "".join(f"{name} = {value}\n" for name, value in plain.items()).encode()


def _is_true(fields: Mapping[str, str], name: str) -> bool:
    """What MetaIO takes for true: it looks at the first character."""
    return fields.get(name, "").startswith(("T", "t", "1"))


def _numbers(path: Path, fields: Mapping[str, str], name: str, number: type[Number], count: int, default: str = "") -> list[Number]:
    words = fields.get(name, default).split()
    try:
        values = [number(word) for word in words]
    except ValueError:
        values = []
    if not values or len(values) != count:
        raise MedProtectError(f"{path}: damaged MetaImage header: '{name}' is '{' '.join(words)}'.")
    return values
