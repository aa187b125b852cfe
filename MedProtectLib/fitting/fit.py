"""Fit a method on labelled cases: survey, prepare, the method's own fitting, profile."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from MedProtectLib.checks import check_bound, check_seed
from MedProtectLib.errors import MedProtectError, UsageError, memory_told
from MedProtectLib.fitting.dataset import CaseFiles, TrainingCase, image_hashes
from MedProtectLib.fitting.training import DEFAULT_STEPS, FitOptions, Training
from MedProtectLib.io import sha256_file
from MedProtectLib.label_classes import CaseSegments, common_classes, in_counting_order
from MedProtectLib.methods import method_class
from MedProtectLib.methods.base import CLASSIFICATION, SEGMENTATION, Purpose
from MedProtectLib.outputs import private_folder, write_private
from MedProtectLib.profile import Profile
from MedProtectLib.progress import Report, Stage, ignore
from MedProtectLib.release.claims import claimed, holders
from MedProtectLib.volume import Geometry, LabelMap, Volume
from MedProtectLib.window import check_modality, check_window

IDENTITY, INDEX = "identity.txt", "index.json"
MADE = re.compile(r"identity\.txt|index\.(json|part)|\d{6,}_\d+\.npy|(checkpoint|kept_\d+)\.safetensors|noise_\d+|\..+\.part")


def fit(cases: Sequence[CaseFiles], output: Path, options: FitOptions, resume: bool = False, report: Report = ignore) -> Profile:
    """Fit the options' method on labelled cases and write the profile to ``output``.

    The work (prepared cases, checkpoint) lies in ``<output>.work`` until the profile is written; with ``resume`` an
    interrupted fit goes on from there and ends with the same profile. Under torchrun all processes fit it together.

    Raises:
        UsageError: bad option values. MedProtectError: unusable cases, an output that exists, a work folder that holds other files,
            an interrupted fit (without ``resume``) or one of other data or settings, no space or no permission.
    """
    from MedProtectLib.fitting.team import Team

    check_options(options)
    if output.exists():
        raise MedProtectError(f"{output}: exists already. Choose another --output.")
    hashed = cache(sha256_file)
    identity, team = _identity(cases, options, hashed), Team()
    work = work_folder(output)
    _check_work(work, identity, resume)
    team.wait()
    with _working_in(work, identity, team.is_first):
        profile = fit_in(work, cases, options, identity, report)
        names = set(profile.training["cases"])
        profile = replace(
            profile, training={**profile.training, "images_sha256": image_hashes([case for case in cases if case.name in names], hashed)}
        )
        team.wait()
        if team.is_first:
            profile.save(output)
    return profile


def work_folder(output: Path) -> Path:
    """Where a fit works until the profile is written."""
    return output.with_name(output.name + ".work")


def _check_work(work: Path, identity: str, resume: bool) -> None:
    """Raises MedProtectError where a fit cannot begin in the work folder, or not go on from what is there, or another one does."""
    if work.name in holders(work.parent):
        raise _at_work(work)
    if work.exists() and not work.is_dir():
        raise MedProtectError(f"{work}: this is a file, and the fit needs a folder of this name. Move it, or choose another --output.")
    found = sorted(path.name for path in work.iterdir()) if work.is_dir() else []
    if others := [name for name in found if not MADE.fullmatch(name)]:
        raise MedProtectError(f"{work}: the fit needs this folder, and it holds '{others[0]}'. Move that, or choose another --output.")
    if found and not resume:
        raise MedProtectError(f"{work}: an interrupted fit is here. Use --resume to go on with it, or remove the folder.")
    if IDENTITY in found and (work / IDENTITY).read_text(errors="replace") != identity:
        raise MedProtectError(
            f"{work}: an interrupted fit of other data or settings is here. Use the same to go on with it, or remove the folder first."
        )


@contextmanager
def _working_in(work: Path, identity: str, is_first: bool) -> Iterator[None]:
    """The first process's work folder. What fits made there is removed at the end, unless a run with --resume can go on from it."""
    made = [work, *(folder for folder in work.parents if not folder.exists())]
    can_go_on = mine = False
    try:
        with claimed(work.parent, work.name) if is_first else nullcontext(True) as mine:
            if not mine:
                raise _at_work(work)
            if is_first:
                private_folder(work)
                write_private(work / IDENTITY, identity.encode())
            yield
    except BaseException as error:
        can_go_on = (work / INDEX).is_file()
        if isinstance(error, OSError):
            raise _not_written(error, work, " and go on with --resume" if can_go_on else "") from error
        raise
    finally:
        if is_first and mine and not can_go_on:
            _clear(work, made)


def _at_work(work: Path) -> MedProtectError:
    return MedProtectError(f"{work}: another fit is at work here. Wait for it, or choose another --output.")


def _not_written(error: OSError, work: Path, advice: str = "") -> MedProtectError:
    """What to say of an error that may name no file: NumPy's of a full disk does not."""
    reason = error.strerror or f"cannot be written ({error})"
    return MedProtectError(f"{error.filename or work}: {reason}. Check the permissions and the free space{advice}.")


def _clear(work: Path, made: Sequence[Path]) -> None:
    """Remove what fits make in a work folder, and those of the folders that are empty then."""
    with suppress(OSError):
        for path in list(work.iterdir()):
            if path.is_dir() and MADE.fullmatch(path.name):
                shutil.rmtree(path)
            elif MADE.fullmatch(path.name):
                path.unlink()
        for folder in made:
            folder.rmdir()


