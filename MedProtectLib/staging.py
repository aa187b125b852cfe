"""Output that appears whole or not at all: files are made in a hidden folder and renamed into place, the record last."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from MedProtectLib.errors import MedProtectError

RECORD = "_record.json"
PRIVATE = "_private"
PROTECTED = "protected"
MADE = re.compile(r"(record|private_record|perturbation|(protected|report|overlay)(_\d{4})?)(\.|$)")
INSTANCE = re.compile(r"\d{4,}\.dcm")
STAGING = re.compile(r"^\.(?P<name>.+)\.(?P<host>[^.]+)-(?P<pid>\d+)\.staging$")


@dataclass(frozen=True)
class Destination:
    """Where one case's results go: what may be shared into ``output``, what reveals the perturbation into ``private``."""

    name: str
    output: Path
    private: Path

    @property
    def record(self) -> Path:
        return self.output / f"{self.name}{RECORD}"


@dataclass(frozen=True)
class Staged:
    """The two folders to write into; their files get their place when the block ends well."""

    output: Path
    private: Path


def plan_destination(name: str, inputs: list[Path], output: Path, private: Path | None, overwrite: bool) -> Destination:
    """Check that results can go where the user wants them.

    Raises:
        MedProtectError: the output is the input's folder, or holds this case already (without ``overwrite``); the private
            folder is the output or lies inside it.
    """
    private = private if private is not None else output.with_name(output.name + PRIVATE)
    for path in inputs:
        for folder in (output.resolve(), private.resolve()):
            if folder == path.resolve().parent or (path.is_dir() and folder.is_relative_to(path.resolve())):
                raise MedProtectError(f"{output}: this is the input's own folder. Choose another folder, so that nothing is mixed up.")
    if private.resolve() == output.resolve() or output.resolve() in private.resolve().parents:
        raise MedProtectError(f"{private}: the private folder must not lie inside the shareable folder {output}. Choose another --private.")
    for folder in (output, private):
        if folder.exists() and not folder.is_dir():
            raise MedProtectError(f"{folder}: this is a file, not a folder. Choose another folder.")
    destination = Destination(name, output, private)
    if destination.record.exists() and not overwrite:
        raise MedProtectError(f"{destination.record}: this case was protected already. Use --overwrite to replace it, or another --output.")
    series = output / f"{name}_{PROTECTED}"
    for path in sorted(series.iterdir()) if series.is_dir() else ():
        if not INSTANCE.fullmatch(path.name):
            raise MedProtectError(f"{series}: it holds '{path.name}', which MedProtect did not write. Move it, or choose another folder.")
    return destination


@contextmanager
def staged(destination: Destination) -> Iterator[Staged]:
    """Folders to write into. When the block ends well, their files replace the case's earlier ones: private files first,
    the shareable ones next, the record last. When it does not, nothing is left of it.

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
        yield Staged(output, private)
        _commit(Staged(output, private), destination)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise MedProtectError(
            f"{error.filename or destination.output}: {reason}. Nothing was written; free space or choose another folder."
        ) from error
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
    return f".{name}.{_host()}-{os.getpid()}.staging"


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _sweep(destination: Destination) -> None:
    """Remove what runs that died have left, and this case's files if they have no record."""
    for folder in (destination.output, destination.private):
        for path in folder.glob(".*.staging"):
            match = STAGING.match(path.name)
            if match is None or match["host"] != _host():
                continue
            if not alive(int(match["pid"])):
                shutil.rmtree(path)
            elif match["name"] == destination.name:
                raise MedProtectError(f"{destination.output}: another run is protecting '{destination.name}' at this moment. Wait for it.")
    if not destination.record.exists():
        for folder in (destination.output, destination.private):
            for path in _files_of(destination.name, folder):
                _delete(path)


def _files_of(name: str, folder: Path) -> list[Path]:
    """The files, and the folder of a DICOM series, that a run makes for a case; those of single channels end in the channel's number."""
    made = [p for p in folder.iterdir() if p.name.startswith(name + "_") and MADE.match(p.name[len(name) + 1 :])]
    return [p for p in made if p.is_file() or p.name == f"{name}_{PROTECTED}"]


def _delete(path: Path) -> None:
    """Remove a file, or the folder of a DICOM series."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    if pid == os.getpid():
        return True
    if os.name == "nt":
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # type: ignore[attr-defined]
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)  # type: ignore[attr-defined]
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _commit(stage: Staged, destination: Destination) -> None:
    destination.record.unlink(missing_ok=True)
    for source, target in ((stage.private, destination.private), (stage.output, destination.output)):
        new = sorted(source.iterdir(), key=lambda p: p.name == destination.record.name)
        kept = {p.name for p in new}
        for old in _files_of(destination.name, target):
            if old.name not in kept or old.is_dir():
                _delete(old)
        for path in new:
            if target == destination.private:
                path.chmod(0o600)
            path.replace(target / path.name)
