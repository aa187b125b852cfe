"""The cases of an audit: disjoint lists for training, validation and test, and the images as a trainer sees them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from MedProtectLib.audit.settings import Setting, default_setting, setting_of
from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.dataset import CaseFiles, find_cases
from MedProtectLib.io import sha256_path
from MedProtectLib.io.resample import on_grid_of
from MedProtectLib.label_classes import Classes, common_classes, in_counting_order
from MedProtectLib.methods.base import CLASSIFICATION, SEGMENTATION
from MedProtectLib.progress import Report, Stage, ignore
from MedProtectLib.regions import find_regions
from MedProtectLib.untrusted import read_table
from MedProtectLib.volume import Geometry, LabelMap, Volume
from MedProtectLib.window import HOUNSFIELD, PERCENTILES, IntensityWindow, choose_windows

TRAIN, VALIDATION, TEST = "train", "val", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
SHARES = {TRAIN: 0.6, VALIDATION: 0.1, TEST: 0.3}
FEWEST = 2
LOG = logging.getLogger(__name__)


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
        segments: by name or label value (all when empty).
        limit: no more cases than this in each split.
        report: told the progress.

    Raises:
        UsageError: unknown setting. MedProtectError: no such data set, unusable cases, or a split with fewer than two.
    """
    dataset = Path(dataset)
    found = {split: cases[:limit] for split, cases in _split(dataset).items()}
    stage = Stage("read", sum(map(len, found.values())), report)
    read: dict[str, list[tuple[CaseFiles, Volume, LabelMap]]] = {split: [] for split in SPLITS}
    for split, files in found.items():
        for case in files:
            volume, labels = case.read()
            labels, _ = on_grid_of(volume.geometry, labels.select(segments))
            read[split].append((case, volume, labels))
            stage.at(sum(map(len, read.values())), case.name)
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
    chosen = default_setting(task, dimension) if setting is None else setting_of(setting)
    if len(chosen.size) != dimension:
        raise MedProtectError(f"{dataset}: the setting '{chosen.name}' is for {len(chosen.size)}D images, these are {dimension}D.")
    ct = all(window.unit == HOUNSFIELD for window in windows[0])
    called = name or dataset.name.split(".")[0]
    return AuditData(called, task, dimension, channels, classes.keys, ct, chosen, cases, tuple(segments), modality, dataset)


def _split(dataset: Path) -> dict[str, list[CaseFiles]]:
    by_file = dataset.suffix.lower() == ".npz" or (dataset.suffix.lower() == ".csv" and dataset.is_file() and _names_splits(dataset))
    cases = {split: find_cases(dataset, split) for split in SPLITS} if by_file else _by_hash(find_cases(dataset))
    if not by_file:
        shares = ", ".join(f"{share:.0%} {split}" for split, share in SHARES.items())
        LOG.warning("%s: no manifest with a column 'split': %s, by a hash of the cases' names.", dataset, shares)
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


def _names_splits(manifest: Path) -> bool:
    columns, _ = read_table(manifest, "not a CSV table in UTF-8.")
    return "split" in columns


def _by_hash(cases: Sequence[CaseFiles]) -> dict[str, list[CaseFiles]]:
    """Lists in the proportions of ``SHARES``, in an order that looks random and is the same everywhere."""
    shuffled = sorted(cases, key=lambda case: hashlib.sha256(case.name.encode()).hexdigest())
    first, second = (round(len(cases) * share) for share in (SHARES[TRAIN], SHARES[TRAIN] + SHARES[VALIDATION]))
    parts = (shuffled[:first], shuffled[first:second], shuffled[second:])
    return {split: sorted(part, key=lambda case: case.name) for split, part in zip(SPLITS, parts, strict=True)}


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
    """The windows of every case, in the order of the splits: its own; for CT that of the foreground of all training cases, part by part."""
    everywhere = [(volume, find_regions(np.ones(volume.geometry.shape, bool), 0)) for split in SPLITS for _, volume, _ in read[split]]
    windows = [choose_windows(volume, regions, modality) for volume, regions in everywhere]
    if task == CLASSIFICATION or any(window.unit != HOUNSFIELD for own in windows for window in own):
        return windows
    shared = tuple(_of_foreground([(v.parts()[n], labels) for _, v, labels in read[TRAIN]]) for n in range(len(windows[0])))
    return [shared] * len(windows)


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
