"""Output that appears whole or not at all: files are made in a hidden folder and renamed into place, the record last."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from MedProtectLib.errors import MedProtectError, remedy
from MedProtectLib.io.volumes import READERS
from MedProtectLib.release.writer import FORGOTTEN_AFTER_S, Writer, this_writer

RECORD = "_record.json"
PRIVATE_RECORD = "_private_record.json"
PRIVATE = "_private"
PROTECTED = "protected"
DATA_EXTENSIONS = (".raw", ".raw.gz", ".zraw", ".txt", ".hex")  # of the voxels beside a header
IMAGE = "|".join(map(re.escape, (*READERS, *DATA_EXTENSIONS, ".dcm")))
SHAREABLE_FILE = re.compile(rf"_record\.json|_protected(_\d{{4}})?({IMAGE})")
PRIVATE_FILE = re.compile(r"_private_record\.json|_perturbation\.(nrrd|medvault)|_report(_\d{4})?\.html|_overlay(_\d{4})?\.png")
INSTANCE = re.compile(r"\d{4,}\.dcm")
STAGING = re.compile(r"^\.(?P<name>.+)\.(?P<host>[^.]+?)-(?P<pid>\d+)(-(?P<began>\d+))?\.staging$")  # formerly without "began"


@dataclass(frozen=True)
class Destination:
    """Where one case's results go: what may be shared into ``output``, what reveals the perturbation into ``private``.

    The two records are there when the files of their folders are complete. ``overwrite``: complete files may be replaced.
    """

    name: str
    output: Path
    private: Path
    overwrite: bool = False

    @property
    def record(self) -> Path:
        return self.output / f"{self.name}{RECORD}"

    @property
    def private_record(self) -> Path:
        return self.private / f"{self.name}{PRIVATE_RECORD}"

    def check_free(self) -> None:
        """Refuse to replace what is complete.

        Raises:
            MedProtectError: one of the folders holds a case of this name, and there is no ``overwrite``.
        """
        if self.overwrite:
            return
        if self.record.exists():
            raise MedProtectError(f"{self.record}: this case was protected already. Use --overwrite to replace it, or another --output.")
        if self.private_record.exists():
            raise MedProtectError(
                f"{self.private_record}: the private folder holds another protected case of this name, which could not be restored any "
                "more. Choose another --private, or use --overwrite to replace it."
            )


@dataclass(frozen=True)
class Staged:
    """The two folders to write into; their files get their place when the block ends well."""

    output: Path
    private: Path


def plan_destination(name: str, inputs: list[Path], output: Path, private: Path | None, overwrite: bool) -> Destination:
    """Check that results can go where the user wants them.

    Raises:
        MedProtectError: the output is the input's folder, or a run there could remove an input; it or the private folder holds a case
            of this name already (without ``overwrite``); the private folder is the output or lies inside it.
    """
    output = named_folder(output)
    private = private if private is not None else output.with_name(output.name + PRIVATE)
    for path in inputs:
        for folder in (output.resolve(), private.resolve()):
            if _is_in_the_way(path, folder, name) or (path.is_dir() and folder.is_relative_to(path.resolve())):
                raise MedProtectError(f"{output}: this is the input's own folder. Choose another folder, so that nothing is mixed up.")
    if private.resolve() == output.resolve() or output.resolve() in private.resolve().parents:
        raise MedProtectError(f"{private}: the private folder must not lie inside the shareable folder {output}. Choose another --private.")
    for folder in (output, private):
        if folder.exists() and not folder.is_dir():
            raise MedProtectError(f"{folder}: this is a file, not a folder. Choose another folder.")
    destination = Destination(name, output, private, overwrite)
    destination.check_free()
    series = output / f"{name}_{PROTECTED}"
    for path in sorted(series.iterdir()) if series.is_dir() else ():
        if not INSTANCE.fullmatch(path.name):
            raise MedProtectError(f"{series}: it holds '{path.name}', which MedProtect did not write. Move it, or choose another folder.")
    return destination


def _is_in_the_way(path: Path, folder: Path, name: str) -> bool:
    """Whether an input, or the link that it is named by, lies in a folder itself, or in what a run for a case may sweep there."""
    link = path.absolute()
    for place in (path.resolve(), link.parent.resolve() / link.name):
        child = next((part for part in (place, *place.parents) if part.parent == folder), None)
        if child is not None and (child == place or child.name == f"{name}_{PROTECTED}" or STAGING.match(child.name)):
            return True
    return False


def named_folder(path: Path) -> Path:
    """A folder by a path that ends in its name, so that another one can be named after it: '.' and '..' are what they lead to.

    Raises:
        MedProtectError: the root of the file system, which has no name.
    """
    named = path if path.name not in ("", "..") else path.resolve()
    if not named.name:
        raise MedProtectError(f"{named}: the root of the file system cannot take the results. Choose a folder in it.")
    return named


@contextmanager
def staged(destination: Destination) -> Iterator[Staged]:
    """Folders to write into. When the block ends well, their files replace the case's earlier ones: private files first,
    the shareable ones next, the private record and the record last. When it does not, nothing is left of it.

    Raises:
        MedProtectError: a folder cannot be made or written, or another run works on the same case.
    """
    made: list[Path] = []
    try:
        for folder in (destination.output, destination.private):
            made += _make(folder, private=folder == destination.private)
        _sweep(destination)
        output, private = (folder / _staging_name(destination.name) for folder in (destination.output, destination.private))
        for folder in (output, private):
            folder.mkdir(mode=0o700)
            made.append(folder)
        destination.check_free()
        yield Staged(output, private)
        _commit(Staged(output, private), destination)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        what_to_do = remedy(error, "Free space or choose another folder.")
        raise MedProtectError(f"{error.filename or destination.output}: {reason}. Nothing was written. {what_to_do}") from error
    finally:
        _remove(made)


def _make(folder: Path, private: bool) -> list[Path]:
    """Create a folder with its parents and return those that were missing, outermost first."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()][::-1]
    for path in missing:
        path.mkdir(mode=0o700 if private else 0o777)
    return missing


