"""What a release would do: its cases, what is decided about each, how long it takes and how much disk. Nothing is written."""

from __future__ import annotations

import math
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import labels_or_class
from MedProtectLib.job import report_content
from MedProtectLib.progress import Report, Stage, ignore
from MedProtectLib.protector import Protector
from MedProtectLib.records import private_record
from MedProtectLib.release.case import ReleaseCase
from MedProtectLib.release.fingerprints import Fingerprints
from MedProtectLib.release.inventory import take_inventory
from MedProtectLib.release.layouts import find_layout
from MedProtectLib.release.ledger import COPIED, FAILED, OK, QUARANTINED
from MedProtectLib.release.make import read_case_image, read_original, went_out
from MedProtectLib.release.opening import check
from MedProtectLib.release.process import committed, hashed_inputs, judged
from MedProtectLib.release.run import Workforce
from MedProtectLib.release.settings import Settings
from MedProtectLib.release.versions import check_frozen
from MedProtectLib.statistics import measure

if TYPE_CHECKING:
    from MedProtectLib.release.keys import Key

SAMPLES = 5
FASTEST = 1
MOST_LEFT_OUT = 50


@dataclass(frozen=True)
class CasePlan:
    """What would become of a case: ``voxels`` in all, ``touched`` ones, ``levels`` that the bound spans, ``bytes`` of its files."""

    case: str
    status: str
    bytes: int
    reason: str = ""
    grid: tuple[int, ...] = ()
    voxels: int = 0
    touched: int = 0
    levels: float = 0.0
    warnings: tuple[str, ...] = ()

    def line(self) -> str:
        """One line for people."""
        if self.reason:
            return f"  {self.case}: {self.status}: {self.reason}"
        if self.status == COPIED:
            return f"  {self.case}: no labels, goes out UNPROTECTED"
        size = "x".join(map(str, self.grid))
        notes = "".join(f"\n      {warning}" for warning in self.warnings)
        return f"  {self.case}: {size}, {self.touched / self.voxels:.1%} of the voxels may change, by up to {self.levels:.1f} levels{notes}"


@dataclass(frozen=True)
class Sample:
    """What protecting one case took: seconds, and bytes in the shareable and the private root."""

    case: str
    input_bytes: int
    seconds: float
    shared_bytes: int
    private_bytes: int


@dataclass
class Plan:
    """``left_out`` are files of the dataset that belong to no case and would stay behind; ``withdrawn`` such cases."""

    layout: str
    jobs: int
    cases: list[CasePlan] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    objects_withheld: int = 0

    @property
    def counts(self) -> Counter[str]:
        return Counter(case.status for case in self.cases)

    @property
    def complete(self) -> bool:
        """Whether every case would go out, with everything that belongs to it as far as its files tell."""
        return not (self.counts[QUARANTINED] or self.counts[FAILED] or self.objects_withheld)

    def _scaled(self, measured: float) -> float:
        """What the samples took, for the bytes of all cases that would be protected."""
        sampled = sum(sample.input_bytes for sample in self.samples)
        return measured / sampled * sum(case.bytes for case in self.cases if case.status == OK) if sampled else 0.0

    @property
    def seconds(self) -> float:
        """For all cases, with the jobs asked for."""
        return self._scaled(sum(sample.seconds for sample in self.samples)) / max(1, self.jobs)

    @property
    def shared_bytes(self) -> int:
        copied = sum(case.bytes for case in self.cases if case.status == COPIED)
        return copied + int(self._scaled(sum(sample.shared_bytes for sample in self.samples)))

    @property
    def private_bytes(self) -> int:
        return int(self._scaled(sum(sample.private_bytes for sample in self.samples)))

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.complete,
            "dry_run": True,
            "layout": self.layout,
            "cases": [asdict(case) for case in self.cases],
            "counts": dict(self.counts),
            "objects_withheld": self.objects_withheld,
            "left_out": self.left_out,
            "estimate": {
                "seconds": round(self.seconds, 1),
                "jobs": self.jobs,
                "shareable_bytes": self.shared_bytes,
                "private_bytes": self.private_bytes,
                "samples": [asdict(sample) for sample in self.samples],
            },
        }

    def case_lines(self) -> Iterator[str]:
        """One line a case."""
        yield from (case.line() for case in self.cases)

    def rows(self) -> Iterator[tuple[str, str]]:
        """The summary: label and value."""
        yield "layout", self.layout
        yield "cases", ", ".join(f"{count} {status}" for status, count in self.counts.items())
        if self.left_out:
            more = "" if len(self.left_out) <= MOST_LEFT_OUT else ", ..."
            yield "stays behind", ", ".join(self.left_out[:MOST_LEFT_OUT]) + more
        if self.samples:
            yield "time", f"about {self.seconds / 60:.1f} min with {max(1, self.jobs)} jobs (measured on {len(self.samples)} cases)"
            yield "disk, shareable", f"about {self.shared_bytes / 2**20:.1f} MB"
            yield "disk, private", f"about {self.private_bytes / 2**20:.1f} MB"
        yield "written", "nothing: this was a dry run"


