"""What is released of a data set: files protected as ``medprotect protect`` does it, kept in a work folder and read back from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

from MedProtectLib.audit.controls import CONTROLS, ControlProtector, Noise, check_control
from MedProtectLib.audit.data import TEST, TRAIN, VALIDATION, AuditCase, AuditData
from MedProtectLib.audit.released import ReleasedFolder, check_change, read_image
from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.fitting.dataset import image_hashes
from MedProtectLib.fitting.fit import fit
from MedProtectLib.fitting.training import DEFAULT_STEPS, FitOptions
from MedProtectLib.io import sha256_file, sha256_path
from MedProtectLib.job import write_and_reread
from MedProtectLib.levels import find_padding
from MedProtectLib.methods import METHODS, method_class
from MedProtectLib.methods.base import REGIONS
from MedProtectLib.profile import Profile
from MedProtectLib.progress import Report, Stage, ignore
from MedProtectLib.protector import DEFAULT_BOUND, Protector
from MedProtectLib.regions import HALF_WIDTH, find_regions
from MedProtectLib.statistics import Statistics, measure
from MedProtectLib.volume import Volume
from MedProtectLib.window import choose_windows

CLEAN = "none"
EQUAL_PSNR = "noise@"
PROFILE, RELEASED = "profile:", "released:"
DEFAULT_REACH = (REGIONS, HALF_WIDTH)


@dataclass(frozen=True)
class ReleasedCase:
    """One file of a release and how far it is from its original; ``refused``: why a case that has labels holds no change, '' otherwise."""

    file: str
    sha256: str
    psnr_db: float | None
    psnr_roi_db: float | None
    max_abs_change: float
    refused: str = ""


@dataclass(frozen=True)
class Release:
    """The training cases of a data set as somebody else gets them. ``cases``: those that were protected, by case name."""

    method: str
    folder: Path
    cases: Mapping[str, ReleasedCase] = field(repr=False)

    @property
    def protected(self) -> dict[str, ReleasedCase]:
        """Those of the cases that hold a change."""
        return {name: case for name, case in self.cases.items() if case.max_abs_change > 0}

    @property
    def refusals(self) -> list[str]:
        """Why cases that should hold a change hold none, one reason a case."""
        return [case.refused for case in self.cases.values() if case.refused]

    @property
    def sha256(self) -> str:
        """Names the content of all files."""
        return hashlib.sha256(json.dumps(sorted((name, case.sha256) for name, case in self.cases.items())).encode()).hexdigest()

    def images(self, data: AuditData) -> dict[str, np.ndarray]:
        """The images as the files hold them, (c, [k,] j, i) in window units, by case name.

        Raises:
            MedProtectError: a file is not the one that was written.
        """
        by_name = {case.name: case for case in data.cases[TRAIN]}
        images, hashed = {}, cache(sha256_path)
        for name, released in self.protected.items():
            path = self.folder / released.file
            if hashed(path) != released.sha256:
                raise MedProtectError(f"{path}: not the file that the audit wrote. Remove the work folder and start again.")
            images[name] = by_name[name].image_of(read_image(path, by_name[name]))
        return images


@dataclass(frozen=True)
class Releases:
    """Makes releases and keeps them: ``work`` holds the fitted profiles and the protected files.

    ``profiles`` and ``folders``: what the methods 'profile:NAME' and 'released:NAME' of :meth:`of` stand for, by NAME.
    ``measured``: the folders that were measured already; ``seen``: what :meth:`seen_by` found.
    """

    data: AuditData
    work: Path
    bound: float = DEFAULT_BOUND
    target_psnr: float | None = None
    fit_steps: int = DEFAULT_STEPS
    fit_seed: int = 0
    modality: str | None = None
    segments: tuple[str, ...] = ()
    profiles: Mapping[str, Path] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    measured: dict[str, Release] = field(default_factory=dict, init=False, repr=False, compare=False)
    seen: dict[str, int | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, method: str, report: Report = ignore) -> Release:
        """The release that a method makes of the training cases; made once, then read from the work folder.

        Raises:
            UsageError: unknown method, or one that does not do this task. MedProtectError: cases that cannot be used, or not one that
                holds a change.
        """
        release = self._of(method, report)
        if method != CLEAN and not release.protected:
            first = next(iter(release.refusals), "")
            raise MedProtectError(f"{method}: none of the {len(self.data.cases[TRAIN])} training cases holds a change. {first}".rstrip())
        return release

    def _of(self, method: str, report: Report) -> Release:
        check_method(method, self.data, self.profiles, self.folders)
        if method == CLEAN:
            return Release(method, self.work, {})
        if method.startswith(RELEASED):
            if method not in self.measured:
                self.measured[method] = self._from_folder(method, report)
            return self.measured[method]
        protectors = self._protectors(method, report)
        identity = hashlib.sha256(json.dumps([self.data.sha256, *protectors.identity]).encode()).hexdigest()[:16]
        folder = self.work / "releases" / f"{method.replace(':', '_').replace('@', '_')}_{identity}"
        folder.mkdir(parents=True, exist_ok=True)
        cases, stage = {}, Stage(f"protect with {method}", len(self.data.cases[TRAIN]), report)
        for number, case in enumerate(self.data.cases[TRAIN]):
            if case.labelled:
                cases[case.name] = _kept_or_made(folder, number, case, protectors.of(case))
            stage.at(number + 1, case.name)
        return Release(method, folder, cases)

    def _protectors(self, method: str, report: Report) -> _Protectors:
        settings = [method, self.bound, self.target_psnr, self.modality]
        if method in CONTROLS:
            control = ControlProtector(method, self.data.task, self.fit_seed, self.bound, self.target_psnr, self.modality)
            return _Protectors([*settings, self.fit_seed], control)
        if method.startswith(EQUAL_PSNR):
            measured, reach = self.of(method.removeprefix(EQUAL_PSNR), report), self._reach(method.removeprefix(EQUAL_PSNR))
            targets = {name: case.psnr_db for name, case in measured.protected.items() if case.psnr_db is not None}
            by_case = {
                name: ControlProtector(Noise.name, self.data.task, self.fit_seed, self.bound, target, self.modality, reach)
                for name, target in targets.items()
            }
            other_reach = [] if reach == DEFAULT_REACH else [reach]
            return _Protectors([*settings, measured.sha256, self.fit_seed, *other_reach], None, by_case)
        given = self.profiles.get(method.removeprefix(PROFILE)) if method.startswith(PROFILE) else None
        profile = self.fitted(method, report) if given is None else Profile.load(given)
        protector = Protector(profile=profile, bound=self.bound, target_psnr=self.target_psnr, modality=self.modality)
        return _Protectors([*settings, profile.sha256()], protector)

    def _reach(self, method: str) -> tuple[str, int]:
        """Where a method acts, its scope and half-width: at least where the others do."""
        if not method.startswith(PROFILE):
            return DEFAULT_REACH
        settings = Profile.load(self.profiles[method.removeprefix(PROFILE)]).settings
        return settings.get("scope", REGIONS), max(HALF_WIDTH, settings.get("half_width", HALF_WIDTH))

    def fitted(self, method: str, report: Report = ignore) -> Profile:
        """The method's profile, fitted on the training cases (as the owner of the data would) and kept in the work folder."""
        options = FitOptions(
            method=method,
            dimension=self.data.dimension,
            bound=self.bound,
            steps=self.fit_steps,
            seed=self.fit_seed,
            modality=self.modality,
            segments=self.segments,
            note="fitted for an audit",
        )
        identity = hashlib.sha256(json.dumps([self.data.sha256, repr(options)]).encode()).hexdigest()[:16]
        path = self.work / "profiles" / f"{method}_{identity}.medprotect"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            fit([case.files for case in self.data.cases[TRAIN] if case.labelled], path, options, resume=True, report=report)
        return Profile.load(path)

    def seen_by(self, method: str) -> int | None:
        """How many validation and test cases a method was fitted on: by the content of their images where its profile names that, else
        by their names; None where it is not known.
        """
        if method.startswith(RELEASED):
            return None
        if not method.startswith(PROFILE):
            return 0
        if method not in self.seen:
            profile = Profile.load(self.profiles[method.removeprefix(PROFILE)])
            held_out = [case.files for split in (VALIDATION, TEST) for case in self.data.cases[split]]
            by_content = "images_sha256" in profile.training
            names = image_hashes(held_out, cache(sha256_file)) if by_content else [files.name for files in held_out]
            fitted = set(profile.training.get("images_sha256" if by_content else "cases", ()))
            self.seen[method] = sum(name in fitted for name in names) if method_class(profile.method).learns else 0
        return self.seen[method]

    def _from_folder(self, method: str, report: Report) -> Release:
        """Files that were protected before, as :class:`ReleasedFolder` finds them."""
        folder, hashed = self.folders[method.removeprefix(RELEASED)], cache(sha256_path)
        found = ReleasedFolder(folder, self.data)
        cases, stage = {}, Stage(f"measure {folder.name}", len(self.data.cases[TRAIN]), report)
        for number, case in enumerate(self.data.cases[TRAIN]):
            path, statistics = found.path_of(case), _measured(case, found.volume_of(case), self.modality)
            check_change(path, case, statistics, self.bound)
            described = _described(path.relative_to(folder).as_posix(), hashed(path), statistics)
            unchanged = case.labelled and described.max_abs_change == 0
            cases[case.name] = replace(described, refused=f"{path}: holds no change." if unchanged else "")
            stage.at(number + 1, case.name)
        return Release(method, folder, cases)


