"""Fit a method on a dataset and write its profile."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.fitting.cotrain import CotrainPlan, cotrain, surrogate_unet
from MedProtectLib.fitting.dataset import CaseFiles
from MedProtectLib.fitting.patches import PatchSource, prepare
from MedProtectLib.io import sha256_file
from MedProtectLib.methods import method_class
from MedProtectLib.methods.umed import UMed
from MedProtectLib.profile import Profile
from MedProtectLib.progress import Report, ignore
from MedProtectLib.protector import DEFAULT_BOUND, check_bound
from MedProtectLib.window import check_window

PATCH = {2: (96, 96), 3: (32, 48, 48)}
BATCH = {2: 8, 3: 2}
DEFAULT_STEPS = 600


@dataclass(frozen=True)
class FitOptions:
    """What a fit is asked for; see :func:`fit` for the meaning."""

    method: str = "umed"
    dimension: int = 3
    bound: float = DEFAULT_BOUND
    steps: int = DEFAULT_STEPS
    seed: int = 0
    half_width: int = 3
    modality: str | None = None
    window: tuple[float, float] | None = None
    segments: tuple[str, ...] = ()
    public: bool = False
    note: str = ""


def fit(cases: Sequence[CaseFiles], output: Path, options: FitOptions, resume: bool = False, report: Report = ignore) -> Profile:
    """Fit the options' method on labelled cases and write the profile to ``output``.

    The work (prepared cases, checkpoint) lies in ``<output>.work`` until the profile is written; with ``resume`` an
    interrupted fit goes on from there and ends with the same profile.

    Raises:
        UsageError: bad option values. MedProtectError: unusable cases, an output that exists, a checkpoint of another run.
    """
    check_options(options)
    if output.exists():
        raise MedProtectError(f"{output}: exists already. Choose another --output.")
    identity = _identity(cases, options)
    work = output.with_name(output.name + ".work")
    if work.exists() and not resume:
        shutil.rmtree(work)
    torch.manual_seed(options.seed)
    method = UMed(options.dimension, options.half_width)
    remarks = prepare(cases, work, options.half_width, method.planar, options.modality, options.window, options.segments, report)
    plan = CotrainPlan(options.steps, BATCH[options.dimension], PATCH[options.dimension])
    source = PatchSource(work, options.dimension, plan.patch, plan.batch, options.seed)
    surrogate = surrogate_unet(options.dimension, source.classes)
    method.generators.train()
    loss = cotrain(method.generators, surrogate, source, plan, options.bound, work / "checkpoint.safetensors", identity, report)
    profile = Profile(
        method=options.method,
        settings=method.settings(),
        tensors=method.tensors(),
        bound=options.bound,
        seed=options.seed,
        modality=options.modality,
        window=options.window,
        public=options.public,
        training={
            "cases": [case.name for case in cases],
            "left_out": remarks,
            "plan": plan.as_settings(),
            "final_surrogate_loss": loss,
            "note": options.note,
        },
    )
    profile.save(output)
    shutil.rmtree(work)
    return profile


def check_options(options: FitOptions) -> None:
    """Raises UsageError for a bad option value."""
    check_bound(options.bound)
    if options.steps < 1:
        raise UsageError(f"--steps {options.steps}: give at least 1.")
    method_class(options.method)
    if options.window is not None:
        check_window(options.window)


def _identity(cases: Sequence[CaseFiles], options: FitOptions) -> str:
    """Names the run: the content of its files and its options."""
    content = [(case.name, sha256_file(case.image), sha256_file(case.labels)) for case in cases]
    return hashlib.sha256(json.dumps([content, repr(options)]).encode()).hexdigest()
