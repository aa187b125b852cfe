"""The runs of an audit: planned, trained one after the other, each kept as a row as soon as it is finished."""

from __future__ import annotations

import hashlib
import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch

from MedProtectLib.audit.data import SPLITS, TEST, TRAIN, VALIDATION, AuditData, Sample
from MedProtectLib.audit.defences import public_like
from MedProtectLib.audit.nnunet import NNUNET, check_nnunet, train_nnunet
from MedProtectLib.audit.regimes import Knowledge
from MedProtectLib.audit.registry import regime_of
from MedProtectLib.audit.releases import CLEAN, PROFILE, RELEASED, Release, Releases, check_method
from MedProtectLib.audit.rows import CLEAN_PART, Row, RowFile, Run, compared, run_of
from MedProtectLib.audit.scoring import Scores, constant_score, mean_over
from MedProtectLib.audit.training import score, train_victim
from MedProtectLib.audit.victims import victim_for
from MedProtectLib.device import process_device
from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.fitting.dataset import CaseFiles, image_hashes
from MedProtectLib.io import sha256_file
from MedProtectLib.methods.base import CLASSIFICATION
from MedProtectLib.progress import Progress, Report, ignore
from MedProtectLib.protector import Protector
from MedProtectLib.version import __version__

DIGITS = 4
LOG = logging.getLogger(__name__)


def _check_images(data: AuditData, public: AuditData | None) -> None:
    """Raises MedProtectError where an image is in two of the lists, UsageError where one of the public data is in any, by its content."""
    known: dict[str, CaseFiles] = {}
    for split in SPLITS:
        files_of_split = [case.files for case in data.cases[split]]
        contents = image_hashes(files_of_split, cache(sha256_file))
        for files, content in zip(files_of_split, contents, strict=True):
            if content in known:
                raise MedProtectError(
                    f"{files.image}: case '{files.name}' in '{split}' has the image of case '{known[content].name}', which is in another "
                    "list. Who is trained on it must not be scored on it: take one of them out."
                )
        known |= dict(zip(contents, files_of_split, strict=True))
    if public is None:
        return
    for files, content in zip(public.files, image_hashes(public.files, cache(sha256_file)), strict=True):
        if content in known:
            raise UsageError(
                f"{files.image}: the public case '{files.name}' is the case '{known[content].name}' of the audited data, which an attacker "
                "does not have. Give another data set with --public."
            )


@dataclass(frozen=True)
class Experiment:
    """Which runs an audit is made of. ``releases`` holds the data and the bound; ``public`` another clean data set or None."""

    releases: Releases
    methods: Sequence[str]
    victims: Sequence[str]
    regimes: Sequence[str]
    seeds: Sequence[int]
    shares: Sequence[float] = (1.0,)
    steps: int | None = None
    public: AuditData | None = field(default=None, repr=False)

    @property
    def data(self) -> AuditData:
        return self.releases.data

    def check(self) -> None:
        """Raises UsageError for a name, a number or a combination that there is not, before anything is trained; MedProtectError for
        lists without a label.

        The bound and the PSNR target are checked by the protector that they are for.
        """
        for method in self.methods:
            check_method(method, self.data, self.releases.profiles, self.releases.folders)
        for victim in self.victims:
            if victim == NNUNET:
                for regime in self.regimes:
                    check_nnunet(self.data, regime)
            else:
                victim_for(victim, self.data.task)
        for regime in self.regimes:
            for require in regime_of(regime).requires:
                require(Knowledge(self.data, (), self.public, self.data.setting.victim, 0))
        _check_images(self.data, self.public)
        cases = sum(case.labelled for case in self.data.cases[TRAIN])
        for share in self.shares:
            protected = round(share * cases)
            if share != 1 and not 1 <= protected < cases:
                raise UsageError(
                    f"share {share:g}: that protects {protected} of {cases} labelled training cases. "
                    f"Give 1/{cases} to {cases - 1}/{cases}, or 1."
                )
        for split in SPLITS:
            if not any(case.labelled for case in self.data.cases[split]):
                raise MedProtectError(f"none of the {len(self.data.cases[split])} cases in '{split}' has a label: nothing can be scored.")
            if self.data.task == CLASSIFICATION and len(self.data.classes) - len(self.absent_from(split)) < 2:
                raise MedProtectError(
                    f"all cases in '{split}' are of one class: nothing tells classes apart. Take cases of another class in."
                )
        for option, steps in (("--steps", self.steps), ("--fit-steps", self.releases.fit_steps)):
            if steps is not None and steps < 1:
                raise UsageError(f"{option} {steps}: give at least 1.")
        Protector(bound=self.releases.bound, target_psnr=self.releases.target_psnr)

    def absent_from(self, split: str) -> list[str]:
        """The classes of whole images that a list has no case of."""
        there = {int(case.target) for case in self.data.cases[split]}
        return [str(name) for number, name in enumerate(self.data.classes) if number not in there]

    @cached_property
    def runs(self) -> list[Run]:
        """Every run with its twins before it; seed after seed, so that the tables mean something early."""
        wanted = [
            Run(
                dataset=self.data.name,
                victim=victim,
                regime=regime,
                method=method,
                seed=seed,
                steps=self.steps or self.data.setting.steps,
                epsilon=self.releases.bound,
                target_psnr_db=self.releases.target_psnr,
                share=share,
            )
            for seed in self.seeds
            for victim in self.victims
            for regime in self.regimes
            for method in self.methods
            for share in (self.shares if method != CLEAN else (1.0,))
        ]
        ordered: dict[str, Run] = {}
        for run in wanted:
            run = run.clean_twin if run.method == CLEAN else run
            for each in (*run.needs, run):
                ordered.setdefault(each.key, each)
        return list(ordered.values())