@dataclass(frozen=True)
class _Protectors:
    """One protector for all cases, or one for every case by its name, and what names their results."""

    identity: Sequence[object]
    shared: Protector | None
    by_case: Mapping[str, Protector] = field(default_factory=dict)

    def of(self, case: AuditCase) -> Protector | None:
        return self.shared or self.by_case.get(case.name)


def check_method(method: str, data: AuditData, profiles: Mapping[str, Path], folders: Mapping[str, Path]) -> None:
    """Raises UsageError for a method that there is not or that does not do the data's task."""
    if method in CONTROLS:
        return check_control(method, data.task)
    if method == CLEAN:
        return
    if method.startswith(EQUAL_PSNR):
        like = method.removeprefix(EQUAL_PSNR)
        if like == CLEAN:
            raise UsageError(f"'{method}': clean data have no PSNR that noise could have. Name a method behind '{EQUAL_PSNR}'.")
        return check_method(like, data, profiles, folders)
    for prefix, known in ((PROFILE, profiles), (RELEASED, folders)):
        if method.startswith(prefix):
            if method.removeprefix(prefix) not in known:
                raise UsageError(f"'{method}' names nothing that was given.")
            return
    if method not in METHODS:
        raise UsageError(f"unknown method '{method}'. Known: {CLEAN}, {', '.join((*CONTROLS, *METHODS))}, {EQUAL_PSNR}METHOD.")
    chosen = method_class(method)
    chosen.check_support(data.dimension, data.task, chosen.scopes[0])


