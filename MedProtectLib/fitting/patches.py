"""Prepared cases on disk, and the patches that a step of fitting cuts from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.batch import Batch
from MedProtectLib.fitting.dataset import TrainingCase
from MedProtectLib.io.resample import on_grid_of
from MedProtectLib.levels import find_padding
from MedProtectLib.methods.base import CLASSIFICATION, CONTEXT, Purpose
from MedProtectLib.outputs import private_folder
from MedProtectLib.progress import Report, Stage
from MedProtectLib.regions import find_regions, grown
from MedProtectLib.texture import texture_map
from MedProtectLib.window import choose_windows

BEYOND = 16
INTERIOR, CONTOUR, BACKGROUND = 1, 2, 3


class Place(NamedTuple):
    """Where a patch lies: the number of its prepared case, its part of the case (c, k, j, i), and that part's place in the patch."""

    file: int
    source: tuple[slice | int, ...]
    target: tuple[slice, ...]


class Usable(NamedTuple):
    """The names of the prepared cases, and remarks on those that were left out."""

    names: list[str]
    remarks: list[str]

    @classmethod
    def of(cls, index: Mapping[str, Any]) -> Usable:
        """As an index of prepared cases tells."""
        return cls(list(dict.fromkeys(entry["case"] for entry in index["cases"])), list(index["remarks"]))


