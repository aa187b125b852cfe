"""The cases of an audit: disjoint lists for training, validation and test, and the images as a trainer sees them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from MedProtectLib.audit.settings import Setting, default_setting, setting_of
from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.dataset import SPLITS, TEST, TRAIN, VALIDATION, CaseFiles, by_hash, find_cases, has_splits
from MedProtectLib.io import sha256_path
from MedProtectLib.io.resample import on_grid_of
from MedProtectLib.label_classes import Classes, common_classes, in_counting_order
from MedProtectLib.methods.base import CLASSIFICATION, SEGMENTATION
from MedProtectLib.progress import Report, Stage, ignore
from MedProtectLib.regions import find_regions
from MedProtectLib.volume import Geometry, LabelMap, Volume
from MedProtectLib.window import HOUNSFIELD, PERCENTILES, IntensityWindow, choose_windows

FEWEST = 2


@dataclass(frozen=True)
class AuditCase:
    """One case: its files, the original image, its labels and what a victim is to say of it.

    ``target``: int64 classes (k, j, i), 0 background, or the class (from 0 on) of the whole image as an array of no axes.
    ``windows``: what a trainer's window units mean in the image's own, for every part of the image.
    """

    files: CaseFiles
    volume: Volume = field(repr=False)
    labels: LabelMap = field(repr=False)
    target: np.ndarray = field(repr=False)
    windows: tuple[IntensityWindow, ...]

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def planar(self) -> bool:
        return self.volume.geometry.dimension == 2

    @property
    def labelled(self) -> bool:
        """Whether there is anything to protect."""
        return self.labels.of_whole_image or bool(self.target.any())

    def image_of(self, volume: Volume) -> np.ndarray:
        """The image (c, [k,] j, i) of a volume on this case's grid: float32 window units, not clipped."""
        parts = zip(volume.parts(), self.windows, strict=True)
        image = np.stack([window.normalise(part.in_units(part.channel(c))) for part, window in parts for c in part.intensity_channels])
        return image[:, 0] if self.planar else image


@dataclass(frozen=True)
class Sample:
    """What a victim trains on or is scored on: an image (c, [k,] j, i), float32 window units, and its target ([k,] j, i) or ()."""

    case: AuditCase
    image: np.ndarray = field(repr=False)

    @property
    def target(self) -> np.ndarray:
        return self.case.target[0] if self.case.planar and self.case.target.ndim else self.case.target


