"""The files of one case: made in hidden folders, renamed into place, the record last. Without its record a case counts as nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import sha256_file
from MedProtectLib.outputs import PARTS, private_folder, write_private
from MedProtectLib.release.case import ReleaseCase, file_name_of
from MedProtectLib.release.roots import MEMBER, SUMMARY, Roots
from MedProtectLib.release.writer import this_writer

PLACED = "placed.json"  # which files are being put into the shareable root
NEEDED = {
    "case": str,
    "key": str,
    "status": str,
    "inputs": dict,
    "outputs": dict,
    "original_voxels_sha256": str,
    "withheld": list,
    "shareable": dict,
}


@dataclass(frozen=True)
class Stage:
    """Where the files of one case are made: ``shared`` mirrors the shareable root, ``private`` the case's private folder."""

    shared: Path
    private: Path

    def place(self, target: str) -> Path:
        """Where the file with this place in the release is made."""
        path = self.shared / target
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@contextmanager
def staged(roots: Roots, case: ReleaseCase) -> Iterator[Stage]:
    """Empty folders for a case that this process has claimed; what others have left of it is removed first, and they at the end."""
    _sweep(roots, case)
    name = f"{file_name_of(case.name)}.{this_writer().name}"
    stage = Stage(roots.staging / name, roots.private_staging / name)
    try:
        stage.shared.mkdir(mode=0o700, parents=True)
        private_folder(roots.private_staging)
        stage.private.mkdir(mode=0o700)
        yield stage
    finally:
        _sweep(roots, case)


class OvertakenError(MedProtectError):
    """Another process has committed the case since this one began with it."""


def commit(stage: Stage, roots: Roots, case: ReleaseCase, record: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    """Put everything that was staged into place, and then the record. When that fails, files that were not there before go again.

    ``before`` is the record that the case had when this process began with it. From here on the release is not finished.

    Raises:
        OvertakenError: it has another one now. MedProtectError: a place lies outside the shareable root.
        OSError: no space or no permission.
    """
    if read_record(roots, case.name) != before:
        raise OvertakenError("another process has made this case meanwhile.")
    folder = roots.of_case(case.name)
    private_folder(folder)
    for path in files_below(stage.private):
        path.chmod(0o600)
        _move(path, folder / path.relative_to(stage.private))
    targets = {path.relative_to(stage.shared).as_posix(): path for path in files_below(stage.shared)}
    new = [name for name in targets if _is_own(case, name) and not roots.target(name).exists()]
    write_private(folder / PLACED, json.dumps(list(targets)).encode())
    (roots.output / SUMMARY).unlink(missing_ok=True)
    try:
        for name, path in targets.items():
            target = roots.target(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            _move(path, target)
        write_record(roots, record)
    except BaseException:
        for name in new if read_record(roots, case.name) == before else ():
            roots.target(name).unlink(missing_ok=True)
        raise
    (folder / PLACED).unlink(missing_ok=True)


def placed(roots: Roots, case: str) -> list[str]:
    """The files that a process began to put into the shareable root and that are in no record."""
    try:
        names = json.loads((roots.of_case(case) / PLACED).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _is_own(case: ReleaseCase, name: str) -> bool:
    """Whether a place is of no other case; a copy may be another one's as well."""
    own = {case.image.target, *case.own_targets}
    return name in own or name.rpartition("/")[0] in own


def write_record(roots: Roots, record: Mapping[str, Any]) -> None:
    """Commit a case, whose files are in place, or exchange the record of a committed one.

    Raises:
        OSError: no space or no permission.
    """
    content = json.dumps(dict(record), indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_private(roots.record(str(record["case"])), content.encode())


def read_record(roots: Roots, case: str) -> dict[str, Any] | None:
    """The record of a committed case, None when there is none or what is needed of it is missing."""
    try:
        record = json.loads(roots.record(case).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and all(isinstance(record.get(name), kind) for name, kind in NEEDED.items())
    return record if whole else None


def read_reason(roots: Roots, case: str) -> str | None:
    """Why a case is in quarantine, None when it is not."""
    try:
        return str(json.loads(roots.reason(case).read_text(encoding="utf-8"))["reason"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return "its entry in the quarantine folder is damaged."


def outputs_hold(roots: Roots, record: Mapping[str, Any]) -> bool:
    """Whether every file that the record names lies in the shareable root with the content that was written.

    An image of a MedMNIST file is kept in the case's folder instead.
    """
    places = {roots.target(name): sha for name, sha in record["outputs"].items()}
    if "member_sha256" in record:
        places[roots.of_case(record["case"]) / MEMBER] = record["member_sha256"]
    return all(path.is_file() and sha256_file(path) == sha for path, sha in places.items())


def hashes_below(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by its path relative to the folder."""
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files_below(folder)}


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and the folders in it, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sweep(roots: Roots, case: ReleaseCase) -> None:
    """Remove what is left of a case without record: its staging folders, and files that were put into place before their record."""
    for parent in (roots.staging, roots.private_staging):
        for folder in parent.glob("*"):
            if folder.name.rpartition(".")[0] == file_name_of(case.name):
                shutil.rmtree(folder, ignore_errors=True)
    for part in roots.of_case(case.name).glob(PARTS):
        part.unlink(missing_ok=True)
    if read_record(roots, case.name) is None:
        withdraw_files(roots, case)


def withdraw_files(roots: Roots, case: ReleaseCase) -> None:
    """Remove a case's files from the shareable root and its private folder. Copies stay: another case may have them too."""
    for name in placed(roots, case.name):
        if _is_own(case, name):
            roots.target(name).unlink(missing_ok=True)
    shutil.rmtree(roots.of_case(case.name), ignore_errors=True)


def _move(path: Path, target: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
    path.replace(target)
