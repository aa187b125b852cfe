"""PNG: grey, grey with alpha, RGB and RGBA of 8 or 16 bits. All chunks are kept that do not hold, sign or index the pixels.

Format: https://www.w3.org/TR/png.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.itk import read_picture
from MedProtectLib.io.names import extension_of
from MedProtectLib.io.source import Source, new_file
from MedProtectLib.io.voxels import MOST_EXPANSION
from MedProtectLib.volume import Geometry, Volume

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
ALPHA = {GREY_ALPHA: 1, RGBA: 3}
OF_THE_ORIGINAL_PIXELS = (b"IDAT", b"dSIG", b"iDOT")
LEFT = 1
COMPRESSION_LEVEL = 4
Chunk = tuple[bytes, bytes]


@dataclass(frozen=True)
class Header:
    """The IHDR chunk."""

    width: int
    height: int
    depth: int
    colour: int
    compression: int
    filters: int
    interlaced: int

    FORMAT = ">IIBBBBB"

    def chunk(self) -> Chunk:
        values = (self.width, self.height, self.depth, self.colour, self.compression, self.filters, self.interlaced)
        return b"IHDR", struct.pack(self.FORMAT, *values)


@dataclass(frozen=True, kw_only=True)
class PngSource(Source):
    """``before`` and ``after`` are the chunks around the pixels, without IHDR and IEND."""

    ihdr: Header
    before: tuple[Chunk, ...]
    after: tuple[Chunk, ...]

    def write(self, array: np.ndarray, path: Path) -> None:
        rows = np.ascontiguousarray(array, array.dtype.newbyteorder(">")).view(np.uint8).reshape(self.ihdr.height, -1)
        pixels = zlib.compress(_filtered(rows, rows.shape[1] // self.ihdr.width), COMPRESSION_LEVEL)
        header = replace(self.ihdr, interlaced=0)
        with new_file(path) as stream:
            stream.write(_file((header.chunk(), *self.before, (b"IDAT", pixels), *self.after, (b"IEND", b""))))


def read(path: Path) -> Volume:
    """Read a PNG picture: (1, j, i) or (1, j, i, c), uint8 or uint16.

    Raises:
        MedProtectError: not PNG, damaged or truncated.
    """
    chunks = _chunks(path, path.read_bytes())
    header = _header(path, chunks)
    pixels = [n for n, (kind, _) in enumerate(chunks) if kind == b"IDAT"]
    claimed = header.width * header.height * SAMPLES[header.colour] * header.depth // 8
    if claimed > MOST_EXPANSION["zlib"] * sum(len(chunks[n][1]) for n in pixels):
        raise MedProtectError(
            f"{path}: truncated or damaged: it cannot hold the {header.width:,} x {header.height:,} pixels that it announces."
        )
    array, geometry = _decode(path, header, [chunks[n] for n in pixels])
    source = PngSource(
        files=(path,),
        extension=extension_of(path),
        shape=array.shape,
        dtype=array.dtype,
        refusal=_refusal(header, {kind for kind, _ in chunks}),
        ihdr=header,
        before=_kept(chunks[1 : pixels[0]]),
        after=_kept(chunks[pixels[0] : -1]),
    )
    return Volume(array, geometry, path.name, photograph=header.depth == 8, alpha=ALPHA.get(header.colour), source=source)


def _kept(chunks: list[Chunk]) -> tuple[Chunk, ...]:
    return tuple(chunk for chunk in chunks if chunk[0] not in OF_THE_ORIGINAL_PIXELS)


def _refusal(header: Header, kinds: set[bytes]) -> str | None:
    if header.colour == PALETTE:
        return "its pixels are numbers of palette colours, not intensities. Save the picture as grey or RGB first."
    if header.depth < 8:
        return f"it has {2**header.depth} grey levels, too few for an invisible change. Save the picture with 8 bits first."
    if b"tRNS" in kinds:
        return "one of its colours stands for transparency and would be changed. Save the picture without it, or with an alpha channel."
    if b"acTL" in kinds:
        return "it is an animation. Save its frames as single pictures."
    return None


def _chunks(path: Path, content: bytes) -> list[Chunk]:
    """The type and content of every chunk, checksums verified."""
    if not content.startswith(SIGNATURE):
        raise MedProtectError(f"{path}: not a PNG file.")
    chunks: list[Chunk] = []
    position = len(SIGNATURE)
    while not chunks or chunks[-1][0] != b"IEND":
        (length,) = struct.unpack(">I", content[position : position + 4].ljust(4, b"\xff"))
        kind, end = content[position + 4 : position + 8], position + 8 + length
        data, checksum = content[position + 8 : end], content[end : end + 4]
        if len(checksum) < 4:
            raise MedProtectError(f"{path}: truncated PNG file; get a fresh copy.")
        if zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big") != checksum:
            raise MedProtectError(f"{path}: damaged PNG file (checksum of chunk {len(chunks) + 1}); get a fresh copy.")
        chunks.append((kind, data))
        position = end + 4
    return chunks


def _header(path: Path, chunks: list[Chunk]) -> Header:
    kind, content = chunks[0]
    if kind == b"IHDR" and len(content) == struct.calcsize(Header.FORMAT) and any(chunk[0] == b"IDAT" for chunk in chunks):
        header = Header(*struct.unpack(Header.FORMAT, content))
        if header.colour in SAMPLES and header.depth in (1, 2, 4, 8, 16) and header.width and header.height:
            return header
    raise MedProtectError(f"{path}: damaged PNG file; get a fresh copy.")


def _file(chunks: Iterable[Chunk]) -> bytes:
    framed = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))) for kind, data in chunks]
    return SIGNATURE + b"".join(framed)


def _decode(path: Path, header: Header, pixels: list[Chunk]) -> tuple[np.ndarray, Geometry]:
    """The stored samples (1, j, i[, c]).

    SimpleITK reads a copy of the picture that is declared as what it can give back unchanged: palette numbers as grey, grey with
    alpha as grey of 16 or RGBA of 8 bits, which have as many bytes a pixel. Its expansion of 1, 2 and 4 bits is undone.
    """
    declared = header
    if header.colour == PALETTE:
        declared = replace(header, colour=GREY)
    elif header.colour == GREY_ALPHA:
        declared = replace(header, depth=16, colour=GREY) if header.depth == 8 else replace(header, depth=8, colour=RGBA)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "picture.png")
        plain.write_bytes(_file((declared.chunk(), *pixels, (b"IEND", b""))))
        try:
            array, geometry = read_picture(plain, "PNGImageIO")
        except MedProtectError as error:
            raise MedProtectError(f"{path}: damaged PNG file; get a fresh copy.") from error
    if header.depth < 8:
        array //= 255 // (2**header.depth - 1)
    if header.colour == GREY_ALPHA:
        samples = np.dtype("u1" if header.depth == 8 else ">u2")
        array = np.ascontiguousarray(array, array.dtype.newbyteorder(">")).view(np.uint8).reshape(*array.shape[:3], -1).view(samples)
        array = array.astype(samples.newbyteorder("="))
    return array, geometry


def _filtered(rows: np.ndarray, step: int) -> bytes:
    """Rows of bytes (j, bytes) as differences from the pixel to the left, which is ``step`` bytes away, each behind its filter type.

    On ultrasound the best of all five filters for every row saves 1 % of the file and takes 25 times as long.
    """
    filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = LEFT
    filtered[:, 1 : 1 + step] = rows[:, :step]
    filtered[:, 1 + step :] = rows[:, step:] - rows[:, :-step]
    return filtered.tobytes()
