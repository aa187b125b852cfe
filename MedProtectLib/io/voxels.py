"""Voxel data as they lie in a file: read with every size and checksum verified, written slab by slab.

SimpleITK and nibabel are not used for this step: where a compressed stream is damaged they give wrong voxels without an error
(SimpleITK 2.5 in MetaImage and truncated NIfTI, nibabel 5.4 in NIfTI), and writing with them changes the header.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from MedProtectLib.errors import MedProtectError

COMPRESSION_LEVEL = 1  # on CT, level 6 takes three times as long for 2 % less
WINDOW_BITS = {"gzip": 31, "zlib": 15}
MOST_EXPANSION = {"raw": 1, "ascii": 8, "hex": 0.5, "gzip": 1032, "zlib": 1032}  # decoded bytes per stored byte (deflate: 258 per 2 bits)
BLOCK = 1 << 16
WHITESPACE = b" \t\n\r\v\f"
PACKED_BLOCK = 1 << 13  # unpacks to 8 MB at most
MOST_BEYOND = 1 << 24  # bytes behind the voxels, besides as many as they take
SLAB = 1 << 22


@dataclass(frozen=True)
class Layout:
    """How voxels lie in a file.

    ``shape`` is the stored shape, slowest axis first; ``dtype`` includes the byte order; ``channel_axis`` is the axis of
    ``shape`` that holds channels, if any; ``encoding`` is raw, gzip, zlib, ascii or hex.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    encoding: str = "raw"
    channel_axis: int | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """``shape`` without the channels."""
        return tuple(length for axis, length in enumerate(self.shape) if axis != self.channel_axis)

    def to_volume(self, flat: np.ndarray) -> np.ndarray:
        """A view of the stored values with shape (k, j, i) or (k, j, i, c)."""
        stored = flat.reshape(self.shape)
        grid = three_axes(self.grid)
        if self.channel_axis is None:
            return stored.reshape(grid)
        moved = np.moveaxis(stored, self.channel_axis, -1)
        return moved.reshape(grid if moved.shape[-1] == 1 else (*grid, moved.shape[-1]))

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`to_volume`."""
        if self.channel_axis is None:
            return array.reshape(self.shape)
        return np.moveaxis(array.reshape((*self.grid, self.shape[self.channel_axis])), -1, self.channel_axis)


def three_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop leading axes of length 1 beyond three, or add them up to three."""
    return (1,) * (3 - len(shape)) + shape[max(0, len(shape) - 3) :]


def read_voxels(path: Path, layout: Layout, offset: int = 0, skip: int = 0) -> np.ndarray:
    """Voxels as an array (k, j, i[, c]) of native byte order.

    ``offset`` counts bytes of the file, ``skip`` counts bytes after decoding.

    Raises:
        MedProtectError: the file holds less than the layout says, or its compressed stream is damaged.
    """
    size = path.stat().st_size - offset
    needed = skip + layout.nbytes
    if needed > size * MOST_EXPANSION[layout.encoding]:
        raise MedProtectError(
            f"{path}: truncated: {max(size, 0):,} bytes are too few for the {needed:,} bytes of voxels that its header announces."
        )
    with path.open("rb") as stream:
        stream.seek(offset)
        try:
            decoded = _decode(stream, layout, needed)
        except (EOFError, OverflowError, ValueError, zlib.error) as error:
            raise MedProtectError(f"{path}: damaged or truncated voxel data ({error}); get a fresh copy of the file.") from error
    values = np.require(decoded[skip:].view(layout.dtype), requirements="A")
    if not values.dtype.isnative:
        values = values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))
    return layout.to_volume(values)


def encode(array: np.ndarray, layout: Layout, prefix: bytes = b"") -> Iterator[bytes | memoryview]:
    """The bytes of an array (k, j, i[, c]) in the layout's order, type and encoding; the same values give the same bytes.

    ``prefix`` goes in front, packed with the voxels where they are packed.
    """
    if layout.encoding not in WINDOW_BITS:
        yield prefix
        yield from map(_UNPACKED[layout.encoding], _slabs(array, layout))
        return
    packer = zlib.compressobj(COMPRESSION_LEVEL, wbits=WINDOW_BITS[layout.encoding])
    yield packer.compress(prefix)
    yield from (packer.compress(slab.data) for slab in _slabs(array, layout))
    yield packer.flush()


