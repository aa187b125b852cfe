"""A case of the scene as files for the command line. Runs in any thread: it touches no node."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.volume import LabelMap, Volume
from MedProtectSlicer.nodes import SceneCase


def stagedImage(case: SceneCase, folder: Path, extension: str = ".nrrd") -> Path:
    """The image as a file: the one that it was loaded from if that still holds the same, else a new one in ``folder``."""
    if case.file is not None and fileVolume(case) is not None:
        return case.file
    return newImage(case, folder, extension)


def newImage(case: SceneCase, folder: Path, extension: str) -> Path:
    """The voxels and the grid of the node as a new file, named after the node."""
    from MedProtectLib.io import write_volume

    path = folder / f"{fileName(case.volume.name)}{extension}"
    write_volume(case.volume, path)
    return path


def stagedLabels(case: SceneCase, folder: Path) -> Path:
    """The chosen segments as a segmentation file in ``folder``."""
    from MedProtectLib.io.segmentation import write_segmentation

    path = folder / f"{fileName(case.labels.name)}.seg.nrrd"
    write_segmentation(case.labels, path)
    return path


def fileVolume(case: SceneCase) -> Volume | None:
    """The volume as its file holds it; None if there is no file, or it does not hold what the node shows."""
    from MedProtectLib.io import read_volume

    if case.file is None:
        return None
    try:
        stored = read_volume(case.file)
    except MedProtectError:
        return None
    shown = case.volume
    if stored.array.shape != shown.array.shape:
        return None
    if stored.geometry.dimension == 3 and not stored.geometry.same_grid(shown.geometry):
        return None
    if (stored.slope, stored.intercept) == (1.0, 0.0):
        return stored if np.array_equal(stored.array, shown.array) else None
    return stored if np.allclose(stored.in_units(stored.array), shown.array, rtol=1e-5, atol=abs(stored.slope) * 1e-2) else None


def inMemory(case: SceneCase, quickly: bool = False) -> tuple[Volume, LabelMap]:
    """The case as the command line would read it from its files, without writing any.

    ``quickly`` spares reading the file where it can add nothing to what the node holds: a volume of whole numbers has neither
    a scale nor the rules for pictures.
    """
    plain = quickly and case.volume.array.dtype.kind in "iu" and case.volume.geometry.dimension == 3
    stored = None if plain else fileVolume(case)
    volume = case.volume if stored is None else replace(stored, name=case.volume.name)
    return volume, case.labels


def fileName(name: str) -> str:
    """A node's name as a file name that every system takes."""
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "_", name).strip(" .") or "volume"
