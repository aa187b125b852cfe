"""One case from file to file: read, protect, write, measure what was written, record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedProtectLib.checks import check_key
from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.io import (
    case_name,
    channel_files,
    data_of,
    labels_or_class,
    read_volume,
    sha256_files,
    sha256_image,
    sha256_path,
    sha256_voxels,
    write_volume,
)
from MedProtectLib.progress import Progress, Report, ignore
from MedProtectLib.protection import Protection
from MedProtectLib.protector import Protector
from MedProtectLib.records import LIMITS, private_record, shareable_record, write_json
from MedProtectLib.release.already import check_file
from MedProtectLib.staging import PROTECTED, Destination, Staged, plan_destination, staged
from MedProtectLib.statistics import Statistics, measure
from MedProtectLib.volume import Volume

if TYPE_CHECKING:
    from MedProtectLib.release.keys import Key
    from MedProtectLib.report import ReportContent

NOT_IN_NAMES = re.compile(r"[^\w.-]+")
STEPS = ("read", "protect", "write", "measure", "report")


@dataclass(frozen=True)
class ProtectJob:
    """What became of one case: where its files are, its record and the protection in memory."""

    protected: Path
    record_path: Path
    private: Path
    record: dict[str, Any]
    statistics: Statistics
    protection: Protection


def protect_file(
    image: str | Path,
    labels: str | Path | None,
    output: str | Path,
    protector: Protector,
    segments: Sequence[str] = (),
    private: str | Path | None = None,
    overwrite: bool = False,
    report: Report = ignore,
    image_class: str | None = None,
    series: str | None = None,
    key: Key | None = None,
    padding: Sequence[float] | None = None,
    photograph: bool = False,
) -> ProtectJob:
    """Protect one image on disk; for classification ``labels`` is None and the image's class given.

    ``series`` names one of several DICOM series in a folder, and then becomes a part of the case's name.
    Writes ``<name>_protected.<ext>``, for a DICOM series the folder ``<name>_protected``, and ``<name>_record.json`` into ``output``,
    and the perturbation, the private record, the report and the overlay picture into ``private`` (``<output>_private`` when None).
    What the file cannot say: ``padding``, the first and the last stored value that stand for no picture; ``photograph``, that it is an
    8-bit picture.
    With ``key`` the perturbation goes into an entry of the restore vault, ``<name>_perturbation.medvault``, under the name of the
    ``output`` folder as that of the release. All of it appears, or nothing.

    Raises:
        MedProtectError: bad input, an image that was protected before, or an output that cannot be written. UsageError: no Protector, or no
            key where one is given.
    """
    if not isinstance(protector, Protector):
        raise UsageError(
            f"the protector is a {type(protector).__name__}: give a Protector, such as Protector() or Protector.from_profile(...)."
        )
    if key is not None:
        check_key(key)
    image, labels = Path(image), None if labels is None else Path(labels)
    named = [*(channel_files(image) or (image,)), *([] if labels is None else [labels])]
    inputs = [*named, *(second[0] for file in named if (second := data_of(file)) is not None)]
    name = case_name(image) if series is None else f"{case_name(image)}_{NOT_IN_NAMES.sub('-', series)}"
    destination = plan_destination(name, inputs, Path(output), None if private is None else Path(private), overwrite)

    def at(step: str) -> None:
        report(Progress(step, STEPS.index(step), len(STEPS)))

    at("read")
    volume = read_volume(image, series)
    check_file(image, volume)
    if padding is not None:
        volume = volume.with_padding(*padding)
    if photograph:
        volume = _as_photograph(volume)
    label_map = labels_or_class(volume, labels, segments, image_class)
    at("protect")
    protection = protector.protect(volume, label_map, report)
    with staged(destination) as stage:
        at("write")
        protected = stage.output / f"{destination.name}_{PROTECTED}{volume.source.extension}"
        stored = write_and_reread(protection.volume, protected)
        at("measure")
        statistics = measure(volume, stored, protection.regions, protection.windows, protection.bound)
        shared = {
            "case": destination.name,
            "protected_file": protected.name,
            "protected_sha256": sha256_image(protected, stored.source),
            "protected_voxels_sha256": sha256_voxels(stored.array),
            **({} if padding is None else {"padding": list(padding)}),
        }
        originals = {
            "original_file": image.name or image.resolve().name,
            "original_sha256": sha256_of_image(image, volume),
            "original_voxels_sha256": sha256_voxels(volume.array),
        }
        labelled = {"image_class": str(image_class)}
        if labels is not None:
            labelled = {"labels_file": labels.name, "labels_sha256": sha256_path(labels)}
        record = shareable_record(protection, statistics, shared)
        kept = private_record(protection, shared | originals | labelled, segments)
        at("report")
        _write_private(stage, destination, protection, stored, statistics, kept, key)
        write_json(stage.output / destination.record.name, record)
    return ProtectJob(destination.output / protected.name, destination.record, destination.private, record, statistics, protection)


def _as_photograph(volume: Volume) -> Volume:
    if volume.array.dtype != np.uint8:
        raise MedProtectError(f"{volume.name}: this is stored as {volume.array.dtype}, and a photograph has 8 bits. Leave that option out.")
    kinds = tuple(replace(kind, photograph=True) for kind in volume.channel_types)
    return replace(volume, photograph=True, channel_types=kinds)


def sha256_of_image(image: Path, volume: Volume) -> str:
    """SHA-256 of the image's files, or of those files of a folder that belong to its DICOM series."""
    if volume.source.extension:
        return sha256_image(image, volume.source)
    return sha256_files(volume.source.files, image if image.is_dir() else image.parent)


