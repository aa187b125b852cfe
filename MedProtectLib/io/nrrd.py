"""NRRD: one file (.nrrd) or a header with a data file (.nhdr). Format: https://teem.sourceforge.net/nrrd/format.html."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.grid import check_grid, check_spacing
from MedProtectLib.io.itk import read_geometry
from MedProtectLib.io.names import extension_of, stem_of
from MedProtectLib.io.source import HeaderSource, data_file, header_lines
from MedProtectLib.io.voxels import Layout, read_voxels
from MedProtectLib.volume import Volume

TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
FLOATS = {"float32": "float", "float64": "double"}
ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "ascii": "ascii", "text": "ascii", "txt": "ascii", "hex": "hex"}
DATA_EXTENSIONS = {"raw": ".raw", "gzip": ".raw.gz", "ascii": ".txt", "hex": ".hex"}
DOMAIN_KINDS = ("domain", "space", "time", "???", "none")
CENTERINGS = ("cell", "node", "???", "none")
SPACE = re.compile(r"[A-Za-z0-9-]{1,40}")
MOST_AXES = 8
CHANNEL_KINDS = ("list", "vector", "point", "2-vector", "3-vector", "4-vector", "3-color", "4-color", "rgb-color", "rgba-color")


@dataclass(frozen=True, kw_only=True)
class NrrdSource(HeaderSource):
    """``lines`` are the header's with their line ends; ``pairs`` are its ``key:=value`` lines with escapes resolved."""

    lines: tuple[bytes, ...]
    pairs: Mapping[str, str]
    detached: bool

    def targets(self, path: Path) -> tuple[Path, ...]:
        return (path, path.with_name(stem_of(path) + DATA_EXTENSIONS[self.layout.encoding])) if self.detached else (path,)

    def header(self, data_name: str | None, data_size: int) -> bytes:
        kept = []
        for line in self.lines:
            field = _field_name(line)
            if field == "datafile":
                kept.append(re.sub(rb":[^\r\n]*", lambda _: f": {data_name}".encode("utf-8", "surrogateescape"), line, count=1))
            elif field not in ("byteskip", "lineskip"):
                kept.append(line)
        return b"".join(kept)


def read(path: Path) -> Volume:
    """Read an NRRD file.

    Raises:
        MedProtectError: not NRRD, damaged, or laid out in a way that is not supported (4D, block or complex types, several data files).
    """
    lines = header_lines(path, rb"NRRD000[1-6]\s", lambda line: not line.strip())
    fields, pairs = _parse(lines)
    layout, kinds = _layout(path, fields)
    check_grid(path, layout.grid)
    _check_spacings(path, fields, kinds)
    data = data_file(path, fields["datafile"]) if "datafile" in fields else path
    geometry = read_geometry(path, "NrrdImageIO", _plain_header(path, fields, layout, kinds))
    offset = sum(map(len, lines)) if data == path else 0
    skip = _integer(path, fields, "byteskip")
    if skip == -1 and layout.encoding == "raw":
        skip = max(0, data.stat().st_size - offset - layout.nbytes)
    if skip < 0 or _integer(path, fields, "lineskip"):
        raise MedProtectError(
            f"{path}: 'line skip', or 'byte skip' of compressed data from their end, is not supported. Save the image anew."
        )

    array = read_voxels(data, layout, offset, skip)
    source = NrrdSource(
        files=(path,) if data == path else (path, data),
        extension=extension_of(path),
        shape=array.shape,
        dtype=array.dtype,
        layout=layout,
        lines=lines,
        pairs=pairs,
        detached=data != path,
    )
    alpha = 3 if "rgba-color" in kinds else None
    return Volume(array, geometry, path.name, alpha=alpha, source=source)


def data_of(path: Path) -> tuple[Path, str] | None:
    """The data file that a header names and the extension of one that is written anew; None where voxels follow the header.

    Raises:
        MedProtectError: not NRRD, of an unknown encoding, or the data file is missing.
    """
    fields, _ = _parse(header_lines(path, rb"NRRD000[1-6]\s", lambda line: not line.strip()))
    if "datafile" not in fields:
        return None
    return data_file(path, fields["datafile"]), DATA_EXTENSIONS[_encoding(path, fields)]