@dataclass(frozen=True)
class AuditData:
    """A data set for an audit. ``classes``: label values or class names in the order of their numbers; ``ct``: images in HU.

    ``segments`` and ``modality``: what the user chose, as :func:`load_dataset` takes it. ``source``: where the data set lies.
    """

    name: str
    task: str
    dimension: int
    channels: int
    classes: tuple[int | str, ...]
    ct: bool
    setting: Setting
    cases: Mapping[str, Sequence[AuditCase]] = field(repr=False)
    segments: tuple[str, ...] = ()
    modality: str | None = None
    source: Path | None = None

    @property
    def outputs(self) -> int:
        """How many classes a victim tells apart; in segmentation the background is one."""
        return len(self.classes) + (self.task == SEGMENTATION)

    @property
    def files(self) -> list[CaseFiles]:
        """The files of all cases."""
        return [case.files for split in SPLITS for case in self.cases[split]]

    def samples(self, split: str, images: Mapping[str, np.ndarray] | None = None) -> list[Sample]:
        """The cases of a split as samples; ``images`` (c, [k,] j, i) in window units, by case name, replace the originals."""
        images = images or {}
        return [Sample(case, images.get(case.name, case.image_of(case.volume)).astype(np.float32)) for case in self.cases[split]]

    @cached_property
    def sha256(self) -> str:
        """Names the lists of cases and the content of their files, and the choice of segments and modality where there is one."""
        listed = [(split, case.files) for split in SPLITS for case in self.cases[split]]
        hashes = {path: sha256_path(path) for path in {path for _, files in listed for path in files.files}}
        content: list[list[object]] = [
            [split, files.name, files.image_class, files.member, *(hashes[path] for path in files.files)] for split, files in listed
        ]
        if self.segments or self.modality is not None:
            content.append([list(self.segments), self.modality])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def load_dataset(
    dataset: str | Path,
    setting: str | None = None,
    name: str | None = None,
    modality: str | None = None,
    segments: Sequence[str] = (),
    limit: int | None = None,
    report: Report = ignore,
) -> AuditData:
    """Read a data set as :func:`~MedProtectLib.fitting.dataset.find_cases` finds it, for an audit.

    Args:
        dataset: a manifest whose column ``split`` has train, val and test, a MedMNIST file, or a folder or manifest without
            splits, of which 60 % train, 10 % validate and 30 % test, by a hash of their names.
        setting: entry of settings.toml; by task and dimension when None.
        name: of the data set in rows; the file's or folder's when None.
        modality: 'CT', 'MR', 'US' or 'XR'; guessed from the data when None.
        segments: by name or label value (all when empty); a case may lack them.
        limit: no more cases than this in each split, class by class where the whole image has one, in an order that looks random.
        report: told the progress.

    Raises:
        UsageError: unknown setting. MedProtectError: no such data set, unusable cases, or a split with fewer than two.
    """
    dataset = Path(dataset)
    found = {split: _first(cases, limit) for split, cases in _split(dataset).items()}
    chosen = _Chosen(tuple(map(str, segments)))
    stage = Stage("read", sum(map(len, found.values())), report)
    read: dict[str, list[tuple[CaseFiles, Volume, LabelMap]]] = {split: [] for split in SPLITS}
    for split, files in found.items():
        for case in files:
            volume, labels = case.read()
            read[split].append((case, volume, on_grid_of(volume.geometry, chosen.of(labels))[0]))
            stage.at(sum(map(len, read.values())), case.name)
    chosen.check()
    everything = [entry for entries in read.values() for entry in entries]
    task = CLASSIFICATION if everything[0][2].of_whole_image else SEGMENTATION
    dimension, channels = everything[0][1].geometry.dimension, len(everything[0][1].intensity_channels)
    _alike(everything, dimension, channels)
    classes = _classes([(files.name, labels) for files, _, labels in everything], task)
    windows = _windows(read, modality, task)
    entries = iter(windows)
    cases = {
        split: [AuditCase(files, volume, labels, _target(labels, classes, task), next(entries)) for files, volume, labels in read[split]]
        for split in SPLITS
    }
    taken = default_setting(task, dimension) if setting is None else setting_of(setting)
    if len(taken.size) != dimension:
        raise MedProtectError(f"{dataset}: the setting '{taken.name}' is for {len(taken.size)}D images, these are {dimension}D.")
    ct = all(window.unit == HOUNSFIELD for own in windows for window in own)
    called = name or dataset.resolve().name.split(".")[0]
    return AuditData(called, task, dimension, channels, classes.keys, ct, taken, cases, tuple(segments), modality, dataset)


def _split(dataset: Path) -> dict[str, list[CaseFiles]]:
    cases = {split: find_cases(dataset, split) for split in SPLITS} if has_splits(dataset) else by_hash(dataset)
    few = [split for split in SPLITS if len(cases[split]) < FEWEST]
    if few:
        raise MedProtectError(
            f"{dataset}: only {len(cases[few[0]])} cases in '{few[0]}'. An audit needs at least {FEWEST} in {', '.join(SPLITS)}. "
            "Take more cases, or say in a CSV manifest's column split which is which."
        )
    seen: dict[str, str] = {}
    for split in SPLITS:
        for case in cases[split]:
            if case.name in seen:
                raise MedProtectError(
                    f"{dataset}: case '{case.name}' is in '{seen[case.name]}' and in '{split}'. The lists must be disjoint."
                )
            seen[case.name] = split
    return cases


def _first(cases: Sequence[CaseFiles], limit: int | None) -> list[CaseFiles]:
    """The cases that come first in an order that looks random and is the same everywhere, as many of every class as there are."""
    shuffled = sorted(cases, key=lambda case: hashlib.sha256(f"limit {case.name}".encode()).hexdigest())
    places = {case.name: n for own in _by_class(shuffled) for n, case in enumerate(own)}
    chosen = sorted(shuffled, key=lambda case: places[case.name])[:limit]
    return sorted(chosen, key=lambda case: case.name)


def _by_class(cases: Sequence[CaseFiles]) -> list[list[CaseFiles]]:
    return [[case for case in cases if case.image_class == each] for each in dict.fromkeys(case.image_class for case in cases)]


@dataclass(frozen=True)
class _Chosen:
    """The segments that were asked for; ``problems``: what to say of each of them, '' once it was found in a label map."""

    segments: tuple[str, ...]
    problems: dict[str, str] = field(default_factory=dict)

    def of(self, labels: LabelMap) -> LabelMap:
        """Those of them that a label map has, which may be none."""
        if not self.segments or labels.of_whole_image:
            return labels.select(self.segments)
        there = []
        for segment in self.segments:
            try:
                labels.select(segment)
            except MedProtectError as error:
                self.problems.setdefault(segment, str(error))
            else:
                self.problems[segment] = ""
                there.append(segment)
        return labels.select(there) if there else replace(labels, segments=())

    def check(self) -> None:
        """Raises MedProtectError for a segment that was in no label map."""
        for problem in filter(None, self.problems.values()):
            raise MedProtectError(problem)


