"""The two roots of a release and what lies where in them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from MedProtectLib.errors import MedProtectError
from MedProtectLib.outputs import inside
from MedProtectLib.release.case import file_name_of
from MedProtectLib.release.writer import is_left, this_writer
from MedProtectLib.staging import PRIVATE, named_folder

RECORDS = "medprotect_records.jsonl"
SUMMARY = "medprotect_release.json"  # there when the release is finished, and not while somebody works on it
MANIFEST = "manifest.json"
MEMBER = "protected.npy"


@dataclass(frozen=True)
class Roots:
    """``output`` holds the dataset in its own layout and two files about it; ``private`` everything that must not be shared."""

    output: Path
    private: Path

    @classmethod
    def of(cls, output: str | Path, private: str | Path | None) -> Roots:
        """Absolute roots; the private one is named after the other where it is not given.

        Raises:
            MedProtectError: the shareable one would be the root of the file system.
        """
        shared = named_folder(Path(output)).absolute()
        return cls(shared, shared.with_name(shared.name + PRIVATE) if private is None else Path(private).absolute())

    @property
    def staging(self) -> Path:
        """Where files are made before they are renamed into place, on the file system of ``output``."""
        return self.output / ".medprotect_staging"

    @property
    def private_staging(self) -> Path:
        return self.private / "staging"

    @property
    def manifest(self) -> Path:
        """What the release is made with."""
        return self.private / MANIFEST

    @property
    def cases(self) -> Path:
        """Every case of the release, one JSON line each."""
        return self.private / "cases.jsonl"

    @property
    def ledger(self) -> Path:
        return self.private / "ledger"

    @property
    def claims(self) -> Path:
        return self.private / "claims"

    @property
    def vault(self) -> Path:
        return self.private / "vault"

    @property
    def overview(self) -> Path:
        return self.private / "overview"

    @property
    def images(self) -> Path:
        """Which image went out under which name: one file per SHA-256 of an original's voxels."""
        return self.private / "images"

    @property
    def names(self) -> Path:
        """Which image a case is: one file per case."""
        return self.private / "names"

    @property
    def audit(self) -> Path:
        """The audit trail; ``.csv`` beside it says the same."""
        return self.private / "audit.jsonl"

    @property
    def left_out(self) -> Path:
        """Files of the dataset that belong to no case and stayed behind."""
        return self.private / "left_out.txt"

    def of_case(self, case: str) -> Path:
        """The private folder of one case: record, report, picture."""
        return self.private / "cases" / file_name_of(case)

    def record(self, case: str) -> Path:
        """The record, whose appearance commits the case."""
        return self.of_case(case) / "record.json"

    @property
    def reasons(self) -> Path:
        """Why cases are in quarantine: one file per case."""
        return self.private / "quarantine"

    def reason(self, case: str) -> Path:
        """Why a case is in quarantine."""
        return self.reasons / f"{file_name_of(case)}.json"

    def target(self, relative: str) -> Path:
        """A place in the shareable root.

        Raises:
            MedProtectError: it lies outside, by its name or through a symbolic link.
        """
        return inside(self.output, relative)

    def hold(self, path: Path) -> bool:
        """Whether a path lies in one of the roots."""
        return path.is_relative_to(self.output) or path.is_relative_to(self.private)

    def check(self, dataset: Path) -> None:
        """Refuse roots that would mix up input, shareable and private files.

        Raises:
            MedProtectError: one root lies in another or in the dataset, or the dataset in one of them, or a root in
                another release; one is a file.
        """
        source = (dataset if dataset.is_dir() else dataset.parent).resolve()
        output, private = self.output.resolve(), self.private.resolve()
        if _within(private, output) or _within(output, private):
            raise MedProtectError(
                f"{self.private}: the private folder and the shareable folder {self.output} must not lie in each other. Choose another "
                "--private."
            )
        for root in (output, private):
            if (dataset.is_dir() and _within(root, source)) or _within(source, root):
                raise MedProtectError(f"{root}: this folder and the dataset must not lie in each other. Choose another folder.")
            above = root.parents if root == output else (root, *root.parents)
            if (release := next(filter(_is_release, above), None)) is not None:
                raise MedProtectError(
                    f"{root}: this folder would lie in the release {release} and be handed out with it. Choose another folder."
                )
            if root.exists() and not root.is_dir():
                raise MedProtectError(f"{root}: this is a file, not a folder. Choose another folder.")


def _is_release(folder: Path) -> bool:
    return (folder / RECORDS).exists() or (folder / SUMMARY).exists()


def _within(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


@contextmanager
def written_shared(path: Path) -> Iterator[BinaryIO]:
    """A file of the shareable root that appears whole when the block ends well, or not at all. What a process that is gone has left
    of it is removed.

    Raises:
        OSError: no space or no permission.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if is_left(left):
            left.unlink(missing_ok=True)
    part = path.with_name(f".{path.name}.{this_writer().name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_shared(path: Path, content: bytes) -> None:
    """Write such a file at once."""
    with written_shared(path) as file:
        file.write(content)