def _slabs(array: np.ndarray, layout: Layout) -> Iterator[np.ndarray]:
    stored = layout.to_file(array)
    step = max(1, SLAB // max(1, layout.nbytes // len(stored)))
    for start in range(0, len(stored), step):
        yield np.ascontiguousarray(stored[start : start + step], layout.dtype)


_UNPACKED: dict[str, Callable[[np.ndarray], bytes | memoryview]] = {
    "raw": lambda slab: slab.data.cast("B"),
    "hex": lambda slab: slab.tobytes().hex().encode(),
    "ascii": lambda slab: (" ".join(map(repr, slab.ravel().tolist())) + "\n").encode(),
}


def _decode(stream: BinaryIO, layout: Layout, size: int) -> np.ndarray:
    """The first ``size`` decoded bytes."""
    if layout.encoding in WINDOW_BITS:
        return inflate(stream, layout.encoding, size)
    if layout.encoding == "raw":
        return np.fromfile(stream, np.uint8, size)
    decoded = _from_hex(stream, size) if layout.encoding == "hex" else _from_numbers(stream, layout, size)
    if decoded.size < size:
        raise EOFError(f"{decoded.size:,} of {size:,} bytes")
    return decoded[:size]


def _from_hex(stream: BinaryIO, size: int) -> np.ndarray:
    """Bytes from hexadecimal digits until there are ``size``, however many digits follow."""
    decoded, odd = bytearray(), b""
    while len(decoded) < size and (block := stream.read(BLOCK)):
        digits = odd + block.translate(None, WHITESPACE)
        even = len(digits) // 2 * 2
        decoded += bytes.fromhex(digits[:even].decode("ascii"))
        odd = digits[even:]
    if odd and not stream.read(1):
        raise ValueError("an odd number of digits")
    return np.frombuffer(decoded, np.uint8)


def _from_numbers(stream: BinaryIO, layout: Layout, size: int) -> np.ndarray:
    """Bytes from numbers in words until there are ``size``, however many words follow."""
    number = float if layout.dtype.kind == "f" else int
    words = islice(_words(stream), -(-size // layout.dtype.itemsize))
    return np.fromiter(map(number, words), layout.dtype).view(np.uint8)


def _words(stream: BinaryIO) -> Iterator[bytes]:
    """The words of a text, read block by block. Raises ValueError for one longer than a block."""
    rest = b""
    while block := stream.read(BLOCK):
        words = (rest + block).split()
        rest = b"" if block[-1:].isspace() or not words else words.pop()
        if len(rest) > BLOCK:
            raise ValueError("a number without end")
        yield from words
    yield from rest.split()


def inflate(stream: BinaryIO, encoding: str, size: int) -> np.ndarray:
    """Unpack to the end of the stream, so that its checksum is verified; several gzip members in a row count as one.

    Raises:
        ValueError: the stream unpacks to far more than ``size`` bytes. EOFError: it ends early. zlib.error: it is damaged.
    """
    unpacked, filled, beyond = np.empty(size, np.uint8), 0, 0
    unpacker, packed = zlib.decompressobj(WINDOW_BITS[encoding]), stream.read(PACKED_BLOCK)
    while packed:
        piece = unpacker.decompress(packed)
        used = min(len(piece), size - filled)
        unpacked[filled : filled + used] = np.frombuffer(piece, np.uint8, used)
        filled += used
        beyond += len(piece) - used
        if beyond > size + MOST_BEYOND:
            raise ValueError(f"it unpacks to far more than the {size:,} bytes that its header announces")
        if unpacker.eof:
            packed = (unpacker.unused_data or b"") + stream.read(PACKED_BLOCK)
            if not packed.startswith(b"\x1f\x8b"):
                break
            unpacker = zlib.decompressobj(WINDOW_BITS[encoding])
        else:
            packed = stream.read(PACKED_BLOCK)
    if filled < size or not unpacker.eof:
        raise EOFError(f"the compressed stream ends after {filled:,} of {size:,} bytes")
    return unpacked
