"""Volumes that the DICOM module has loaded: where their files are. Everything here runs in the main thread."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

INSTANCES = "DICOM.instanceUIDs"  # set on a node by Slicer's DICOM plugins


def seriesFiles(node: Any) -> tuple[Path, ...]:
    """The DICOM files that a volume was loaded from; none where it was not, or where the database or the disk has lost them."""
    uids = node.GetAttribute(INSTANCES)
    if not uids or getattr(slicer, "dicomDatabase", None) is None:
        return ()
    first = slicer.dicomDatabase.fileForInstance(uids.split()[0])
    if not first or not Path(first).is_file():
        return ()
    try:
        return _filesOf(uids, first)
    except LookupError:
        return ()


def whyNoSeries(node: Any) -> str:
    """Why a volume cannot be exported as a DICOM series, in one line; empty where it can."""
    if node is None:
        return _("Choose a volume first.")
    if not node.GetAttribute(INSTANCES):
        return _("'{name}' was not loaded from DICOM.").format(name=node.GetName())
    if not seriesFiles(node):
        return _("The DICOM files of '{name}' are not in Slicer's DICOM database any more. Import and load them again.").format(
            name=node.GetName()
        )
    return ""


@lru_cache(maxsize=16)
def _filesOf(uids: str, first: str) -> tuple[Path, ...]:
    """Asking the database takes a moment for every slice, and previews ask again and again. ``first``: where the series lies now."""
    names = [slicer.dicomDatabase.fileForInstance(uid) for uid in uids.split()]
    if not all(names):
        raise LookupError(uids)
    return tuple(dict.fromkeys(Path(name) for name in names))
