"""DICOM files in the vault: a protected series has new headers, so the original's are kept, and the very files come back.

Of every file what is not pixels is kept. Compressed pixels are kept as they are, since no codec gives the same stream again.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.outputs import inside, is_file_name
from MedProtectLib.untrusted import parse_json
from MedProtectLib.volume import Volume

if TYPE_CHECKING:
    from MedProtectLib.io.dicom.source import DicomSource, Instance

LENGTH_BYTES = 4
LARGEST = 1 << 31
COMPRESSION_LEVEL = 6
DAMAGED = "the DICOM headers in the vault entry are damaged."


@dataclass(frozen=True)
class Kept:
    """A file: its name, its hash, the indices k of its frames, and how many bytes are in front of its pixels and behind them.

    ``slices`` is empty where all of the file is in front.
    """

    name: str
    sha256: str
    slices: tuple[int, ...]
    head: int
    tail: int


def is_dicom_image(volume: Volume) -> bool:
    """Whether a volume was read from DICOM."""
    return hasattr(volume.source, "instances")


def kept_headers(original: Volume, protected: Volume) -> bytes:
    """What brings the original's files back together with its voxels and the protected files.

    Raises:
        MedProtectError: more of it than :func:`write_instances` takes.
    """
    source, files, literals = original.source, [], []
    names = [one.path.name for one in source.instances]
    named = len({name.lower() for name in names}) == len(names) and all(map(is_file_name, names))
    for number, one in enumerate(source.instances, start=1):
        content = one.path.read_bytes()
        pixels = _pixels(protected.source, one.slices, original.array)
        at = content.rfind(pixels)
        head, tail = (content, b"") if at < 0 else (content[:at], content[at + len(pixels) :])
        name = one.path.name if named else f"{number:04d}.dcm"
        files.append(asdict(Kept(name, hashlib.sha256(content).hexdigest(), one.slices if at >= 0 else (), len(head), len(tail))))
        literals += [head, tail]
    about = json.dumps({"files": files}).encode()
    if LENGTH_BYTES + len(about) + sum(map(len, literals)) > LARGEST:
        raise MedProtectError(
            f"{original.name}: its DICOM headers and compressed pixels take more than 2 GB, which no vault entry can hold. Store the "
            "pixels uncompressed (gdcmconv --raw), or split the series."
        )
    return zlib.compress(len(about).to_bytes(LENGTH_BYTES, "big") + about + b"".join(literals), COMPRESSION_LEVEL)


def write_instances(headers: bytes, protected: Volume, array: np.ndarray, path: Path) -> None:
    """Write the original's files with the stored values ``array``: into the new folder ``path``, or as that file.

    Raises:
        MedProtectError: the headers do not fit, or do not give the files that they were taken from.
    """
    try:
        unpacked = zlib.decompressobj().decompress(headers, LARGEST)
        end = LENGTH_BYTES + int.from_bytes(unpacked[:LENGTH_BYTES], "big")
        files = [_kept(about) for about in parse_json(unpacked[LENGTH_BYTES:end], DAMAGED)["files"]]
    except (zlib.error, KeyError, TypeError) as error:
        raise MedProtectError(DAMAGED) from error
    folder = not protected.source.extension
    if folder:
        path.mkdir()
    for kept in files:
        head, tail = unpacked[end : end + kept.head], unpacked[end + kept.head : end + kept.head + kept.tail]
        end += kept.head + kept.tail
        content = head + (_pixels(protected.source, kept.slices, array) if kept.slices else b"") + tail
        if hashlib.sha256(content).hexdigest() != kept.sha256:
            raise MedProtectError("the vault entry does not give the original file back: its checksum differs.")
        (inside(path, kept.name) if folder else path).write_bytes(content)


def _kept(about: Mapping[str, Any]) -> Kept:
    kept = Kept(**{**about, "slices": tuple(about["slices"])})
    if not all(type(number) is int and number >= 0 for number in (kept.head, kept.tail, *kept.slices)) or not isinstance(kept.name, str):
        raise TypeError("not what kept_headers wrote")
    return kept


def _pixels(source: DicomSource, slices: tuple[int, ...], array: np.ndarray) -> bytes:
    """The pixel data of the protected file that holds some slices, with the values of ``array`` in their place."""
    from MedProtectLib.io.dicom.header import read_dataset
    from MedProtectLib.io.dicom.pixels import native_bytes, read_cells

    instance: Instance | None = next((one for one in source.instances if one.slices == slices), None)
    if instance is None:
        raise MedProtectError("the protected series has other files than its original.")
    dataset = read_dataset(instance.path)
    cells = source.form.cells(np.ascontiguousarray(array[list(slices)]), read_cells(dataset, instance.path, source.form, len(slices)))
    return native_bytes(cells, dataset, source.form)