def _alike(entries: Sequence[tuple[CaseFiles, Volume, LabelMap]], dimension: int, channels: int) -> None:
    for files, volume, _ in entries:
        if (volume.geometry.dimension, len(volume.intensity_channels)) != (dimension, channels):
            raise MedProtectError(
                f"{files.image}: {volume.geometry.dimension}D with {len(volume.intensity_channels)} channels, the first case is "
                f"{dimension}D with {channels}. One victim cannot train on both."
            )


def _classes(labels: Sequence[tuple[str, LabelMap]], task: str) -> Classes:
    segments = [(case, label_map.segments) for case, label_map in labels]
    if not any(own for _, own in segments):
        raise MedProtectError("the cases' label maps are empty: there is nothing to protect and nothing to learn.")
    if task == SEGMENTATION:
        return common_classes(segments)
    named = sorted({segment.name for _, own in segments for segment in own}, key=in_counting_order)
    return Classes((*named,), ())


def _target(labels: LabelMap, classes: Classes, task: str) -> np.ndarray:
    if task == CLASSIFICATION:
        return np.array(classes.keys.index(labels.segments[0].name))
    return labels.classes(classes.keys, classes.values).astype(np.int64)


def _windows(
    read: Mapping[str, Sequence[tuple[CaseFiles, Volume, LabelMap]]], modality: str | None, task: str
) -> list[tuple[IntensityWindow, ...]]:
    """The windows of every case, in the order of the splits: its own; for CT that of the foreground of all training cases, part by part.

    Raises:
        MedProtectError: some of the images that are to be segmented are taken for CT and others are not.
    """
    everywhere = [(volume, find_regions(np.ones(volume.geometry.shape, bool), 0)) for split in SPLITS for _, volume, _ in read[split]]
    windows = [choose_windows(volume, regions, modality) for volume, regions in everywhere]
    if task != CLASSIFICATION:
        _same_units([files for split in SPLITS for files, _, _ in read[split]], windows)
    if task == CLASSIFICATION or any(window.unit != HOUNSFIELD for own in windows for window in own):
        return windows
    shared = tuple(_of_foreground([(v.parts()[n], labels) for _, v, labels in read[TRAIN]]) for n in range(len(windows[0])))
    return [shared] * len(windows)


def _same_units(files: Sequence[CaseFiles], windows: Sequence[tuple[IntensityWindow, ...]]) -> None:
    in_hounsfield = [[window.unit == HOUNSFIELD for window in own] for own in windows]
    other = next((n for n, units in enumerate(in_hounsfield) if units != in_hounsfield[0]), None)
    if other is not None:
        ct, not_ct = (files[n].image for n in ((0, other) if any(in_hounsfield[0]) else (other, 0)))
        raise MedProtectError(
            f"{not_ct}: not taken for CT, as {ct.name} is. One victim cannot train on both: give --modality CT or another."
        )


def _of_foreground(parts: Sequence[tuple[Volume, LabelMap]]) -> IntensityWindow:
    """The window of one part of all training images."""
    inside = [part.in_units(part.channel(c)[labels.classes() > 0]) for part, labels in parts for c in part.intensity_channels]
    low, high = np.percentile(np.concatenate(inside), PERCENTILES)
    return IntensityWindow(float(low), float(high), "0.5-99.5 percentiles of the training cases' foreground", HOUNSFIELD)


def as_pictures(data: AuditData) -> AuditData:
    """The labelled slices of volumes as pictures, for regimes that use public volumes beside audited pictures."""
    cases = {split: [picture for case in data.cases[split] for picture in _slices(case)] for split in SPLITS}
    return replace(data, dimension=2, cases=cases)


def _slices(case: AuditCase) -> list[AuditCase]:
    i, j, _ = case.volume.geometry.size
    geometry = Geometry((i, j, 1), case.volume.geometry.spacing, dimension=2)
    chosen = range(len(case.volume.array)) if case.labels.of_whole_image else np.flatnonzero(case.target.any(axis=(1, 2)))
    out = []
    for k in chosen:
        volume = replace(case.volume, array=case.volume.array[k : k + 1], geometry=geometry)
        target = case.target[k : k + 1] if case.target.ndim else case.target
        labels = replace(case.labels, layers=tuple(layer[k : k + 1] for layer in case.labels.layers), geometry=geometry)
        out.append(AuditCase(replace(case.files, name=f"{case.name}_{k}"), volume, labels, target, case.windows))
    return out


__all__ = ["SPLITS", "TEST", "TRAIN", "VALIDATION", "AuditCase", "AuditData", "Sample", "as_pictures", "load_dataset"]
