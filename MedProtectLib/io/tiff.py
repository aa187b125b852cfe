"""TIFF: grey, RGB and RGBA pictures and stacks of pages. Every tag is kept that does not say how the pixels are packed or hold them.

Format: TIFF revision 6.0 (1992), and BigTIFF with its offsets of 64 bits.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.itk import read_picture
from MedProtectLib.io.names import extension_of
from MedProtectLib.io.source import Source, new_file
from MedProtectLib.io.voxels import inflate
from MedProtectLib.volume import Volume

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
DESCRIPTION, STRIP_OFFSETS, ORIENTATION = 270, 273, 274
SAMPLES, ROWS_PER_STRIP, STRIP_SIZES, PLANAR, PREDICTOR, TILE_WIDTH, SUB_PICTURES, EXTRA, FORMAT = (
    277,
    278,
    279,
    284,
    317,
    322,
    330,
    338,
    339,
)
OF_THE_ORIGINAL_PIXELS = (34377, 37724)  # Photoshop: resources, a thumbnail among them, and layers
POINTERS = (34665, 34853, 40965)  # to directories of EXIF, GPS and interoperability tags
TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
SHORT, LONG, LONG8 = 3, 4, 16
INTEGERS = {1: "B", SHORT: "H", LONG: "I", 13: "I", LONG8: "Q", 18: "Q"}
NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 5, 8, 32946, 32773
LOSSLESS, WRITTEN = (NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS), (NONE, DEFLATE, OLD_DEFLATE)
HORIZONTAL = 2
LOW_BIT_FIRST = 2
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
LOSSY = (6, 7, 33003, 33005, 34712, 50001)  # JPEG, JPEG 2000, WebP
WHOLE_PAGES = (0, 2)  # and no thumbnails or transparency masks
MOST_EXPANSION = 2000  # LZW: 12 bits stand for up to 3837 bytes, half of that on average
MOST_SHARED = 4  # how often tags may share the bytes of their values
COMPRESSION_LEVEL = 4
IMAGEJ_PLANES = re.compile(rb"ImageJ=[^\0]*?\bimages=(\d{1,9})\b")
TIFFFILE_SHAPE = re.compile(rb"(?:\{[^\0]*\"shape\": *\[|shape=\()([\d, ]{1,200})[\])]")


@dataclass(frozen=True)
class Entry:
    """A tag's type and the bytes of its values; or the directory that it points to."""

    type: int
    values: bytes
    directory: Mapping[int, Entry] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.values) // TYPE_SIZES[self.type]


Page = Mapping[int, Entry]


@dataclass(frozen=True)
class Dialect:
    """Byte order (a struct prefix), and whether offsets have 64 bits."""

    order: Literal["<", ">"]
    big: bool

    @property
    def offset(self) -> str:
        return "Q" if self.big else "I"

    @property
    def offset_size(self) -> int:
        return 8 if self.big else 4

    @property
    def first_link(self) -> int:
        """Where the file header keeps the offset of the first directory."""
        return 8 if self.big else 4

    def link(self, start: int, entries: int) -> int:
        """Where a directory at ``start`` keeps the offset of the next one."""
        return start + (8 + 20 * entries if self.big else 2 + 12 * entries)

    def pack(self, form: str, *values: int) -> bytes:
        return struct.pack(self.order + form, *values)

    def unpack(self, form: str, content: bytes, position: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + form, content, position)

    def values(self, page: Page, tag: int, default: int = 0) -> tuple[int, ...]:
        """The values of a tag of an integer type."""
        entry = page.get(tag)
        if entry is None or entry.count == 0 or entry.type not in INTEGERS:
            return (default,)
        return self.unpack(f"{entry.count}{INTEGERS[entry.type]}", entry.values, 0)

    def value(self, page: Page, tag: int, default: int = 0) -> int:
        return self.values(page, tag, default)[0]

    def entry(self, type_: int, *values: int) -> Entry:
        return Entry(type_, self.pack(f"{len(values)}{INTEGERS[type_]}", *values))


@dataclass(frozen=True, kw_only=True)
class TiffSource(Source):
    """The pages with all their tags. What was compressed is written with Deflate, whatever it was compressed with."""

    dialect: Dialect
    pages: tuple[Page, ...]

    def write(self, array: np.ndarray, path: Path) -> None:
        dialect = self.dialect
        content = bytearray(b"II" if dialect.order == "<" else b"MM")
        content += dialect.pack("HHHQ", 43, 8, 0, 0) if dialect.big else dialect.pack("HI", 42, 0)
        link = dialect.first_link
        for page, picture in zip(self.pages, array, strict=True):
            offsets, sizes = [], []
            for strip in _strips(dialect, page, picture):
                offsets.append(len(content))
                sizes.append(len(strip))
                content += _even(strip)
            start, written = len(content), _with_strips(dialect, page, offsets, sizes)
            content += _directory(dialect, written, start)
            struct.pack_into(dialect.order + dialect.offset, content, link, start)
            link = dialect.link(start, len(written))
        with new_file(path) as stream:
            stream.write(content)


