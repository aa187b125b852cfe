"""What a reader keeps of a file so that the same file with other voxels can be written."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.voxels import Layout, encode

LONGEST_HEADER = 1 << 24
SEVERAL_FILES = re.compile(r"LIST(\s+\d+)?|.*%\d*d.*")  # a list of names below, or numbered names, in NRRD and in MetaImage


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """One image on disk.

    ``files`` are the files it was read from; ``extension`` is that of the one that was named. ``shape`` and ``dtype`` are those
    of the array (k, j, i[, c]) that was read.
    ``refusal`` says why an image like this cannot be written back as it was (such a file can still serve as a label map).
    """

    files: tuple[Path, ...]
    extension: str
    shape: tuple[int, ...]
    dtype: np.dtype
    refusal: str | None = None

    def targets(self, path: Path) -> tuple[Path, ...]:
        """The files that :meth:`write` makes when it is given ``path``; where header and voxels are two files, in this order."""
        return (path,)

    @abstractmethod
    def write(self, array: np.ndarray, path: Path) -> None:
        """Write the file with other voxels, an array (k, j, i[, c]) of the type and shape that was read."""


@dataclass(frozen=True, kw_only=True)
class HeaderSource(Source):
    """A header that is kept and voxels that are exchanged, behind the header or in a data file of their own.

    ``prefix`` are bytes in front of the voxels that share their encoding.
    """

    layout: Layout
    prefix: bytes = b""

    @abstractmethod
    def header(self, data_name: str | None, data_size: int) -> bytes:
        """The header for voxels that take ``data_size`` bytes in the file ``data_name``, or behind the header if None."""

    def write(self, array: np.ndarray, path: Path) -> None:
        header_path, *data_path = self.targets(path)
        pieces = list(encode(array, self.layout, self.prefix))
        size = sum(len(piece) for piece in pieces)
        if not data_path:
            with new_file(header_path) as stream:
                stream.write(self.header(None, size))
                stream.writelines(pieces)
            return
        with new_file(data_path[0]) as data:
            data.writelines(pieces)
            data.flush()
            with new_file(header_path) as stream:
                stream.write(self.header(data_path[0].name, size))


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file opened for writing that disappears again when writing it fails."""
    stream = path.open("wb")
    try:
        with stream:
            yield stream
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def header_lines(path: Path, start: bytes, is_last: Callable[[bytes], bool]) -> tuple[bytes, ...]:
    """The lines of a text header with their line ends, up to the last one or to the end of the file.

    Raises:
        MedProtectError: the file does not begin with the regular expression ``start``.
    """
    lines: list[bytes] = []
    room = LONGEST_HEADER
    with path.open("rb") as stream:
        if not re.match(start, stream.read(64)):
            raise MedProtectError(f"{path}: its content is not of the format that its name says.")
        stream.seek(0)
        while room > 0 and (line := stream.readline(room)):
            lines.append(line)
            room -= len(line)
            if is_last(line):
                break
    return tuple(lines)


def data_file(path: Path, name: str) -> Path:
    """The file that a header names for its voxels, in the header's folder or below.

    Raises:
        MedProtectError: it is missing or named elsewhere, or the voxels are spread over several files.
    """
    if SEVERAL_FILES.fullmatch(name):
        raise MedProtectError(f"{path}: voxels spread over several files are not supported. Save the image as one file.")
    data = path.parent / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise MedProtectError(f"{path}: its data file '{name}' lies outside its folder. Put it beside the header and correct the header.")
    if not data.is_file():
        raise MedProtectError(f"{path}: its data file '{name}' is missing. Put it beside the header.")
    return data
