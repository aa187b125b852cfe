"""Removing what processes that are gone have left: staging folders, claims, half-written files."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from MedProtectLib.release.claims import is_stale
from MedProtectLib.release.roots import Roots
from MedProtectLib.release.writer import FORGOTTEN_AFTER_S, Writer

STAGE = re.compile(r".+\.(?P<host>[^.]+)-(?P<pid>\d+)-(?P<began>\d+)")


def sweep(roots: Roots) -> None:
    """Remove the leavings of processes that are gone; of those on other machines, where nobody can tell, what is a day old."""
    for parent in (roots.staging, roots.private_staging):
        for folder in parent.iterdir() if parent.is_dir() else ():
            if _is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)
    for lock in roots.claims.glob("*.lock"):
        if is_stale(lock):
            lock.unlink(missing_ok=True)
    for path in roots.claims.glob(".*"):
        if _age(path) > FORGOTTEN_AFTER_S:
            path.unlink(missing_ok=True)
    with suppress(OSError):
        roots.staging.rmdir()


def _is_left(folder: Path) -> bool:
    match = STAGE.fullmatch(folder.name)
    gone = Writer(match["host"], int(match["pid"]), int(match["began"])).is_gone() if match else None
    return gone if gone is not None else _age(folder) > FORGOTTEN_AFTER_S


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