def run_experiment(experiment: Experiment, rows: RowFile, report: Report = ignore) -> Iterator[Row]:
    """Do the runs that the file does not hold yet and yield their rows, each after it is on disk.

    Raises:
        UsageError: as :meth:`Experiment.check`. MedProtectError: rows of other data, files or settings in the file, cases that cannot
            be used.
    """
    experiment.check()
    _check_same(experiment, rows, report)
    for split in SPLITS if experiment.data.task == CLASSIFICATION else ():
        if absent := experiment.absent_from(split):
            LOG.warning("no case in '%s' is of class %s: its scores are of the other classes.", split, ", ".join(absent))
    open_runs = [run for run in experiment.runs if run not in rows]
    meter = _Meter(sum(run.steps for run in open_runs), report)
    test = experiment.data.samples(TEST)
    for run in open_runs:
        release = experiment.releases.of(CLEAN if run.method == CLEAN_PART else run.method, meter.aside)
        _check_release(run, release, rows)
        row = _row(run, experiment, release, test, rows, meter)
        rows.append(row)
        meter.finished(run.steps)
        yield row


def _circumstances(experiment: Experiment) -> dict[str, Any]:
    """What must be equal for rows to stand in one table."""
    data, releases = experiment.data, experiment.releases
    setting = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(data.setting).items()}
    return {"data_sha256": data.sha256, "setting": setting, "fit_steps": releases.fit_steps, "fit_seed": releases.fit_seed}


def _public(run: Run, experiment: Experiment) -> dict[str, str]:
    """Names the public data of a run that uses them."""
    public = experiment.public
    return {} if public is None or public_like not in regime_of(run.regime).requires else {"public_sha256": public.sha256}


def _check_same(experiment: Experiment, rows: RowFile, report: Report) -> None:
    """Rows of the data set that were made otherwise, with other public data or from other files do not mix with those of now."""
    now = _circumstances(experiment)
    for row in rows.rows.values():
        if row["dataset"] == experiment.data.name:
            _check_equal(rows, row, {name: (row.get(name), value) for name, value in now.items()})
    finished = [run for run in experiment.runs if run in rows]
    for run in finished:
        public = _public(run, experiment)
        _check_equal(rows, rows[run], {name: (rows[run].get(name, value), value) for name, value in public.items()})
    for method in {run.method for run in finished if run.method.startswith((PROFILE, RELEASED))}:
        given = experiment.releases.of(method, report).sha256
        for run in finished:
            if run.method == method:
                _check_equal(rows, rows[run], {"release_sha256": (rows[run].get("release_sha256"), given)})


def _check_release(run: Run, release: Release, rows: RowFile) -> None:
    """Rows of a method at one bound are of one fit, or of those that the file mixes already."""
    same = [row for row in rows.rows.values() if run_of(row).release_key == run.release_key and "release_sha256" in row]
    if same and release.sha256 not in {row["release_sha256"] for row in same}:
        _check_equal(rows, same[-1], {"release_sha256": (same[-1]["release_sha256"], release.sha256)})


def _check_equal(rows: RowFile, row: Row, values: Mapping[str, tuple[object, object]]) -> None:
    different = [name for name, (then, now) in values.items() if then != now]
    if different:
        raise MedProtectError(f"{rows.path}: the row {row['key']} was made with another {different[0]}. Use another output for this audit.")


