"""Where output may go: names from files that others wrote stay inside a root folder, private files are their owner's alone."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from MedProtectLib.errors import MedProtectError

LONGEST_PART = 255  # bytes, of ext4, NTFS (characters) and APFS
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # devices on Windows, with any extension
PARTS = ".*.part"  # files that are being written
FORBIDDEN = frozenset('<>:"|?*\\')  # on Windows; a colon would also name a drive or a stream


def inside(root: str | os.PathLike[str], name: str) -> Path:
    """``root / name`` for a name, with "/" between its parts, that a manifest, a DICOM header or another untrusted file gave.

    The same names are refused on every system, so that a release can be read on all of them.

    Raises:
        MedProtectError: the name is absolute, has "..", a part that some system does not allow, or leads out of ``root`` through
            a symbolic link.
    """
    root = Path(root)
    parts = name.split("/")
    if not all(map(is_file_name, parts)):
        raise MedProtectError(f"{name[:LONGEST_PART]!r}: not a name that a file inside {root} can have. Rename the case.")
    path = root.joinpath(*parts)
    if not path.resolve().is_relative_to(root.resolve()):
        raise MedProtectError(f"{path}: a symbolic link leads out of {root}. Remove the link.")
    return path


def is_file_name(part: str) -> bool:
    """Whether every system can have a file of this name, and in the folder where it is put."""
    return (
        part not in ("", ".", "..")
        and part.isprintable()
        and not FORBIDDEN & set(part)
        and not part.endswith((".", " "))
        and not RESERVED.fullmatch(part)
        and len(part.encode()) <= LONGEST_PART
    )


def private_folder(path: Path) -> Path:
    """Create a folder that nobody but its owner can look into, with its parents; one that exists stays as it is."""
    for missing in [p for p in (path, *path.parents) if not p.exists()][::-1]:
        missing.mkdir(mode=0o700, exist_ok=True)
    return path


def put_if_absent(part: Path, path: Path) -> bool:
    """Give a file another name, unless something has it: of several that try at once, one succeeds. Whether this one did.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:
        return _written_if_absent(part.read_bytes(), path)
    return True


def _written_if_absent(content: bytes, path: Path) -> bool:
    """The same where the file system knows no second names."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return True


def write_private(path: Path, content: bytes) -> None:
    """Write a file that is its owner's alone from the first byte on, and that appears whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    descriptor, part = tempfile.mkstemp(".part", f".{path.name[:100]}.", path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