def _remove(made: list[Path]) -> None:
    """Remove staging folders with their content, and the other folders that are still empty."""
    for path in reversed(made):
        if STAGING.match(path.name):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _staging_name(name: str) -> str:
    return f".{name}.{this_writer().name}.staging"


def _sweep(destination: Destination) -> None:
    """Remove what runs that died have left, and this case's files if they have no record. Of a run on another machine, or in another
    container, nobody can tell whether it died: what it left is kept for a day.
    """
    for folder in (destination.output, destination.private):
        for path in folder.glob(".*.staging"):
            match = STAGING.match(path.name)
            if match is None:
                continue
            gone = Writer(match["host"], int(match["pid"]), int(match["began"])).is_gone() if match["began"] else None
            if gone or (gone is None and time.time() - path.stat().st_mtime > FORGOTTEN_AFTER_S):
                shutil.rmtree(path)
            elif gone is False and match["name"] == destination.name:
                raise MedProtectError(f"{destination.output}: another run is protecting '{destination.name}' at this moment. Wait for it.")
    if not destination.record.exists():
        _delete_shareable(destination)
        if not destination.private_record.exists():
            _delete_private(destination)


def _delete_shareable(destination: Destination, kept: Container[str] = ()) -> None:
    """Remove the case's shareable files but those with the names ``kept``, and in any case the folder of a DICOM series."""
    _delete_files(destination.output, destination.name, SHAREABLE_FILE, kept)
    series = destination.output / f"{destination.name}_{PROTECTED}"
    if series.is_dir():
        shutil.rmtree(series)


def _delete_private(destination: Destination, kept: Container[str] = ()) -> None:
    """Remove the case's private files but those with the names ``kept``."""
    _delete_files(destination.private, destination.name, PRIVATE_FILE, kept)


def _delete_files(folder: Path, name: str, made: re.Pattern[str], kept: Container[str]) -> None:
    for path in list(folder.iterdir()):
        ours = path.name.startswith(name) and made.fullmatch(path.name[len(name) :])
        if ours and path.is_file() and path.name not in kept:
            path.unlink(missing_ok=True)


def _commit(stage: Staged, destination: Destination) -> None:
    """Put the staged files in the place of earlier ones, the two records last. When that fails, no file of the case stays."""
    private, shareable = sorted(stage.private.iterdir()), sorted(stage.output.iterdir())
    moves = [(path, destination.private / path.name) for path in private] + [(path, destination.output / path.name) for path in shareable]
    try:
        destination.record.unlink(missing_ok=True)
        destination.private_record.unlink(missing_ok=True)
        _delete_private(destination, {path.name for path in private})
        _delete_shareable(destination, {path.name for path in shareable})
        for path in private:
            path.chmod(0o600)
        for path, target in sorted(moves, key=lambda move: move[1] in (destination.private_record, destination.record)):
            path.replace(target)
    except BaseException:
        if not destination.record.exists():
            _delete_private(destination)
            _delete_shareable(destination)
        raise