def new_source(volume: Volume, extension: str) -> NrrdSource:
    """A header with nothing but type and grid, for a volume (k, j, i[, c]) that was not read from a file."""
    used, channels = volume.geometry.dimension, volume.array.shape[3:]
    matrix = volume.geometry.index_to_physical()
    kind = "RGBA-color" if volume.alpha == 3 else "vector"
    directions = ["none"] * len(channels) + [_vector(matrix[:used, axis]) for axis in range(used)]
    text = (
        "NRRD0004\n"
        f"type: {FLOATS.get(volume.array.dtype.name, volume.array.dtype.name)}\n"
        f"dimension: {used + len(channels)}\n"
        f"{'space: left-posterior-superior' if used == 3 else 'space dimension: 2'}\n"
        f"sizes: {' '.join(map(str, (*channels, *volume.geometry.size[:used])))}\n"
        f"space directions: {' '.join(directions)}\n"
        f"kinds: {' '.join([kind] * len(channels) + ['domain'] * used)}\n"
        "endian: little\n"
        "encoding: gzip\n"
        f"space origin: {_vector(matrix[:used, 3])}\n"
        "\n"
    )
    shape = (*volume.geometry.shape[3 - used :], *channels)
    layout = Layout(shape, volume.array.dtype.newbyteorder("<"), "gzip", len(shape) - 1 if channels else None)
    return NrrdSource(
        files=(),
        extension=extension,
        shape=volume.array.shape,
        dtype=volume.array.dtype,
        layout=layout,
        lines=(text.encode(),),
        pairs={},
        detached=False,
    )


def _vector(values: Iterable[float]) -> str:
    return f"({','.join(repr(float(value)) for value in values)})"


def _field_name(line: bytes) -> str | None:
    """The field of a ``field: value`` line, in lower case without blanks; None for comments and ``key:=value`` lines."""
    name, colon, value = line.partition(b":")
    if line.startswith(b"#") or not colon or value.startswith(b"="):
        return None
    return name.decode("utf-8", "replace").replace(" ", "").lower()


def _parse(lines: Iterable[bytes]) -> tuple[dict[str, str], dict[str, str]]:
    """The fields and the key/value pairs of a header."""
    fields, pairs = {}, {}
    for line in lines:
        name, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
        if field := _field_name(line):
            fields[field] = line.partition(b":")[2].decode("utf-8", "surrogateescape").strip()
        elif value.startswith("="):
            pairs[name] = re.sub(r"\\(.)", lambda escaped: "\n" if escaped[1] == "n" else escaped[1], value[1:])
    return fields, pairs


def _layout(path: Path, fields: Mapping[str, str]) -> tuple[Layout, list[str]]:
    """How the voxels lie, and the kind of every axis (fastest first, in lower case)."""
    for required in ("type", "sizes", "encoding"):
        if required not in fields:
            raise MedProtectError(f"{path}: damaged NRRD header: the field '{required}' is missing.")
    if fields["type"].lower() not in TYPES:
        raise MedProtectError(f"{path}: voxels of type '{fields['type']}' are not supported.")
    dtype, encoding = np.dtype(TYPES[fields["type"].lower()]), _encoding(path, fields)
    if dtype.itemsize > 1 and encoding != "ascii":
        if fields.get("endian", "").lower() not in ("little", "big"):
            raise MedProtectError(f"{path}: damaged NRRD header: the field 'endian' must be 'little' or 'big'.")
        dtype = dtype.newbyteorder("<" if fields["endian"].lower() == "little" else ">")

    sizes = [_integer(path, {"sizes": word}, "sizes") for word in fields["sizes"].split()]
    kinds = fields["kinds"].lower().split() if "kinds" in fields else ["domain"] * len(sizes)
    if len(kinds) != len(sizes) or min(sizes, default=0) < 1:
        raise MedProtectError(f"{path}: damaged NRRD header: 'sizes: {fields['sizes']}' does not fit the other fields.")
    channels = [axis for axis, kind in enumerate(kinds) if kind not in DOMAIN_KINDS]
    if len(channels) > 1 or any(kinds[axis] not in CHANNEL_KINDS for axis in channels):
        raise MedProtectError(f"{path}: axes of kind '{' '.join(kinds)}' are not supported; only intensities and lists of them are.")
    return Layout(tuple(reversed(sizes)), dtype, encoding, len(sizes) - 1 - channels[0] if channels else None), kinds


