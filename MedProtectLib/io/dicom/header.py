"""One DICOM object: read in silence, its values taken out with their type checked.

pydicom warns with the values of a header, which may be a patient's name. Nothing of a header but the names of its attributes gets
into a warning or an error here.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, config, dcmread
from pydicom.multival import MultiValue
from pydicom.uid import UID

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.names import NO_MARK, is_dicom

DEFLATED = b"1.2.840.10008.1.2.1.99"
META = 1 << 12


class BoundedReader(io.BufferedReader):
    """A file that is never asked for more than it holds: lengths in a header may claim 4 GB, for which memory would be set aside."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


@contextmanager
def careful(path: Path) -> Iterator[None]:
    """Keep pydicom's warnings off the terminal, and turn whatever it raises on a damaged file into one line.

    Raises:
        MedProtectError: pydicom could not make sense of the file.
    """
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    except (MedProtectError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of pydicom
            raise
        raise MedProtectError(f"{path}: damaged or truncated DICOM file; get a fresh copy.") from error


def read_dataset(path: Path, pixels: bool = True, only: Sequence[str] | None = None) -> Dataset:
    """The data set of a file, without what comes from the pixels on where ``pixels`` is false, or with the attributes ``only``.

    Raises:
        MedProtectError: not DICOM, damaged, or deflated (an unbounded claim of memory).
    """
    if not is_dicom(path):
        raise MedProtectError(f"{path}: {NO_MARK}")
    with path.open("rb") as begin:
        if DEFLATED in begin.read(META):
            raise MedProtectError(
                f"{path}: deflated as a whole (transfer syntax {DEFLATED.decode()}). Convert it to Explicit VR Little Endian."
            )
    with careful(path), BoundedReader(path) as stream:
        dataset = dcmread(stream, stop_before_pixels=not pixels, specific_tags=None if only is None else list(only))
        syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax or not isinstance(syntax, UID):
        raise MedProtectError(f"{path}: its preface does not say how it is encoded (no transfer syntax). Export the file anew.")
    return dataset


@dataclass(frozen=True)
class Header:
    """A data set or an item of one of its sequences, with the file it belongs to."""

    path: Path
    data: Dataset

    def text(self, keyword: str) -> str:
        """A string, the first where there are several; empty where there is none."""
        value = self._value(keyword)
        return "" if value is None else str(value[0] if isinstance(value, MultiValue) else value).strip("\0 ")

    def integer(self, keyword: str, default: int | None = None) -> int | None:
        """A whole number.

        Raises:
            MedProtectError: another value.
        """
        value = self._value(keyword)
        if value is None or value == "":
            return default
        if not isinstance(value, int):
            raise self.damaged(keyword)
        return int(value)

    def numbers(self, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
        """As many finite numbers (any number of them for ``count`` None), None where there are none.

        Raises:
            MedProtectError: other values or another count.
        """
        value = self._value(keyword)
        if value is None or value == "" or (isinstance(value, MultiValue) and not value):
            return None
        values = list(value) if isinstance(value, MultiValue) else [value]
        try:
            numbers = tuple(float(v) for v in values)
        except (TypeError, ValueError) as error:
            raise self.damaged(keyword) from error
        if count not in (None, len(numbers)) or not np.isfinite(numbers).all():
            raise self.damaged(keyword)
        return numbers

    def number(self, keyword: str, default: float) -> float:
        """One finite number.

        Raises:
            MedProtectError: another value.
        """
        found = self.numbers(keyword, 1)
        return default if found is None else found[0]

    def items(self, keyword: str) -> list[Header]:
        """The items of a sequence, none where it is absent.

        Raises:
            MedProtectError: no sequence.
        """
        value = self._value(keyword)
        if value is None:
            return []
        if not isinstance(value, Sequence) or not all(isinstance(item, Dataset) for item in value):
            raise self.damaged(keyword)
        return [Header(self.path, item) for item in value]

    def damaged(self, keyword: str) -> MedProtectError:
        return MedProtectError(f"{self.path}: damaged DICOM header: {keyword} is not what the standard says.")

    def _value(self, keyword: str) -> Any:
        with careful(self.path):
            return self.data.get(keyword)


def sop_class(header: Header) -> str:
    """The SOP Class UID, from the file's own preface where the data set leaves it empty."""
    return header.text("SOPClassUID") or _of_meta(header, "MediaStorageSOPClassUID")


def sop_instance(header: Header) -> str:
    """The SOP Instance UID, from the file's own preface where the data set leaves it empty."""
    return header.text("SOPInstanceUID") or _of_meta(header, "MediaStorageSOPInstanceUID")


def _of_meta(header: Header, keyword: str) -> str:
    return Header(header.path, header.data.file_meta).text(keyword)