def dry_run(settings: Settings, workforce: Workforce, report: Report = ignore, resume: bool = False, key: Key | None = None) -> Plan:
    """Check what a run would check, plan every case and protect a few in memory.

    ``resume``: of a release that is begun already. ``key``: that of the vault, None where it is not known yet.

    Raises:
        MedProtectError: the roots, the dataset, a file about it or the profile cannot be used, or another release is in the roots.
    """
    check(settings, resume, key)
    layout, protector = find_layout(Path(settings.dataset)), settings.protector()
    inventory = take_inventory(layout, settings, write=False)
    plan, stage = Plan(layout.name, workforce.jobs), Stage("plan", inventory.cases, report)
    cases = {case.name: case for case in layout.cases() if case.name not in settings.withdrawn}
    released = Fingerprints(case.image.target for case in cases.values())
    released.sort()
    layout.rewritten(released)
    held: dict[str, tuple[str, str]] = {}
    for case in cases.values():
        plan.cases.append(_planned(settings, protector, case, held))
        plan.objects_withheld += len(case.withheld)
        stage.at(len(plan.cases), case.name)
    for name in _spread(sorted((c for c in plan.cases if c.status == OK), key=lambda c: c.bytes)):
        plan.samples.append(_sampled(settings, protector, cases[name]))
    plan.left_out = layout.left_out()
    return plan


def _spread(cases: list[CasePlan]) -> list[str]:
    """Names of a few cases from the smallest to the largest."""
    count = min(SAMPLES, len(cases))
    return [cases[round(n * (len(cases) - 1) / max(1, count - 1))].case for n in range(count)]


def _planned(settings: Settings, protector: Protector, case: ReleaseCase, held: dict[str, tuple[str, str]]) -> CasePlan:
    """``held``: the case and its labels by the image's voxels, of the cases so far."""
    size = 0
    try:
        size = _bytes(settings, case)
        return _allowed(settings, protector, case, held, size)
    except Exception as error:
        status, _, reason = judged(error, settings.roots)
        return CasePlan(case.name, status, size, reason)


def _allowed(settings: Settings, protector: Protector, case: ReleaseCase, held: dict[str, tuple[str, str]], size: int) -> CasePlan:
    """The plan of a case that would go out.

    Raises:
        MedProtectError: it would not.
    """
    inputs = hashed_inputs(settings, case)
    for target in case.targets:
        settings.roots.target(target)
    committed(settings, case, inputs)
    volume, voxels = read_original(settings, case, inputs)
    before, identity = went_out(settings, case, voxels), case.label_identity(inputs)
    labels = labels_or_class(volume, _labels_path(settings, case), settings.segments, case.image_class) if case.labelled else None
    other, others_labels = held.setdefault(voxels, (case.name, identity))
    if others_labels != identity:
        raise MedProtectError(f"the image is the same as that of case '{other}', with other labels: only one of them would go out.")
    if labels is None:
        return CasePlan(case.name, COPIED, size)
    plan = protector.plan(volume, labels)
    if before is not None and settings.earlier is not None:
        check_frozen(before, settings.earlier, protector, volume, labels, identity)
    parts = zip(volume.parts(), plan.windows, plan.levels, strict=True)
    levels = min(plan.bound * window.width / (found.step * abs(part.slope)) for part, window, found in parts)
    touched = int(plan.regions.touched.sum())
    voxels_in_all = math.prod(volume.geometry.size)
    notes = (*plan.notices, *plan.warnings, *case.withheld)
    return CasePlan(case.name, OK, size, "", volume.geometry.size, voxels_in_all, touched, levels, notes)


def _sampled(settings: Settings, protector: Protector, case: ReleaseCase) -> Sample:
    """Protect a case in memory, pack it, measure it and draw its report, with a clock running."""
    began = time.monotonic()
    volume = read_case_image(settings.root, case)
    labels = labels_or_class(volume, _labels_path(settings, case), settings.segments, case.image_class)
    protection = protector.protect(volume, labels)
    before, after = (len(zlib.compress(v.array.tobytes(), FASTEST)) for v in (volume, protection.volume))
    perturbation = len(zlib.compress(protection.counts.tobytes(), FASTEST)) if settings.vault else 0
    statistics = measure(volume, protection.volume, protection.regions, protection.windows, protection.bound)
    about = dict.fromkeys(("original_file", "original_sha256", "labels_file", "labels_sha256", "protected_file", "protected_sha256"), "")
    record = private_record(protection, about, settings.segments)
    pictures = 0
    for part, stored, measured in zip(protection.parts(), protection.volume.parts(), statistics.channels or (statistics,), strict=True):
        pictures += _drawn(report_content(part, stored, measured, record), settings.reports)
    seconds = time.monotonic() - began
    image = sum(p.stat().st_size for p in _image_paths(settings, case) if p.is_file())
    size = _bytes(settings, case)
    return Sample(case.name, size, seconds, int(image * after / before) + size - image, perturbation + pictures)


def _drawn(content: Any, reports: bool) -> int:
    """Bytes of the pictures of a case."""
    from MedProtectLib.report.figures import overlay
    from MedProtectLib.report.html import render

    return len(overlay(content)) + (len(render(content).encode()) if reports else 0)


def _image_paths(settings: Settings, case: ReleaseCase) -> list[Path]:
    return [settings.root / item.source for item in case.image_files]


def _labels_path(settings: Settings, case: ReleaseCase) -> Path | None:
    return None if case.labels is None else settings.root / case.labels


def _bytes(settings: Settings, case: ReleaseCase) -> int:
    total = 0
    for source in case.sources:
        path = settings.root / source
        total += sum(p.stat().st_size for p in path.iterdir()) if path.is_dir() else path.stat().st_size if path.is_file() else 0
    return total
