"""MedMNIST files (.npz): arrays train_images, train_labels and so on in one file, which is a whole dataset."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.voxels import MOST_EXPANSION
from MedProtectLib.volume import Geometry, Volume

EXTENSION = ".npy"
COLOURS = 3
NUMBERS = "iuf"
PLAIN = f"{NUMBERS}bUS"  # no objects, which could be anything
DAMAGES = (  # what zipfile and numpy raise for damaged files
    OSError,
    KeyError,
    ValueError,
    TypeError,
    EOFError,
    OverflowError,
    SyntaxError,
    NotImplementedError,
    RuntimeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def array_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of all arrays of the file, by name.

    Raises:
        MedProtectError: the file is no such file, is damaged, or holds anything but arrays of numbers and texts.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return {entry.filename.removesuffix(EXTENSION): _shape(archive, entry) for entry in archive.infolist()}
    except DAMAGES as error:
        raise MedProtectError(f"{file}: not a MedMNIST file, or damaged: it holds more than arrays of numbers and texts.") from error


def _shape(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[int, ...]:
    with archive.open(entry) as member:
        shape, dtype = _header(member)
    if dtype.kind not in PLAIN:
        raise ValueError("an array of objects")
    return shape


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that an array announces."""
    version = np.lib.format.read_magic(member)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, _, dtype = read_header(member)
    return shape, dtype


def read_array(file: Path, name: str, kinds: str = NUMBERS) -> np.ndarray:
    """One array of the file, of one of the ``kinds`` of NumPy types.

    Raises:
        MedProtectError: the file is no such file, is damaged, or has no array of that name.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entry = archive.getinfo(name + EXTENSION)
            with archive.open(entry) as member:
                _check_claims(file, name, entry, member, kinds)
            with archive.open(entry) as member:
                array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
    except DAMAGES as error:
        raise MedProtectError(f"{file}: not a MedMNIST file, or damaged: it has no array '{name}'.") from error
    return array


def _check_claims(file: Path, name: str, entry: zipfile.ZipInfo, member: IO[bytes], kinds: str) -> None:
    """Raises MedProtectError or ValueError for an array of another kind, or larger than what is stored can be."""
    shape, dtype = _header(member)
    if dtype.kind not in kinds or min(shape, default=1) < 0:
        raise MedProtectError(f"{file}: '{name}' holds no real numbers. Get a fresh copy.")
    announced, most = math.prod(shape) * dtype.itemsize, MOST_EXPANSION["zlib"] * entry.compress_size
    if announced > entry.file_size - member.tell() or entry.file_size > most:
        raise MedProtectError(f"{file}: truncated or damaged: '{name}' cannot hold the {announced:,} bytes that it announces.")


def member_volume(images: np.ndarray, number: int, name: str) -> Volume:
    """Image ``number`` of an array of images (n, j, i), (n, j, i, 3) or (n, k, j, i) as a volume."""
    if images.ndim not in (3, 4, 5) or not 0 <= number < len(images) or not images.size:
        raise MedProtectError(f"{name}: an array of shape {images.shape} holds no image {number}. Get a fresh copy of the file.")
    stored = images[number]
    planar = stored.ndim == 2 or (stored.ndim == 3 and stored.shape[-1] == COLOURS)
    array = np.ascontiguousarray(stored[None] if planar else stored)
    k, j, i = array.shape[:3]
    return Volume(array, Geometry((i, j, k), dimension=2 if planar else 3), name, photograph=planar and array.dtype == np.uint8)


def member_array(volume: Volume) -> np.ndarray:
    """The stored values of a volume from :func:`member_volume` in the shape that the array of images holds."""
    return volume.array[0] if volume.geometry.dimension == 2 else volume.array


def rewrite(source: Path, target: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file ``source`` anew to ``target`` with some arrays exchanged by others of the same type and shape.

    Arrays that are not named keep their bytes; all keep their order and compression. The same content gives the same bytes.
    The file appears whole or not at all.

    Raises:
        MedProtectError: ``source`` is damaged or has no such array, an array of another type or shape, ``target`` is ``source``,
            or cannot be written.
    """
    if target.exists() and target.samefile(source):
        raise MedProtectError(f"{target}: writing it would replace the original. Choose another folder or name.")
    part = target.with_name(target.name + ".part")
    try:
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(part, "w") as new:
            missing = {f"{name}{EXTENSION}" for name in arrays} - set(old.namelist())
            if missing:
                raise MedProtectError(f"{source}: it has no array '{sorted(missing)[0].removesuffix(EXTENSION)}'.")
            for entry in old.infolist():
                content, name = old.read(entry), entry.filename.removesuffix(EXTENSION)
                if name in arrays:
                    content = _exchanged(source, name, content, arrays[name])
                new.writestr(entry, content)
        part.replace(target)
    except (EOFError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
        raise MedProtectError(f"{source}: not a MedMNIST file, or damaged ({error}).") from error
    except OSError as error:
        raise MedProtectError(f"{error.filename or target}: cannot be read or written ({error.strerror}).") from error
    finally:
        part.unlink(missing_ok=True)


def _exchanged(source: Path, name: str, content: bytes, array: np.ndarray) -> bytes:
    """The bytes of a .npy file with other values; its header stays."""
    old = np.load(io.BytesIO(content), allow_pickle=False)
    if (old.dtype, old.shape) != (array.dtype, array.shape):
        raise MedProtectError(f"{source}: '{name}' is {old.dtype} {old.shape}, not {array.dtype} {array.shape}.")
    values = np.asarray(array).tobytes("F" if np.isfortran(old) else "C")
    return content[: len(content) - old.nbytes] + values