class PatchSource:
    """Prepared cases on disk and seeded patches of them: patch n of step s is the same in every run.

    Every case lies in ``folder`` as one float32 array (2c + 2, k, j, i) - the image's c channels, classes, region (0 may not
    be touched, 1 interior, 2 contour, 3 background), the texture map of each channel - on the regions' box with some
    surroundings. A file is mapped while a patch is cut from it, so that neither memory nor open files grow with the cases.
    With ``at_most`` the patch is no larger than the largest case.
    """

    def __init__(self, folder: Path, dimension: int, patch: tuple[int, ...], batch: int, seed: int, at_most: bool = False) -> None:
        self.index = json.loads((folder / "index.json").read_text())
        self.files = [folder / entry["file"] for entry in self.index["cases"]]
        self.classes, self.channels = int(self.index["classes"]), int(self.index["channels"])
        largest = self.index["largest"][3 - dimension :]
        self.patch = tuple(min(n, m) for n, m in zip(patch, largest, strict=True)) if at_most else patch
        self.dimension, self.batch, self.seed = dimension, batch, seed

    def draw(self, step: int) -> Batch:
        """The patches of a step."""
        return self.draw_located(step)[0]

    def draw_located(self, step: int) -> tuple[Batch, list[Place]]:
        """The patches of a step, and where they lie."""
        rng = np.random.default_rng([self.seed, step])
        drawn, places = zip(*(self._patch(rng) for _ in range(self.batch)), strict=True)
        patches = torch.from_numpy(np.stack(drawn))
        image, classes, region, texture = patches.split([self.channels, 1, 1, self.channels], dim=1)
        batch = Batch(
            image=image.clamp(0.0, 1.0),
            classes=classes.long(),
            contour=(region == CONTOUR).float(),
            interior=(region == INTERIOR).float(),
            touched=(region > 0).float(),
            texture=texture,
        )
        return batch, list(places)

    def _patch(self, rng: np.random.Generator) -> tuple[np.ndarray, Place]:
        """Channels x patch around a random voxel of the regions, zeros beyond the case, and where it lies."""
        file = int(rng.integers(len(self.files)))
        case = np.load(self.files[file], mmap_mode="r")
        region = np.asarray(case[self.channels + 1])
        centres = np.argwhere((region == INTERIOR) | (region == CONTOUR))
        centre = centres[int(rng.integers(len(centres)))]
        out = np.zeros((len(case), *self.patch), np.float32)
        source: list[slice | int] = [slice(None)]
        target = [slice(None)]
        if self.dimension == 2:
            source, centre = [slice(None), int(centre[0])], centre[1:]
        for c, size, n in zip(centre, self.patch, case.shape[-self.dimension :], strict=True):
            start = int(np.clip(c - rng.integers(size // 4, size - size // 4), min(0, n - size), max(0, n - size)))
            begin, end = max(0, start), min(n, start + size)
            source.append(slice(begin, end))
            target.append(slice(begin - start, end - start))
        out[tuple(target)] = case[tuple(source)]
        return out, Place(file, tuple(source), tuple(target))


def prepare(
    cases: Sequence[TrainingCase],
    folder: Path,
    purpose: Purpose,
    joint_channels: bool,
    modality: str | None,
    window: tuple[float, float] | None,
    segments: Sequence[str] | None,
    report: Report,
) -> Usable:
    """Write the prepared cases to ``folder`` (skipped when it is complete).

    With ``joint_channels`` an image's channels lie in one array, otherwise every channel is a case of its own.

    Raises:
        MedProtectError: not one usable case.
    """
    index = folder / "index.json"
    if index.is_file():
        return Usable.of(json.loads(index.read_text()))
    private_folder(folder)
    stage = Stage("prepare", len(cases), report)
    entries: list[dict[str, str]] = []
    remarks: list[str] = []
    largest = np.zeros(3, int)
    for number, case in enumerate(cases):
        try:
            arrays = _prepared(case, purpose, joint_channels, modality, window, segments)
        except MedProtectError as error:
            remarks.append(f"{case.name} left out: {error}")
            arrays = []
        for c, array in enumerate(arrays):
            file = f"{number:06d}_{c}.npy"
            np.save(folder / file, array, allow_pickle=False)
            entries.append({"case": case.name, "file": file})
            largest = np.maximum(largest, array.shape[1:])
        stage.at(number + 1, case.name)
    if not entries:
        raise MedProtectError(f"none of the {len(cases)} cases can be used. {remarks[0]}")
    part = index.with_suffix(".part")
    told = {"classes": purpose.outputs, "channels": purpose.image_channels if joint_channels else 1, "largest": largest.tolist()}
    content = {"cases": entries, "remarks": remarks, **told}
    part.write_text(json.dumps(content))
    part.replace(index)
    return Usable.of(content)


def _prepared(
    case: TrainingCase,
    purpose: Purpose,
    joint_channels: bool,
    modality: str | None,
    window: tuple[float, float] | None,
    segments: Sequence[str] | None,
) -> list[np.ndarray]:
    volume, labels = case.read()
    if volume.geometry.dimension < purpose.dimension:
        raise MedProtectError("a single picture, not a volume. Use --dimension 2.")
    if joint_channels and len(volume.intensity_channels) != purpose.image_channels:
        raise MedProtectError(f"it has {len(volume.intensity_channels)} channels, the first case has {purpose.image_channels}.")
    labels, _ = on_grid_of(volume.geometry, labels.select(segments))
    classes = labels.classes(purpose.classes, purpose.values)
    planar = purpose.dimension == 2
    regions = find_regions(classes > 0, purpose.half_width, planar, find_padding(volume), purpose.scope == "image")
    windows = choose_windows(volume, regions, modality, window)
    beyond = 0 if purpose.task == CLASSIFICATION else BEYOND + CONTEXT
    box = grown(regions.box, (0 if planar else min(beyond, BEYOND), beyond, beyond), volume.geometry.shape)
    region = np.zeros(volume.geometry.shape, np.uint8)
    region[regions.box] = INTERIOR * regions.interior + CONTOUR * regions.contour
    if regions.background is not None:
        region[regions.box] += np.uint8(BACKGROUND) * regions.background
    images = [
        own.normalise(part.in_units(part.channel(c)[box]))
        for part, own in zip(volume.parts(), windows, strict=True)
        for c in part.intensity_channels
    ]
    together = [images] if joint_channels else [[image] for image in images]
    return [np.stack([*group, classes[box], region[box], *map(texture_map, group)]).astype(np.float32) for group in together]
