"""Compressed pixels: decoded by what pydicom finds installed, lossless JPEG by GDCM in SimpleITK."""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.itk import read_picture

BY_GDCM = (JPEGLossless, JPEGLosslessSV1)
KNOWN = (RLELossless, *JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes)
HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
NO_FRAME_HEADERS = (0xC4, 0xC8, 0xCC)  # among the markers C0 to CF
JPEG_LS_FRAME = 0xF7
CODESTREAM = b"\xff\x4f\xff\x51"
END_OF_IMAGE = b"\xff\xd9"
COMPLAINT = re.compile(rb"JPEG|marker|Huffman")
PIXEL_MODULE = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PlanarConfiguration",
    "NumberOfFrames",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PhotometricInterpretation",
)


class Form(Protocol):
    """What has to be known of the samples."""

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


def can_decode(syntax: UID, bits: int) -> bool:
    """Whether there is a decoder for samples of so many bits in a compressed transfer syntax."""
    if syntax in BY_GDCM:
        return True
    if syntax == JPEGExtended12Bit and bits != 8:
        return False
    return (syntax in KNOWN or syntax in HTJ2K) and get_decoder(syntax).is_available


def decode(dataset: Dataset, form: Form, frames: int) -> np.ndarray:
    """The samples of all frames, (frames, j, i) or (frames, j, i, c), colours as RGB; RLE has whole cells, the others values alone.

    Raises:
        ValueError: damaged; or a frame's own header announces another size than the data set, and so perhaps a lot of memory.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    packed = check_frames(dataset, form.rows, form.columns, frames)
    array = np.empty((frames, *form.shape), form.dtype)
    for number, picture in enumerate(_by_gdcm(dataset, packed) if syntax in BY_GDCM else _by_pydicom(dataset)):
        array[number] = picture
    return array


def _by_pydicom(dataset: Dataset) -> Iterator[np.ndarray]:
    syntax = dataset.file_meta.TransferSyntaxUID
    options: dict[str, Any] = {"correct_unused_bits": False} if syntax == RLELossless else {}
    for frame, _ in get_decoder(syntax).iter_array(dataset, **options):
        yield frame


def check_frames(dataset: Dataset, rows: int, columns: int, frames: int) -> list[bytes]:
    """The packed frames, looked at before one of them is decoded.

    Raises:
        ValueError: another number of frames; one whose own header announces another size than the data set; one without an end.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    packed = list(generate_frames(dataset.PixelData, number_of_frames=frames, extended_offsets=_offsets(dataset)))
    if len(packed) != frames:
        raise ValueError("another number of frames")
    if syntax == RLELossless:
        return packed
    announced = _codestream_size if syntax in (*JPEG2000TransferSyntaxes, *HTJ2K) else _jpeg_size
    if any(announced(frame) != (rows, columns) for frame in packed):
        raise ValueError("frames of another size")
    if syntax in (*BY_GDCM, *JPEGLSTransferSyntaxes) and not all(frame.rstrip(b"\0").endswith(END_OF_IMAGE) for frame in packed):
        raise ValueError("truncated frame")
    return packed


def _offsets(dataset: Dataset) -> tuple[bytes, bytes] | None:
    if "ExtendedOffsetTable" not in dataset:
        return None
    return dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths


def _codestream_size(frame: bytes) -> tuple[int, int]:
    """Rows and columns by the header of a JPEG 2000 codestream."""
    if not frame.startswith(CODESTREAM):
        raise ValueError("no codestream")
    right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
    return bottom - top, right - left


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    """Rows and columns by the frame header of a JPEG or JPEG-LS stream."""
    position = 2
    while frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == JPEG_LS_FRAME or (0xC0 <= marker <= 0xCF and marker not in NO_FRAME_HEADERS):
            rows, columns = struct.unpack_from(">HH", frame, position + 5)
            return rows, columns
        (length,) = struct.unpack_from(">H", frame, position + 2)
        position += 2 + length
    raise ValueError("no frame header")


def _by_gdcm(dataset: Dataset, packed: list[bytes]) -> Iterator[np.ndarray]:
    """Values by GDCM, which is given the pixels alone: with a rescale in the header it would apply it.

    Where a stream is damaged it gives wrong values and says so on the terminal only, so there it is listened to.

    Raises:
        ValueError: damaged or truncated.
    """
    plain = Dataset()
    plain.update({element.tag: element for element in map(dataset.__getitem__, filter(dataset.__contains__, PIXEL_MODULE))})
    plain.SOPClassUID, plain.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    plain.PixelData = encapsulate(packed)
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pixels.dcm")
        plain.save_as(path, enforce_file_format=True)
        try:
            with _listening(Path(folder, "said")):
                array, _ = read_picture(path, "GDCMImageIO")
        except MedProtectError as error:
            raise ValueError("damaged stream") from error
        if COMPLAINT.search(Path(folder, "said").read_bytes()):
            raise ValueError("damaged stream")
    if len(array) != len(packed):
        raise ValueError("another number of frames")
    yield from array


@contextmanager
def _listening(said: Path) -> Iterator[None]:
    """Let what C libraries write to the terminal's error stream go to a file."""
    try:
        terminal = os.dup(2)
    except OSError:  # a program without a terminal
        said.touch()
        yield
        return
    try:
        with said.open("wb") as stream:
            os.dup2(stream.fileno(), 2)
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