def read(path: Path) -> Volume:
    """Read a TIFF picture (1, j, i[, c]) or a stack of equal pages (k, j, i[, c]).

    Raises:
        MedProtectError: not TIFF, damaged, truncated, lossy, with pictures that only its description counts, or packed in a way that
            SimpleITK does not read faithfully.
    """
    content = path.read_bytes()
    try:
        dialect, pages = _parse(path, content)
        shape, dtype = _layout(path, dialect, pages)
        _check_strips(path, dialect, pages, len(content), math.prod(shape[1:]) * dtype.itemsize)
        _check_planes(path, pages, len(content), shape, dtype)
        _check_packed(dialect, pages, content, math.prod(shape[2:]) * dtype.itemsize)
    except (struct.error, KeyError, IndexError, ValueError, EOFError, zlib.error) as error:
        raise MedProtectError(f"{path}: damaged or truncated TIFF file; get a fresh copy.") from error
    array, geometry = read_picture(path, "TIFFImageIO")
    if (array.shape, array.dtype) != (shape, dtype):
        raise MedProtectError(f"{path}: damaged TIFF file (SimpleITK finds other pixels than its tags announce); get a fresh copy.")
    has_alpha = shape[3:] == (4,) and dialect.value(pages[0], EXTRA) in (1, 2)
    source = TiffSource(files=(path,), extension=extension_of(path), shape=shape, dtype=dtype, dialect=dialect, pages=pages)
    return Volume(array, geometry, path.name, photograph=dtype == np.uint8, alpha=3 if has_alpha else None, source=source)


def _parse(path: Path, content: bytes) -> tuple[Dialect, tuple[Page, ...]]:
    orders: dict[bytes, Literal["<", ">"]] = {b"II": "<", b"MM": ">"}
    if content[:2] not in orders:
        raise MedProtectError(f"{path}: not a TIFF file.")
    order = orders[content[:2]]
    version = struct.unpack_from(order + "H", content, 2)[0]
    if version not in (42, 43):
        raise MedProtectError(f"{path}: not a TIFF file.")
    dialect = Dialect(order, version == 43)
    pages: list[Page] = []
    start, seen, held = dialect.unpack(dialect.offset, content, dialect.first_link)[0], set[int](), 0
    while start:
        if start in seen:
            raise MedProtectError(f"{path}: damaged TIFF file (its pages form a loop); get a fresh copy.")
        seen.add(start)
        page, start = _read_directory(dialect, content, start)
        pages.append(page)
        held += _size(page)
        if held > MOST_SHARED * len(content):
            raise MedProtectError(f"{path}: damaged TIFF file (its pages hold more than the file); get a fresh copy.")
    return dialect, tuple(pages)


def _read_directory(dialect: Dialect, content: bytes, start: int, depth: int = 0) -> tuple[Page, int]:
    """A directory and the offset of the next one (0: none)."""
    (entries,) = dialect.unpack("Q" if dialect.big else "H", content, start)
    end = dialect.link(start, entries)
    page: dict[int, Entry] = {}
    held = 0
    for position in range(dialect.link(start, 0), end, dialect.link(0, 1) - dialect.link(0, 0)):
        tag, type_, count = dialect.unpack("HH" + dialect.offset, content, position)
        at, size = position + 4 + dialect.offset_size, count * TYPE_SIZES[type_]
        if size > dialect.offset_size:
            (at,) = dialect.unpack(dialect.offset, content, at)
        held += size
        if at + size > len(content) or held > MOST_SHARED * len(content):
            raise IndexError(at)
        page[tag] = Entry(type_, content[at : at + size])
        if tag in POINTERS and depth < len(POINTERS):
            page[tag] = Entry(type_, page[tag].values, _read_directory(dialect, content, dialect.value(page, tag), depth + 1)[0])
    return page, dialect.unpack(dialect.offset, content, end)[0]


def _size(page: Page) -> int:
    """The bytes of all values of a page."""
    return sum(len(entry.values) + _size(entry.directory) for entry in page.values())


