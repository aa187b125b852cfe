"""Reading small files that anybody may have written: of bounded size, as data and never as code."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from MedProtectLib.errors import MedProtectError

LARGEST_RECORD = 1 << 24
LARGEST_TABLE = 1 << 28
SEPARATORS = {";": "semicolons", "\t": "tabs"}


def is_file(path: Path) -> bool:
    """Whether there is such a file; False also for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_json(path: str | os.PathLike[str], damaged: str, most: int = LARGEST_RECORD) -> dict[str, Any]:
    """The JSON object in a file of at most ``most`` bytes.

    Raises:
        MedProtectError: the file cannot be read, or, in the words of ``damaged``, holds something else.
    """
    content = _read(path, damaged, most)
    return parse_json(content, f"{path}: {damaged}")


def parse_json(content: bytes, refusal: str) -> dict[str, Any]:
    """The JSON object in some bytes.

    Raises:
        MedProtectError: with the text ``refusal``, where they hold something else.
    """
    try:
        parsed = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MedProtectError(refusal) from error
    if not isinstance(parsed, dict):
        raise MedProtectError(refusal)
    return parsed


def read_table(path: str | os.PathLike[str], damaged: str, most: int = LARGEST_TABLE) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """The columns and the rows of a CSV file of at most ``most`` bytes; cells that a row lacks are empty.

    Raises:
        MedProtectError: the file cannot be read, has another separator than commas, or, in the words of ``damaged``, is no table.
    """
    content = _read(path, damaged, most)
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise MedProtectError(f"{path}: {damaged}") from error
    columns, filled = tuple(rows[0]) if rows else (), [row for row in rows[1:] if row]
    if len(columns) == 1 and (separator := next((mark for mark in SEPARATORS if mark in columns[0]), None)):
        raise MedProtectError(f"{path}: its columns are separated by {SEPARATORS[separator]}. Save it with commas between them.")
    if len(set(columns)) < len(columns) or any(len(row) > len(columns) for row in filled):
        raise MedProtectError(f"{path}: {damaged}")
    return columns, [dict(zip(columns, row + [""] * (len(columns) - len(row)), strict=True)) for row in filled]


def _read(path: str | os.PathLike[str], damaged: str, most: int) -> bytes:
    """The bytes of a file of at most ``most``. Raises MedProtectError as its callers do."""
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        raise MedProtectError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(content) > most:
        raise MedProtectError(f"{path}: {damaged}")
    return content