def _encoding(path: Path, fields: Mapping[str, str]) -> str:
    found = fields.get("encoding", "")
    if found.lower() not in ENCODINGS:
        raise MedProtectError(f"{path}: NRRD encoding '{found}' is not supported. Save the image with encoding gzip or raw.")
    return ENCODINGS[found.lower()]


def _plain_header(path: Path, fields: Mapping[str, str], layout: Layout, kinds: list[str]) -> bytes:
    """A header that says nothing but where the voxels lie, in numbers as Python writes them."""
    axes = len(kinds)
    if _integer(path, fields, "dimension") != axes:
        raise MedProtectError(f"{path}: damaged NRRD header: 'dimension' is not the number of sizes.")
    plain = {
        "type": "uchar",
        "dimension": str(axes),
        "sizes": " ".join(map(str, reversed(layout.shape))),
        "kinds": " ".join(kinds),
        "encoding": "raw",
    }
    if space := SPACE.fullmatch(fields.get("space", "")):
        plain["space"] = space[0]
    elif "space" in fields:
        raise MedProtectError(f"{path}: damaged NRRD header: 'space' is '{fields['space']}'.")
    if "spacedimension" in fields:
        plain["space dimension"] = str(_integer(path, fields, "spacedimension"))
    for name, title, count in (("spacedirections", "space directions", axes), ("spaceorigin", "space origin", 1)):
        if name in fields:
            vectors = _vectors(path, fields, name)
            if len(vectors) != count or len({len(v) for v in vectors if v}) > 1 or max(map(len, vectors)) > MOST_AXES:
                raise MedProtectError(f"{path}: damaged NRRD header: '{title}' does not fit the number of axes.")
            plain[title] = " ".join(_vector(v) if v else "none" for v in vectors)
    for name, title in (("spacings", "spacings"), ("axismins", "axis mins"), ("axismaxs", "axis maxs")):
        if name in fields:
            numbers = _floats(path, name, fields[name].split())
            if len(numbers) != axes:
                raise MedProtectError(f"{path}: damaged NRRD header: '{title}' does not fit the number of axes.")
            plain[title] = " ".join(map(repr, numbers))
    if "axismins" in fields and (centerings := _centerings(path, fields, axes)):
        plain["centerings"] = centerings
    return ("NRRD0005\n" + "".join(f"{name}: {value}\n" for name, value in plain.items()) + "\n").encode()


def _centerings(path: Path, fields: Mapping[str, str], axes: int) -> str:
    """Whether the ends of an axis are the middle of a voxel (node) or its face (cell), for every axis; empty where nothing is said."""
    words = fields.get("centerings", fields.get("centers", "")).lower().split()
    if words and (len(words) != axes or not set(words) <= set(CENTERINGS)):
        raise MedProtectError(f"{path}: damaged NRRD header: 'centerings' must be one of {', '.join(CENTERINGS)} for every axis.")
    return " ".join(words)


def _check_spacings(path: Path, fields: Mapping[str, str], kinds: list[str]) -> None:
    """Look at the spacing as it is written: SimpleITK reads not-a-number as 1 and a negative spacing as a flip."""
    grid_axes = [axis for axis, kind in enumerate(kinds) if kind in DOMAIN_KINDS]
    norms = [math.hypot(*v) if v else math.nan for v in _vectors(path, fields, "spacedirections")]
    for per_axis in (_floats(path, "spacings", fields.get("spacings", "").split()), norms):
        if per_axis:
            check_spacing(path, [per_axis[axis] for axis in grid_axes if axis < len(per_axis)])


def _vectors(path: Path, fields: Mapping[str, str], name: str) -> list[list[float]]:
    """The vectors of a field, empty ones for 'none'."""
    found: list[str] = re.findall(r"\([^)]*\)|none", fields.get(name, ""))
    return [[] if text == "none" else _floats(path, name, text[1:-1].split(",")) for text in found]


def _floats(path: Path, name: str, words: Iterable[str]) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise MedProtectError(f"{path}: damaged NRRD header: '{name}' holds a word that is no number.") from error


def _integer(path: Path, fields: Mapping[str, str], name: str) -> int:
    try:
        return int(fields.get(name, "0"))
    except ValueError as error:
        raise MedProtectError(f"{path}: damaged NRRD header: '{name}' is '{fields[name]}', no whole number.") from error