def _row(run: Run, experiment: Experiment, release: Release, test: Sequence[Sample], rows: RowFile, meter: _Meter) -> Row:
    data, began = experiment.data, time.monotonic()
    samples, protected = training_samples(data, release, run)
    report = meter.within(run)
    if run.victim == NNUNET:
        trained = train_nnunet(data, samples, run.seed, run.steps, report)
    else:
        trained = train_victim(data, samples, regime_of(run.regime), run.victim, run.seed, run.steps, experiment.public, report)
    last = score(trained.last, test, data)
    steps = [step for step, _ in trained.curve]
    best_step = steps[int(np.argmax([value for _, value in trained.curve]))]
    best = last if best_step == steps[-1] else score(trained.best, test, data, distances=False)
    row: Row = {
        "key": run.key,
        "method": run.method,
        "dataset": run.dataset,
        "victim": run.victim,
        "regime": run.regime,
        "seed": run.seed,
        "epsilon": run.epsilon,
        "target_psnr_db": run.target_psnr_db,
        "share": run.share,
        "steps": run.steps,
        **_visibility(release, protected),
        **_scores(last, best, best_step, data),
        "curve": [[step, _rounded(value)] for step, value in trained.curve],
        "chance": _rounded(constant_score(data.samples(VALIDATION), data)),
        "training_loss": _rounded(trained.loss),
        "seconds": round(time.monotonic() - began, 1),
        "training_cases": len(samples),
        "seen_cases": experiment.releases.seen_by(run.method),
        "test_cases": [sample.case.name for sample in test],
        **_circumstances(experiment),
        **_public(run, experiment),
        "release_sha256": release.sha256,
        "medprotect": __version__,
        "torch": torch.__version__,
        "device": str(process_device()),
    }
    return row | compared(row, rows.rows)


def training_samples(data: AuditData, release: Release, run: Run) -> tuple[list[Sample], list[str]]:
    """What the victim of a run trains on, and the names of the protected cases among it.

    Of a share of the labelled cases, those are protected whose names come first in an order that looks random and is the same in
    every run, so that a larger share contains the smaller one.
    """
    labelled = (case.name for case in data.cases[TRAIN] if case.labelled)
    names = sorted(labelled, key=lambda name: hashlib.sha256(f"share {name}".encode()).hexdigest())
    chosen = set(names[: round(run.share * len(names))])
    if run.method == CLEAN_PART:
        return [sample for sample in data.samples(TRAIN) if sample.case.name not in chosen], []
    images = {name: image for name, image in release.images(data).items() if name in chosen}
    return data.samples(TRAIN, images), list(images)


def _visibility(release: Release, protected: Sequence[str]) -> dict[str, Any]:
    """PSNR over the protected images: mean and minimum, whole image and regions."""
    cases = [release.cases[name] for name in protected]
    whole = [case.psnr_db for case in cases if case.psnr_db is not None]
    regions = [case.psnr_roi_db for case in cases if case.psnr_roi_db is not None]
    return {
        "psnr_db": _mean(whole),
        "psnr_min_db": _rounded(min(whole)) if whole else None,
        "psnr_roi_db": _mean(regions),
        "psnr_roi_min_db": _rounded(min(regions)) if regions else None,
        "max_abs_change": _rounded(max((case.max_abs_change for case in cases), default=0.0), 6),
        "protected_cases": len(cases),
        "refused_cases": len(release.refusals),
        "refused_reason": next(iter(release.refusals), ""),
    }


def _scores(last: Scores, best: Scores, best_step: int, data: AuditData) -> dict[str, Any]:
    if data.task == CLASSIFICATION:
        return {
            "dsc": None,
            "accuracy": _rounded(last.accuracy),
            "balanced_accuracy": _rounded(last.balanced),
            "accuracy_best_epoch": _rounded(best.accuracy),
            "balanced_accuracy_best_epoch": _rounded(best.balanced),
            "best_step": best_step,
            "hits": "".join("1" if hit else "0" for hit in last.hits),
            "test_classes": [int(case.target) for case in data.cases[TEST]],
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        per_class = {str(value): _rounded(np.nanmean(last.dsc[:, n])) for n, value in enumerate(data.classes)}
    return {
        "dsc": _rounded(mean_over(last.dsc)),
        "dsc_best_epoch": _rounded(mean_over(best.dsc)),
        "iou": _rounded(mean_over(last.iou)),
        "hd95": _rounded(mean_over(last.hd95)),
        "dsc_per_class": per_class,
        "best_step": best_step,
        "dsc_cases": [[_rounded(value) for value in case] for case in last.dsc],
    }


def _mean(values: Sequence[float]) -> float | None:
    return _rounded(float(np.mean(values))) if values else None


def _rounded(value: float | None, digits: int = DIGITS) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), digits)


class _Meter:
    """One count of training steps over all runs, with the time left."""

    def __init__(self, total: int, report: Report) -> None:
        self.total, self.report, self.done, self.trained, self.seconds = total, report, 0, 0, 0.0

    def aside(self, progress: Progress) -> None:
        """What comes between the runs, such as a fit, is shown as it is."""
        self.report(progress)

    def within(self, run: Run) -> Report:
        """Counts the steps of the run's victim; what is trained before it is shown as it is."""
        began = time.monotonic()

        def at(progress: Progress) -> None:
            nonlocal began
            if progress.stage != f"train {run.victim}":
                began = time.monotonic()
                return self.aside(progress)
            pace = (self.seconds + time.monotonic() - began) / (self.trained + progress.done)
            done = self.done + progress.done
            self.report(Progress("audit", done, self.total, pace * (self.total - done), f"{run.key} {progress.note}"))
            if progress.done == progress.total:
                self.seconds += time.monotonic() - began
                self.trained += progress.total

        return at

    def finished(self, steps: int) -> None:
        self.done += steps