def fit_in(
    work: Path, cases: Sequence[TrainingCase], options: FitOptions, identity: str, report: Report = ignore, on_cpu: bool = False
) -> Profile:
    """Fit in a folder that holds what is kept to go on after an interruption.

    Raises:
        UsageError: the method does not do what the options ask for. MedProtectError: unusable cases.
    """
    import torch

    method = method_class(options.method)
    purpose = survey(cases, options, report)
    method.check_support(purpose.dimension, purpose.task, purpose.scope)
    method.checked_parameters(options.parameters)
    if method.learns and purpose.task == CLASSIFICATION and len(purpose.classes) < 2:
        raise MedProtectError(
            f"all images are of class '{purpose.classes[0]}'. Method '{options.method}' learns from at least two classes."
        )
    names, remarks = [case.name for case in cases], list[str]()
    if method.learns:
        from MedProtectLib.fitting.patches import prepare
        from MedProtectLib.fitting.team import Team

        with Team().first_alone():
            names, remarks = prepare(
                cases, work, purpose, method.joint_channels, options.modality, options.window, options.segments, report
            )
    torch.manual_seed(options.seed)
    with memory_told():
        fitted, summary = method.fit(Training(options, purpose, work, identity, report, on_cpu))
    return Profile(
        method=options.method,
        settings=fitted.settings(),
        tensors=fitted.tensors(),
        bound=options.bound,
        seed=options.seed,
        modality=options.modality,
        window=options.window,
        public=options.public,
        training={"cases": names, "left_out": remarks, **summary, "note": options.note},
    )


@dataclass(frozen=True)
class CaseInMemory:
    """A case that is at hand, not on disk."""

    volume: Volume
    labels: LabelMap
    name: str = "this case"

    def read(self) -> tuple[Volume, LabelMap]:
        """The image and its labels."""
        return self.volume, self.labels

    def read_labels(self, geometry: Geometry | None = None) -> LabelMap:
        """The labels."""
        return self.labels


def fit_on_case(volume: Volume, labels: LabelMap, options: FitOptions, report: Report = ignore) -> Profile:
    """A bounded fit on one case: the same profile for every thread count, and nothing left on disk.

    Raises:
        UsageError, MedProtectError: as for :func:`fit_in`; a method that learns from images of several classes.
    """
    from MedProtectLib.networks.workers import one_thread

    method = method_class(options.method)
    case = CaseInMemory(volume, labels)
    if method.learns and survey([case], options).task == CLASSIFICATION:
        raise MedProtectError(f"method '{options.method}' learns from images of several classes. Fit it on a dataset and use --profile.")
    with tempfile.TemporaryDirectory(prefix="medprotect-") as work, one_thread(options.seed):
        try:
            return fit_in(Path(work), [case], options, "one case", report, on_cpu=True)
        except OSError as error:
            raise _not_written(error, Path(work)) from error


def survey(cases: Sequence[TrainingCase], options: FitOptions, report: Report = ignore) -> Purpose:
    """What the cases are for: their task and classes, and the channels of the first image that can be read.

    Raises:
        MedProtectError: not one case can be read, or a segment that was asked for occurs in none; label maps that contradict
            each other about what a value means.
    """
    stage = Stage("survey", len(cases), report)
    segments: list[CaseSegments] = []
    names: set[str] = set()
    problem: MedProtectError | None = None
    for number, case in enumerate(cases, start=1):
        try:
            labels = case.read_labels().select(options.segments)
        except MedProtectError as error:
            problem = problem or error
            continue
        if labels.of_whole_image:
            names |= {segment.name for segment in labels.segments}
        else:
            segments.append((case.name, labels.segments))
        stage.at(number, case.name)
    in_segments = common_classes(segments)
    if not in_segments.keys and not names:
        raise problem or MedProtectError("the cases' label maps are empty: there is nothing to protect.")
    named = sorted(names, key=in_counting_order)
    method = method_class(options.method)
    return Purpose(
        dimension=options.dimension,
        task=SEGMENTATION if in_segments.keys else CLASSIFICATION,
        scope=options.scope or method.scopes[0],
        half_width=options.half_width if method.uses_contour else 0,
        image_channels=_channels(cases),
        classes=in_segments.keys or (*named,),
        values=in_segments.values,
    )


def _channels(cases: Sequence[TrainingCase]) -> int:
    problem: MedProtectError | None = None
    for case in cases:
        try:
            return len(case.read()[0].intensity_channels)
        except MedProtectError as error:
            problem = problem or error
    raise MedProtectError(f"none of the {len(cases)} cases can be used. {problem}")


def check_options(options: FitOptions) -> None:
    """Raises UsageError for a bad option value."""
    check_bound(options.bound)
    if options.steps < 1:
        raise UsageError(f"--steps {options.steps}: give at least 1.")
    method = method_class(options.method)
    method.check_support(options.dimension, method.tasks[0], options.scope or method.scopes[0])
    method.checked_parameters(options.parameters)
    check_modality(options.modality)
    check_seed(options.seed)
    if options.window is not None:
        check_window(options.window)


def _identity(cases: Sequence[CaseFiles], options: FitOptions, hashed: Callable[[Path], str]) -> str:
    """Names the run: the content of its files and its options."""
    content = [(case.name, case.image_class, case.member, *map(hashed, case.files)) for case in cases]
    return hashlib.sha256(json.dumps([content, repr(options)]).encode()).hexdigest()


__all__ = ["DEFAULT_STEPS", "FitOptions", "fit", "fit_in", "fit_on_case"]