def told_of_seen(method: str, seen: int) -> str:
    """What to say of a method that was fitted on cases of the audit."""
    return (
        f"{method}: fitted on {seen} of the cases that validate and test here, which makes its scores worthless. Fit it on the training "
        "cases alone (--split train)."
    )


def supported_methods(data: AuditData) -> list[str]:
    """The registry's methods that do the data's task in its dimension."""
    return [m for m in METHODS if data.dimension in method_class(m).dimensions and data.task in method_class(m).tasks]


def _kept_or_made(folder: Path, number: int, case: AuditCase, protector: Protector | None) -> ReleasedCase:
    record = folder / f"{number:06d}.json"
    if record.is_file():
        return ReleasedCase(**json.loads(record.read_text(encoding="utf-8")))
    made = _made(folder, number, case, protector)
    part = record.with_suffix(".part")
    part.write_text(json.dumps(asdict(made)), encoding="utf-8")
    part.replace(record)
    return made


def _made(folder: Path, number: int, case: AuditCase, protector: Protector | None) -> ReleasedCase:
    if protector is None:
        return ReleasedCase("", "", None, None, 0.0, "there is no PSNR to be equal to")
    try:
        protection = protector.protect(case.volume, case.labels)
    except UsageError:
        raise
    except MedProtectError as error:
        return ReleasedCase("", "", None, None, 0.0, str(error))
    path = folder / f"{number:06d}{_extension(case)}"
    stored = write_and_reread(protection.volume, path)
    statistics = measure(case.volume, stored, protection.regions, protection.windows, protection.bound)
    return _described(path.name, sha256_path(path), statistics)


def _described(name: str, sha256: str, statistics: Statistics) -> ReleasedCase:
    return ReleasedCase(name, sha256, statistics.psnr_db, statistics.psnr_roi_db, statistics.max_abs_change[0])


def _measured(case: AuditCase, stored: Volume, modality: str | None) -> Statistics:
    width = HALF_WIDTH if case.target.ndim else 0
    labelled = case.labels.classes() > 0
    regions = find_regions(labelled if labelled.any() else ~labelled, width, case.planar, find_padding(case.volume))
    return measure(case.volume, stored, regions, choose_windows(case.volume, regions, modality))


def _extension(case: AuditCase) -> str:
    return ".nrrd" if case.volume.source is None else str(case.volume.source.extension)
