"""Pixel data: cells as they are stored, and the values in them.

A cell is what a file allocates for a sample (8, 16 or 32 bits); the value lies in some of its bits. The other bits may hold the
extension of a sign, or graphics of old files, and are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    RLELossless,
)

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.dicom.compression import can_decode, decode
from MedProtectLib.io.dicom.header import Header, careful

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
LOSSY = "01"
ALWAYS_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
MOST_EXPANSION = 1000  # decoded by compressed bytes; a constant slice is the extreme
SMALL = 1 << 26


@dataclass(frozen=True)
class PixelFormat:
    """How the samples of an image object are stored, the same for all objects of a series."""

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    high: int
    signed: bool
    photometric: str

    @property
    def cell(self) -> np.dtype:
        """The type of a cell, unsigned."""
        return np.dtype(f"u{self.allocated // 8}")

    @property
    def dtype(self) -> np.dtype:
        """The type of values."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.allocated // 8}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one frame (j, i) or (j, i, c)."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)

    @property
    def nbytes(self) -> int:
        """Bytes of one frame."""
        return math.prod(self.shape) * self.cell.itemsize

    def values(self, cells: np.ndarray) -> np.ndarray:
        """The values in cells, in :attr:`dtype`."""
        above = self.allocated - 1 - self.high
        if self.stored == self.allocated:
            return cells.view(self.dtype)
        return (cells << cells.dtype.type(above)).view(self.dtype) >> self.dtype.type(self.allocated - self.stored)

    def cells(self, values: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Cells like those ``before`` with other values. The bits around a value stay, unless they extend the sign of all of them."""
        stored = self.values(before)
        if np.array_equal(before.view(self.dtype), stored):
            return values.view(self.cell)
        shift = self.high + 1 - self.stored
        mask = self.cell.type(((1 << self.stored) - 1) << shift)
        merged = before & ~mask | (values.view(self.cell) << self.cell.type(shift)) & mask
        return np.where(values == stored, before, merged)


def pixel_format(header: Header) -> PixelFormat:
    """How an image object stores its samples.

    Raises:
        MedProtectError: no integer samples of 8, 16 or 32 bits; colours that are no RGB; a table or a curve between stored values and
            units; a damaged header.
    """
    if "FloatPixelData" in header.data or "DoubleFloatPixelData" in header.data:
        raise MedProtectError(f"{header.path}: pixels of floating point type are not supported. Export the image as NRRD or NIfTI.")
    wanted = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    numbers = {keyword: header.integer(keyword) for keyword in wanted}
    numbers["SamplesPerPixel"] = numbers["SamplesPerPixel"] or 1
    numbers["PixelRepresentation"] = numbers["PixelRepresentation"] or 0
    for keyword, number in numbers.items():
        if number is None:
            raise MedProtectError(f"{header.path}: no image: its header has no {keyword}.")
    rows, columns, samples, allocated, stored, high, signed = (int(number or 0) for number in numbers.values())
    photometric = header.text("PhotometricInterpretation")
    if allocated not in (8, 16, 32):
        raise MedProtectError(f"{header.path}: {allocated} bits a sample are not supported, only 8, 16 and 32.")
    if not (0 < stored <= high + 1 <= allocated and rows > 0 and columns > 0 and signed in (0, 1)):
        raise header.damaged("BitsStored")
    if photometric == "PALETTE COLOR":
        raise MedProtectError(
            f"{header.path}: its pixels are numbers of palette colours, not intensities. Save the image as grey or RGB first."
        )
    if (samples, photometric) not in [(1, grey) for grey in GREY] + [(3, colour) for colour in COLOURS]:
        raise MedProtectError(
            f"{header.path}: {samples} samples a pixel of this photometric interpretation are not supported, only grey and RGB."
        )
    if header.items("ModalityLUTSequence"):
        raise MedProtectError(
            f"{header.path}: a table (Modality LUT) leads from stored values to units. Save the image with rescale slope and intercept."
        )
    return PixelFormat(rows, columns, samples, allocated, stored, high, bool(signed), photometric)


def is_native(dataset: Dataset) -> bool:
    """Whether the pixels are not compressed."""
    return dataset.file_meta.TransferSyntaxUID in NATIVE


def is_lossy(header: Header) -> bool:
    """Whether the pixels went through lossy compression, now or before."""
    return header.text("LossyImageCompression") == LOSSY or header.data.file_meta.TransferSyntaxUID in ALWAYS_LOSSY


def check_claims(header: Header, form: PixelFormat, frames: int) -> None:
    """Refuse a file that cannot hold the pixels it announces, or whose pixels cannot be decoded, before they get any memory.

    Raises:
        MedProtectError: it is too small; its colours are no RGB; its transfer syntax has no decoder.
    """
    claimed, size = form.nbytes * frames, header.path.stat().st_size
    native, syntax = is_native(header.data), header.data.file_meta.TransferSyntaxUID
    if claimed > (size if native else max(SMALL, MOST_EXPANSION * size)):
        raise MedProtectError(
            f"{header.path}: truncated: {size:,} bytes are too few for the {claimed:,} bytes of pixels that its header announces."
        )
    if form.samples > 1 and form.photometric != "RGB" and (native or syntax == RLELossless):
        raise MedProtectError(f"{header.path}: its colours are not stored as RGB. Convert the image to RGB first.")
    if syntax == ExplicitVRBigEndian and form.allocated == 8:
        raise MedProtectError(f"{header.path}: 8-bit samples in the retired big-endian order. Convert it to Explicit VR Little Endian.")
    if not native and not can_decode(syntax, form.stored):
        named = f" {syntax.name}" if syntax.is_transfer_syntax else ""
        raise MedProtectError(f"{header.path}: no decoder for its transfer syntax{named}. Convert it to Explicit VR Little Endian.")


def read_cells(dataset: Dataset, path: Path, form: PixelFormat, frames: int) -> np.ndarray:
    """The cells of an object: (frames, j, i) or (frames, j, i, c), unsigned, in native byte order.

    Raises:
        MedProtectError: truncated or damaged pixels.
    """
    with careful(path):
        if "PixelData" not in dataset:
            raise MedProtectError(f"{path}: truncated: its header announces pixels and none follow.")
        if not is_native(dataset):
            return decode(dataset, form, frames).view(form.cell)
        cells = np.frombuffer(dataset.PixelData, _on_disk(dataset, form), form.nbytes * frames // form.cell.itemsize)
        if form.samples > 1 and dataset.get("PlanarConfiguration") == 1:
            return np.ascontiguousarray(np.moveaxis(cells.reshape(frames, form.samples, form.rows, form.columns), 1, -1), form.cell)
        return cells.reshape(frames, *form.shape).astype(form.cell)


def native_bytes(cells: np.ndarray, dataset: Dataset, form: PixelFormat) -> bytes:
    """The pixel data of a file with uncompressed pixels: the inverse of :func:`read_cells`, of even length."""
    if form.samples > 1 and dataset.get("PlanarConfiguration") == 1:
        cells = np.moveaxis(cells, -1, 1)
    content = cells.astype(_on_disk(dataset, form)).tobytes()
    return content + b"\0" * (len(content) % 2)


def _on_disk(dataset: Dataset, form: PixelFormat) -> np.dtype:
    return form.cell.newbyteorder(">" if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<")
