"""Who works on a case: a lock file that only one process can create, so that runs on the same release do not get in each other's way.

A claim of a process that is gone is stale at once on its own machine, and elsewhere when nothing has touched it for a while. Should two
processes hold one case nevertheless, nothing is lost: both make the same bytes and put them into place in one step.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

from MedProtectLib.outputs import private_folder
from MedProtectLib.release.case import file_name_of
from MedProtectLib.release.writer import Writer, this_writer

TOUCH_EVERY_S = 20.0
STALE_AFTER_S = 600.0
UNREADABLE_AFTER_S = 10.0


@contextmanager
def claimed(folder: Path, case: str) -> Iterator[bool]:
    """Hold a case: True when this process has it, False when another one is at it."""
    private_folder(folder)
    lock = folder / f"{file_name_of(case)}.lock"
    if not (_create(lock) or (is_stale(lock) and _remove_stale(lock) and _create(lock))):
        yield False
        return
    done = threading.Event()
    toucher = threading.Thread(target=_keep_fresh, args=(lock, done), daemon=True)
    toucher.start()
    try:
        yield True
    finally:
        done.set()
        toucher.join()
        if _owner(lock) == this_writer():
            lock.unlink(missing_ok=True)


def holders(folder: Path) -> dict[str, str]:
    """File names of claimed cases, and the processes that hold them; stale claims are left out."""
    found = {}
    for lock in sorted(folder.glob("*.lock")):
        owner = _owner(lock)
        if owner is not None and not is_stale(lock):
            found[unquote(lock.name.removesuffix(".lock"))] = f"process {owner.pid} on {owner.host}"
    return found


def _create(lock: Path) -> bool:
    try:
        file = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    try:
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(this_writer().as_json()))
    except OSError:
        lock.unlink(missing_ok=True)
        raise
    return True


def _owner(lock: Path) -> Writer | None:
    try:
        return Writer.from_json(json.loads(lock.read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return None


def is_stale(lock: Path) -> bool:
    """Whether a claim is of a process that is gone, or was touched by nobody for long."""
    owner = _owner(lock)
    gone = None if owner is None else owner.is_gone()
    return gone if gone is not None else _age(lock) > (UNREADABLE_AFTER_S if owner is None else STALE_AFTER_S)


def _age(lock: Path) -> float:
    """Seconds since the claim was touched, by the clock of the file system that holds it; 0 when it is gone."""
    probe = lock.with_name(f".{this_writer().name}.clock")
    try:
        probe.touch(mode=0o600)
        return probe.stat().st_mtime - lock.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _remove_stale(lock: Path) -> bool:
    """Take a stale claim out of the way. When another process was faster, its claim is put back."""
    aside = lock.with_name(f".{lock.name}.{this_writer().name}.{time.monotonic_ns()}.stale")
    try:
        lock.rename(aside)
    except FileNotFoundError:
        return True
    fresh = not is_stale(aside)
    if fresh:
        with suppress(OSError):
            os.link(aside, lock)
    aside.unlink(missing_ok=True)
    return not fresh


def _keep_fresh(lock: Path, done: threading.Event) -> None:
    while not done.wait(TOUCH_EVERY_S):
        with suppress(OSError):
            os.utime(lock)
