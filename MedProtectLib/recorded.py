"""The record of a protected file: its own beside it, or its line among those of the release that it lies in."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import sha256_file, sha256_image
from MedProtectLib.io.source import Source
from MedProtectLib.profile import LARGEST_HALF_WIDTH
from MedProtectLib.regions import HALF_WIDTH
from MedProtectLib.release.roots import RECORDS
from MedProtectLib.staging import RECORD
from MedProtectLib.untrusted import LARGEST_RECORD, parse_json, read_json

LARGEST = 1e300
DAMAGED = "the record is damaged. Verify without it by moving it away."


@dataclass(frozen=True)
class Recorded:
    """What a record says of a protected file. ``release`` is the folder of the release whose records have it, if it is one of those."""

    path: Path
    content: dict[str, Any]
    release: Path | None = None

    def describes(self, protected: Path, source: Source) -> bool:
        """Whether the files that were read are, byte for byte, those of the record.

        Raises:
            MedProtectError: a file cannot be read.
        """
        if self.release is None:
            return bool(self.content.get("protected_sha256") == sha256_image(protected, source))
        outputs, root = self.content.get("outputs", {}), self.release
        return all(outputs.get(_absolute(file).relative_to(root).as_posix()) == sha256_file(file) for file in source.files)


def record_of(protected: Path) -> Recorded | None:
    """The record of a protected file, None where there is none.

    Raises:
        MedProtectError: the record is damaged or cannot be read.
    """
    name, marker, _ = protected.name.rpartition("_protected")
    beside, release = protected.with_name(name + RECORD), release_above(protected)
    if marker and beside.is_file():
        found = Recorded(beside, read_json(beside, DAMAGED))
    elif release is not None:
        content = _line_of(release / RECORDS, _absolute(protected).relative_to(release))
        found = Recorded(release / RECORDS, content, release)
    else:
        return None
    if not _is_well_formed(found):
        raise MedProtectError(f"{found.path}: {DAMAGED}")
    return found if found.content else None


def release_above(path: Path) -> Path | None:
    """The folder of the release that a path lies in, None where it lies in none."""
    return next((folder for folder in _absolute(path).parents if (folder / RECORDS).is_file()), None)


def _absolute(path: Path) -> Path:
    """Without '..' and with every symbolic link as it is: a release keeps its places, wherever their content lies."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve would follow the links)


def _line_of(records: Path, place: Path) -> dict[str, Any]:
    """What the records of a release say of the file, or the series of the file, at this place in it; nothing where they do not name it."""
    quoted = [json.dumps(path.as_posix()) for path in (place, place.parent)]
    try:
        with records.open(encoding="utf-8", errors="replace") as lines:
            while line := lines.readline(LARGEST_RECORD):
                if any(name in line for name in quoted):
                    content = parse_json(line.encode(), f"{records}: {DAMAGED}")
                    if _names(content, place):
                        return content
    except OSError as error:
        raise MedProtectError(f"{records}: cannot be read ({error.strerror}).") from error
    return {}


def _names(content: dict[str, Any], place: Path) -> bool:
    """Whether a line is about this image; that of a case that went out unprotected names no protected file."""
    image = content.get("protected_file")
    return image in (place.as_posix(), place.parent.as_posix()) or (image is None and place.as_posix() in content.get("outputs", ()))


def _is_well_formed(record: Recorded) -> bool:
    """Whether what is used of a record has the types that it must have; anybody may have written the file."""
    content = record.content
    said, told, outputs = content.get("statistics", {}), content.get("regions", {}), content.get("outputs", {})
    if not (all(isinstance(part, dict) for part in (said, told, outputs)) and isinstance(said.get("channels", []), list)):
        return False
    measured = ([said] if said else []) + said.get("channels", [])
    windows: list[Any] = [own.get("window") if isinstance(own, dict) else None for own in measured]
    width, numbers = told.get("half_width_voxels", HALF_WIDTH), [content.get("bound"), said.get("psnr_db")]
    return (
        all(_is_pair(w) and w[0] < w[1] for w in windows)
        and _is_pair(content.get("padding", [0, 0]))
        and type(width) is int
        and 0 <= width <= LARGEST_HALF_WIDTH
        and all(value is None or is_number(value) for value in numbers)
    )


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def is_number(value: Any) -> bool:
    """Whether a value that anybody may have written is a number to compute with: neither infinite nor an integer beyond all floats."""
    return type(value) in (int, float) and -LARGEST < value < LARGEST
