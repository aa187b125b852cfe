"""One case from file to file: read, protect, write, measure what was written, record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import extension_of, labels_or_class, read_volume, sha256_file, sha256_voxels, stem_of, write_volume
from MedProtectLib.progress import Progress, Report, ignore
from MedProtectLib.protector import Protection, Protector
from MedProtectLib.records import LIMITS, private_record, shareable_record, write_json
from MedProtectLib.staging import Destination, Staged, plan_destination, staged
from MedProtectLib.statistics import Statistics, measure
from MedProtectLib.volume import Volume

if TYPE_CHECKING:
    from MedProtectLib.report import ReportContent

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
) -> ProtectJob:
    """Protect one image on disk; for classification ``labels`` is None and the image's class given.

    Writes ``<name>_protected.<ext>`` and ``<name>_record.json`` into ``output``, and the perturbation, the private record, the
    report and the overlay picture into ``private`` (``<output>_private`` when None). All of it appears, or nothing.

    Raises:
        MedProtectError: bad input, or an output that cannot be written.
    """
    image, labels = Path(image), None if labels is None else Path(labels)
    inputs = [image] if labels is None else [image, labels]
    destination = plan_destination(stem_of(image), inputs, Path(output), None if private is None else Path(private), overwrite)

    def at(step: str) -> None:
        report(Progress(step, STEPS.index(step), len(STEPS)))

    at("read")
    volume = read_volume(image)
    label_map = labels_or_class(volume, labels, segments, image_class)
    at("protect")
    protection = protector.protect(volume, label_map, report)
    with staged(destination) as stage:
        at("write")
        protected = stage.output / f"{destination.name}_protected{extension_of(image)}"
        stored = write_and_reread(protection.volume, protected)
        at("measure")
        statistics = measure(volume, stored, protection.regions, protection.window, protection.bound)
        shared = {"case": destination.name, "protected_file": protected.name, "protected_sha256": sha256_file(protected)}
        shared["protected_voxels_sha256"] = sha256_voxels(stored.array)
        originals = {
            "original_file": image.name,
            "original_sha256": sha256_file(image),
            "original_voxels_sha256": sha256_voxels(volume.array),
        }
        labelled = {"image_class": str(image_class)}
        if labels is not None:
            labelled = {"labels_file": labels.name, "labels_sha256": sha256_file(labels)}
        record = shareable_record(protection, statistics, shared)
        kept = private_record(protection, shared | originals | labelled, segments, protector.seed_for(protection.profile))
        at("report")
        _write_private(stage, destination, protection, stored, statistics, kept)
        write_json(stage.output / destination.record.name, record)
    return ProtectJob(destination.output / protected.name, destination.record, destination.private, record, statistics, protection)


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
    stage: Staged, destination: Destination, protection: Protection, stored: Volume, statistics: Statistics, record: dict[str, Any]
) -> None:
    from MedProtectLib.report import write_overlay, write_report

    perturbation = protection.regions.on_grid(protection.counts, protection.volume.geometry.shape)
    write_volume(Volume(perturbation, protection.volume.geometry, "perturbation"), stage.private / f"{destination.name}_perturbation.nrrd")
    write_json(stage.private / f"{destination.name}_private_record.json", record)
    content = report_content(protection, stored, statistics, record)
    write_report(stage.private / f"{destination.name}_report.html", content)
    write_overlay(stage.private / f"{destination.name}_overlay.png", content)


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
