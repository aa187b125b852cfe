"""Results of the library, from memory or from files, as they go into the scene. Runs in any thread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedProtectLib.volume import Volume
from MedProtectSlicer.results import Finished
from MedProtectSlicer.words import inModuleWords

if TYPE_CHECKING:
    from MedProtectLib.protection import Protection


def fromMemory(protection: Protection, dtype: np.dtype) -> Finished:
    """A protection that was made in this process. ``dtype`` is the voxel type of the original node."""
    from MedProtectLib.io import sha256_voxels

    counts = protection.regions.on_grid(protection.counts, protection.volume.geometry.shape)
    return Finished(
        voxels=shown(protection.volume, dtype),
        change=_inUnits(counts, protection.step * abs(protection.volume.slope)),
        statistics=json.loads(json.dumps(protection.statistics.as_record())),
        unit=protection.window.unit,
        voxels_sha256=sha256_voxels(protection.volume.array),
        messages=[inModuleWords(line) for line in (*protection.notices, *protection.warnings)],
    )


def fromFiles(protected: Path, record: Path, private: Path, dtype: np.dtype, messages: Sequence[str]) -> Finished:
    """The files that the command line has written for one case."""
    from MedProtectLib.io import read_volume

    volume = read_volume(protected)
    name = record.name.removesuffix("_record.json")
    shared = json.loads(record.read_text(encoding="utf-8"))
    kept = json.loads((private / f"{name}_private_record.json").read_text(encoding="utf-8"))
    counts = read_volume(private / f"{name}_perturbation.nrrd").array
    return Finished(
        voxels=shown(volume, dtype),
        change=_inUnits(counts, kept["level_step_stored"] * abs(volume.slope)),
        statistics=shared["statistics"],
        unit=kept["window"]["unit"],
        voxels_sha256=shared["protected_voxels_sha256"],
        messages=[inModuleWords(line) for line in messages],
    )


def shown(volume: Volume, dtype: np.dtype) -> np.ndarray:
    """The voxels as Slicer would show the file: with the file's scale applied, in the type of the original node."""
    if (volume.slope, volume.intercept) == (1.0, 0.0):
        return volume.array.astype(dtype, copy=False)
    units = volume.in_units(volume.array)
    return (np.rint(units) if dtype.kind in "iu" else units).astype(dtype)


def _inUnits(counts: np.ndarray, step: float) -> np.ndarray:
    return counts.astype(np.int16) if step == 1.0 and np.abs(counts).max(initial=0) < 2**15 else (counts * step).astype(np.float32)
