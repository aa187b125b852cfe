"""Measure an original and its protected version as they lie on disk, without believing any record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedProtectLib.checks import check_bound
from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import labels_or_class, read_volume, sha256_voxels
from MedProtectLib.io.resample import on_grid_of
from MedProtectLib.levels import BOUND_ROUNDING, find_padding
from MedProtectLib.recorded import Recorded, record_of
from MedProtectLib.regions import HALF_WIDTH, find_regions
from MedProtectLib.release.already import check_file
from MedProtectLib.statistics import Statistics, measure
from MedProtectLib.volume import Volume
from MedProtectLib.window import choose_window, choose_windows


@dataclass(frozen=True)
class Verification:
    """What two files show: the statistics and, in ``findings``, everything that a protected file must not do.

    ``record`` is the file whose hash the protected file was held against, None where there is no record.
    """

    statistics: Statistics
    findings: tuple[str, ...]
    notices: tuple[str, ...]
    record: Path | None


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
    bound: float | None = None,
) -> Verification:
    """Compare two files. With a record of the protected file its window, bound, padding and regions are used, and checked.

    The record lies beside the file, or is among those of the release that the file lies in. ``bound`` is the largest change to
    allow in any case. For classification ``labels`` is None and the image's class given. ``series`` names one of several DICOM
    series in a folder.

    Raises:
        MedProtectError: the files cannot be read or compared, or the original is a protected file. UsageError: a bad ``bound``.
    """
    check_bound(bound)
    before, after = read_volume(original, series), read_volume(protected)
    check_file(Path(original), before)
    _comparable(before, after, Path(protected))
    found = record_of(Path(protected))
    record = {} if found is None else found.content
    if "padding" in record:
        before = before.with_padding(*record["padding"])
    limits = [limit for limit in (bound, record.get("bound")) if limit is not None]
    notices = _notices(Path(protected), found, bool(limits))
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
    statistics = measure(before, after, regions, windows, min(limits, default=None))
    findings = tuple(_findings(statistics, found, Path(protected), after))
    return Verification(statistics, findings, notices + resampled, None if found is None else found.path)


def _notices(protected: Path, found: Recorded | None, bounded: bool) -> tuple[str, ...]:
    """What is not checked where there is no record."""
    if found is not None:
        return ()
    unchecked = "its hash is" if bounded else "neither its hash nor its bound (see --bound) is"
    where = "no record of it lies beside it or in a release above it"
    return (f"{protected}: {where}: {unchecked} {'not ' if bounded else ''}checked; window and regions are found anew.",)


def _comparable(before: Volume, after: Volume, protected: Path) -> None:
    if before.array.shape != after.array.shape or not before.geometry.same_grid(after.geometry):
        raise MedProtectError(
            f"{protected}: not on the original's grid ({before.array.shape} against {after.array.shape}). Are these the right files?"
        )
    if before.array.dtype != after.array.dtype:
        raise MedProtectError(
            f"{protected}: stored as {after.array.dtype}, the original as {before.array.dtype}. It was converted after protecting."
        )


def _findings(statistics: Statistics, found: Recorded | None, protected: Path, after: Volume) -> list[str]:
    findings, record = [], {} if found is None else found.content
    if statistics.changed_voxels == 0:
        findings.append("not a single voxel differs: this image is not protected")
    if statistics.changed_outside_regions:
        findings.append(f"{statistics.changed_outside_regions} voxels outside the interior and the contour band differ")
    if statistics.epsilon is not None and statistics.max_abs_change[0] > statistics.epsilon * BOUND_ROUNDING:
        findings.append(f"the largest change of {statistics.max_abs_change[0]:.5f} exceeds the bound of {statistics.epsilon:.5f}")
    if found is not None and not found.describes(protected, after.source):
        findings.append("the file is not the one that its record describes (SHA-256 differs)")
    if "protected_voxels_sha256" in record and record["protected_voxels_sha256"] != sha256_voxels(after.array):
        findings.append("its voxels changed since the record was written")
    said = record.get("statistics", {}).get("psnr_db")
    if said is not None and (statistics.psnr_db is None or not np.isclose(said, statistics.psnr_db, atol=0.01)):
        findings.append(f"the record says {said:.2f} dB PSNR, the files have {statistics.psnr_db or float('inf'):.2f}")
    return findings
