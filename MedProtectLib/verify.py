"""Measure an original and its protected version as they lie on disk, without believing any record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import labels_or_class, read_volume, sha256_image, sha256_voxels
from MedProtectLib.io.resample import on_grid_of
from MedProtectLib.levels import BOUND_ROUNDING, find_padding
from MedProtectLib.profile import LARGEST_HALF_WIDTH
from MedProtectLib.regions import HALF_WIDTH, find_regions
from MedProtectLib.staging import RECORD
from MedProtectLib.statistics import Statistics, measure
from MedProtectLib.untrusted import read_json
from MedProtectLib.volume import Volume
from MedProtectLib.window import choose_window, choose_windows

DAMAGED = "the record is damaged. Verify without it by moving it away."


@dataclass(frozen=True)
class Verification:
    """What two files show: the statistics and, in ``findings``, everything that a protected file must not do."""

    statistics: Statistics
    findings: tuple[str, ...]
    notices: tuple[str, ...]


def verify_files(
    original: str | Path,
    protected: str | Path,
    labels: str | Path | None,
    segments: Sequence[str] = (),
    modality: str | None = None,
    window: Sequence[float] | None = None,
    half_width: int | None = None,
    image_class: str | None = None,
    series: str | None = None,
) -> Verification:
    """Compare two files. With a record beside the protected file its window, bound and regions are used, and checked.

    For classification ``labels`` is None and the image's class given. ``series`` names one of several DICOM series in a folder.

    Raises:
        MedProtectError: the files cannot be read or compared.
    """
    before, after = read_volume(original, series), read_volume(protected)
    _comparable(before, after, Path(protected))
    record = _record_beside(Path(protected))
    notices: tuple[str, ...] = () if record else (f"{protected}: no record lies beside it; window and regions are found anew.",)
    said = record.get("statistics", {})
    label_map, resampled = on_grid_of(before.geometry, labels_or_class(before, labels, segments, image_class))
    told = record.get("regions", {})
    width = half_width if half_width is not None else told.get("half_width_voxels", HALF_WIDTH)
    planar = told.get("slice_by_slice", before.geometry.dimension == 2)
    regions = find_regions(label_map.classes() > 0, int(width), bool(planar), find_padding(before), bool(told.get("whole_image", False)))
    recorded = [said] if said and not before.channel_types else said.get("channels", [])
    if window is None and modality is None and len(recorded) == len(before.parts()):
        windows = tuple(choose_window(part, regions, given=own["window"]) for part, own in zip(before.parts(), recorded, strict=True))
    else:
        windows = choose_windows(before, regions, modality, window)
    statistics = measure(before, after, regions, windows, record.get("bound"))
    return Verification(statistics, tuple(_findings(statistics, record, Path(protected), after)), notices + resampled)


def _comparable(before: Volume, after: Volume, protected: Path) -> None:
    if before.array.shape != after.array.shape or not before.geometry.same_grid(after.geometry):
        raise MedProtectError(
            f"{protected}: not on the original's grid ({before.array.shape} against {after.array.shape}). Are these the right files?"
        )
    if before.array.dtype != after.array.dtype:
        raise MedProtectError(
            f"{protected}: stored as {after.array.dtype}, the original as {before.array.dtype}. It was converted after protecting."
        )


def _record_beside(protected: Path) -> dict[str, Any]:
    name, marker, _ = protected.name.rpartition("_protected")
    record = protected.with_name(name + RECORD)
    if not marker or not record.is_file():
        return {}
    content = read_json(record, DAMAGED)
    if not _is_well_formed(content):
        raise MedProtectError(f"{record}: {DAMAGED}")
    return content


def _is_well_formed(record: dict[str, Any]) -> bool:
    """Whether what is used of a record has the types that it must have; anybody may have written the file."""
    said, told = record.get("statistics", {}), record.get("regions", {})
    if not (isinstance(said, dict) and isinstance(told, dict) and isinstance(said.get("channels", []), list)):
        return False
    windows = [own.get("window") if isinstance(own, dict) else None for own in ([said] if said else []) + said.get("channels", [])]
    width, numbers = told.get("half_width_voxels", HALF_WIDTH), [record.get("bound"), said.get("psnr_db")]
    return (
        all(isinstance(w, list) and len(w) == 2 and all(_is_number(v) for v in w) and w[0] < w[1] for w in windows)
        and type(width) is int
        and 0 <= width <= LARGEST_HALF_WIDTH
        and all(value is None or _is_number(value) for value in numbers)
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _findings(statistics: Statistics, record: dict[str, Any], protected: Path, after: Volume) -> list[str]:
    findings = []
    if statistics.changed_voxels == 0:
        findings.append("not a single voxel differs: this image is not protected")
    if statistics.changed_outside_regions:
        findings.append(f"{statistics.changed_outside_regions} voxels outside the interior and the contour band differ")
    if statistics.epsilon is not None and statistics.max_abs_change[0] > statistics.epsilon * BOUND_ROUNDING:
        findings.append(f"the largest change of {statistics.max_abs_change[0]:.5f} exceeds the bound of {statistics.epsilon:.5f}")
    if record and record.get("protected_sha256") != sha256_image(protected, after.source):
        findings.append("the file is not the one that its record describes (SHA-256 differs)")
    if "protected_voxels_sha256" in record and record["protected_voxels_sha256"] != sha256_voxels(after.array):
        findings.append("its voxels changed since the record was written")
    said = record.get("statistics", {}).get("psnr_db")
    if said is not None and (statistics.psnr_db is None or not np.isclose(said, statistics.psnr_db, atol=0.01)):
        findings.append(f"the record says {said:.2f} dB PSNR, the files have {statistics.psnr_db or float('inf'):.2f}")
    return findings