def write_and_reread(volume: Volume, path: Path) -> Volume:
    """Write a volume and return it as the file holds it.

    Raises:
        MedProtectError: the file does not give back the voxels that were written.
    """
    write_volume(volume, path)
    stored = read_volume(path)
    if not np.array_equal(stored.array, volume.array) or not stored.geometry.same_grid(volume.geometry):
        raise MedProtectError(f"{path.name}: the file does not hold what was written to it. The disk may be faulty; nothing was kept.")
    return stored


def _write_private(
    stage: Staged,
    destination: Destination,
    protection: Protection,
    stored: Volume,
    statistics: Statistics,
    record: dict[str, Any],
    key: Key | None,
) -> None:
    if key is None:
        perturbation = protection.regions.on_grid(protection.counts, protection.volume.geometry.shape)
        changes = Volume(perturbation, protection.volume.geometry, "perturbation")
        write_volume(changes, stage.private / f"{destination.name}_perturbation.nrrd")
    else:
        from MedProtectLib.release.vault import SUFFIX, seal

        entry = seal(protection.original, stored, key, destination.output.resolve().name, destination.name)
        entry.save(stage.private, f"{destination.name}_perturbation{SUFFIX}")
    write_json(stage.private / f"{destination.name}_private_record.json", record)
    write_pictures(stage.private, f"{destination.name}_", protection, stored, statistics, record)


def write_pictures(
    folder: Path, prefix: str, protection: Protection, stored: Volume, statistics: Statistics, record: dict[str, Any], pages: bool = True
) -> None:
    """Write ``<prefix>overlay.png`` and, with ``pages``, ``<prefix>report.html``; numbered ones where every channel is an image.

    Raises:
        MedProtectError: a file cannot be written.
    """
    from MedProtectLib.report import write_overlay, write_report

    parts = zip(protection.parts(), stored.parts(), statistics.channels or (statistics,), strict=True)
    for number, (part, after, measured) in enumerate(parts):
        which = f"_{number:04d}" if statistics.channels else ""
        content = report_content(part, after, measured, record)
        if pages:
            write_report(folder / f"{prefix}report{which}.html", content)
        write_overlay(folder / f"{prefix}overlay{which}.png", content)


def report_content(protection: Protection, stored: Volume, statistics: Statistics, record: dict[str, Any]) -> ReportContent:
    """What the report of a case shows: the images, the change by component, and all that was decided."""
    from MedProtectLib.report import ReportContent

    window, profile = protection.window, protection.profile
    labels = f"{record['labels_file']}, SHA-256 {record['labels_sha256']}" if "labels_file" in record else f"class {record['image_class']}"
    target = "none: the full bound" if protection.target_psnr is None else f"{protection.target_psnr:g} dB"
    settings = {
        "Method": profile.method,
        "Profile": f"{'public' if profile.public else 'own'}, SHA-256 {record['profile']['sha256']}",
        "Segments": ", ".join(record["segments"]) or "all",
        "Bound": f"{protection.bound * 255:.3g}/255 of the window ({protection.bound * window.width:.3g} {window.unit})",
        "Target PSNR": target,
        "Intensity window": f"{window.low:g} to {window.high:g} {window.unit} ({window.rule})",
        "Unit": window.unit,
        "Stored level": f"{protection.step:g} stored units",
        "Seed": str(record["seed"]),
        "Original": f"{record['original_file']}, SHA-256 {record['original_sha256']}",
        "Labels": labels,
        "Protected": f"{record['protected_file']}, SHA-256 {record['protected_sha256']}",
        "MedProtect": record["medprotect"],
    }
    return ReportContent(
        original=protection.original,
        protected=stored,
        components=protection.components,
        regions={name: protection.components.where(name) for name in protection.components},
        window=(window.low, window.high),
        statistics=statistics.as_record(),
        settings=settings,
        warnings=[*protection.notices, *protection.warnings],
        limits=LIMITS,
    )