def _layout(path: Path, dialect: Dialect, pages: Sequence[Page]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape (k, j, i[, c]) and type of the pixels."""

    def refuse(reason: str) -> MedProtectError:
        return MedProtectError(f"{path}: {reason}. Save it as an uncompressed grey or RGB TIFF, or as PNG.")

    described = {
        (
            tuple(dialect.value(page, tag, 1) for tag in (HEIGHT, WIDTH, SAMPLES, COMPRESSION, FORMAT)),
            dialect.values(page, BITS, 1),
            dialect.value(page, PHOTOMETRIC),
        )
        for page in pages
    }
    if len(described) != 1 or any(dialect.value(page, SUBFILE) not in WHOLE_PAGES or SUB_PICTURES in page for page in pages):
        raise refuse("the TIFF file has no pages, or pages of different kinds (thumbnails, masks, resolutions), which are not supported")
    (((height, width, samples, compression, number), bits, photometric),) = described
    if compression in LOSSY:
        raise MedProtectError(f"{path}: a TIFF file with lossy compression is not supported: lossy compression destroys the perturbation.")
    if compression not in LOSSLESS:
        raise refuse(f"TIFF compression {compression} is not supported")
    kind = {1: "u", 2: "i", 3: "f"}.get(number, "")
    if len(set(bits)) > 1 or f"{kind}{bits[0]}" not in ("u8", "i8", "u16", "i16", "u32", "i32", "f32"):
        raise refuse(f"TIFF pixels of {bits[0]} bits in sample format {number} are not supported")
    if (photometric, samples) not in ((0, 1), (1, 1), (2, 3), (2, 4)):
        raise refuse(
            f"TIFF colours of kind {photometric} with {samples} samples a pixel (such as palettes, CMYK, grey with alpha) are not supported"
        )
    for page in pages:
        if TILE_WIDTH in page or (samples > 1 and dialect.value(page, PLANAR, 1) != 1) or dialect.value(page, ORIENTATION, 1) != 1:
            raise refuse("TIFF pictures in tiles, in separate colour planes or turned by an orientation tag are not supported")
    shape = (len(pages), height, width) + ((samples,) if samples > 1 else ())
    return shape, np.dtype(f"{kind}{bits[0] // 8}")


def _check_strips(path: Path, dialect: Dialect, pages: Sequence[Page], file_size: int, page_size: int) -> None:
    if len(pages) * page_size > MOST_EXPANSION * file_size:
        raise MedProtectError(f"{path}: damaged TIFF file: it announces more pixels than it can hold. Get a fresh copy.")
    for page in pages:
        ends = [start + size for start, size in zip(dialect.values(page, STRIP_OFFSETS), dialect.values(page, STRIP_SIZES), strict=True)]
        packed = min(sum(dialect.values(page, STRIP_SIZES)), file_size)
        most = packed * (1 if dialect.value(page, COMPRESSION, 1) == NONE else MOST_EXPANSION)
        if max(ends) > file_size or page_size > most:
            raise MedProtectError(f"{path}: truncated TIFF file: it ends before its pixels do. Get a fresh copy.")


def _check_packed(dialect: Dialect, pages: Sequence[Page], content: bytes, row_size: int) -> None:
    """Unpack what libtiff takes for whole where it is damaged. LZW it checks as far as can be; LZW and PackBits have no checksum.

    Raises:
        ValueError, IndexError, EOFError, zlib.error: damaged.
    """
    for page in pages:
        compression, height, step = dialect.value(page, COMPRESSION, NONE), dialect.value(page, HEIGHT), _rows_per_strip(dialect, page)
        if compression not in (DEFLATE, OLD_DEFLATE, PACKBITS):
            continue
        starts, sizes = dialect.values(page, STRIP_OFFSETS), dialect.values(page, STRIP_SIZES)
        for number, first in enumerate(range(0, height, step)):
            packed, rows = content[starts[number] : starts[number] + sizes[number]], min(step, height - first)
            if dialect.value(page, FILL_ORDER) == LOW_BIT_FIRST:
                packed = packed.translate(REVERSED)
            if compression == PACKBITS:
                _check_runs(packed, rows, row_size)
            else:
                inflate(io.BytesIO(packed), "zlib", rows * row_size)


def _check_runs(packed: bytes, rows: int, row_size: int) -> None:
    """Refuse runs of PackBits that do not fill one row after the other.

    Raises:
        ValueError, IndexError: as it says.
    """
    position = 0
    for _ in range(rows):
        left = row_size
        while left > 0:
            head = packed[position]
            left -= head + 1 if head < 128 else 257 - head if head > 128 else 0
            position += head + 2 if head < 128 else 2 if head > 128 else 1
        if left or position > len(packed):
            raise ValueError("a run that is cut")


def _check_planes(path: Path, pages: Sequence[Page], file_size: int, shape: Sequence[int], dtype: np.dtype) -> None:
    """Refuse stacks of which ImageJ or tifffile wrote one page only, followed by the pixels of all others."""
    announced = max(_announced_planes(page, math.prod(shape[1:])) for page in pages)
    if announced > len(pages) and file_size >= (len(pages) + 1) * math.prod(shape[1:]) * dtype.itemsize:
        raise MedProtectError(
            f"{path}: its description announces {announced} pictures, but only {len(pages)} of them can be found as pages of the file. "
            "Save it anew with one page for every picture, or as NRRD."
        )


def _announced_planes(page: Page, page_values: int) -> int:
    """How many pictures of so many values the description of a page speaks of."""
    description = page[DESCRIPTION].values if DESCRIPTION in page else b""
    if imagej := IMAGEJ_PLANES.match(description):
        return int(imagej[1])
    if tifffile := TIFFFILE_SHAPE.match(description):
        return math.prod(int(length) for length in tifffile[1].split(b",") if length.strip()) // page_values
    return 1


def _rows_per_strip(dialect: Dialect, page: Page) -> int:
    return min(dialect.value(page, ROWS_PER_STRIP, 2**32 - 1), dialect.value(page, HEIGHT))


def _is_packed(dialect: Dialect, page: Page) -> bool:
    return dialect.value(page, COMPRESSION, 1) != NONE


def _keeps_predictor(dialect: Dialect, page: Page) -> bool:
    return _is_packed(dialect, page) and dialect.value(page, PREDICTOR, 1) == HORIZONTAL


def _strips(dialect: Dialect, page: Page, picture: np.ndarray) -> Iterator[bytes]:
    """The rows of a page (j, i[, c]), cut and packed as the page says.

    The predictor takes differences of floats as of whole numbers with the same bits, as libtiff does.
    """
    step = _rows_per_strip(dialect, page)
    for first in range(0, len(picture), step):
        rows = picture[first : first + step].view(f"u{picture.itemsize}")
        if _keeps_predictor(dialect, page):
            rows = np.diff(rows, axis=1, prepend=np.zeros_like(rows[:, :1]))
        strip = rows.astype(rows.dtype.newbyteorder(dialect.order)).tobytes()
        yield zlib.compress(strip, COMPRESSION_LEVEL) if _is_packed(dialect, page) else strip


def _with_strips(dialect: Dialect, page: Page, offsets: Sequence[int], sizes: Sequence[int]) -> Page:
    """The page's tags for strips that lie elsewhere."""
    kept = {tag: entry for tag, entry in page.items() if tag not in (FILL_ORDER, PREDICTOR, *OF_THE_ORIGINAL_PIXELS)}
    if _keeps_predictor(dialect, page):
        kept[PREDICTOR] = page[PREDICTOR]
    compression = dialect.value(page, COMPRESSION, NONE)
    offset_type = LONG8 if dialect.big else LONG
    return kept | {
        COMPRESSION: page.get(COMPRESSION) or dialect.entry(SHORT, NONE) if compression in WRITTEN else dialect.entry(SHORT, DEFLATE),
        STRIP_OFFSETS: dialect.entry(offset_type, *offsets),
        STRIP_SIZES: dialect.entry(offset_type, *sizes),
        ROWS_PER_STRIP: dialect.entry(LONG, _rows_per_strip(dialect, page)),
    }


def _directory(dialect: Dialect, page: Page, start: int) -> bytes:
    """The bytes of a directory that begins at ``start`` and is the last, with the values that do not fit into it behind it."""
    entries, behind = b"", b""
    end = dialect.link(start, len(page)) + dialect.offset_size
    for tag, entry in sorted(page.items()):
        values = entry.values
        if entry.directory or len(values) > dialect.offset_size:
            at = end + len(behind)
            behind += _even(_directory(dialect, entry.directory, at) if entry.directory else values)
            values = dialect.pack(dialect.offset, at)
        entries += dialect.pack("HH" + dialect.offset, tag, entry.type, entry.count) + values.ljust(dialect.offset_size, b"\0")
    return dialect.pack("Q" if dialect.big else "H", len(page)) + entries + bytes(dialect.offset_size) + _even(behind)


def _even(content: bytes) -> bytes:
    """TIFF wants what it points to at even offsets."""
    return content + b"\0" * (len(content) % 2)
