"""Removing what processes that are gone have left: staging folders, claims, half-written files."""

from __future__ import annotations

import shutil
from contextlib import suppress

from MedProtectLib.outputs import PARTS
from MedProtectLib.release.claims import holders, is_stale
from MedProtectLib.release.roots import Roots
from MedProtectLib.release.writer import is_forgotten, is_left


def sweep(roots: Roots) -> None:
    """Remove the leavings of processes that are gone; of those on other machines, where nobody can tell, what is a day old."""
    for parent in (roots.staging, roots.private_staging):
        for folder in parent.iterdir() if parent.is_dir() else ():
            if is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)
    for lock in roots.claims.glob("*.lock"):
        if is_stale(lock):
            lock.unlink(missing_ok=True)
    for path in roots.claims.glob(".*"):
        if is_forgotten(path):
            path.unlink(missing_ok=True)
    _sweep_parts(roots)
    with suppress(OSError):
        roots.staging.rmdir()


def _sweep_parts(roots: Roots) -> None:
    """Remove half-written private files: in the vault when no case is claimed, so that nobody writes there; others when a day old."""
    entries = list(roots.vault.glob(PARTS))
    if not holders(roots.claims):
        for part in entries:
            part.unlink(missing_ok=True)
    for folder in (roots.private, roots.images, roots.names, roots.reasons, roots.overview):
        for part in folder.glob(PARTS):
            if is_forgotten(part):
                part.unlink(missing_ok=True)
