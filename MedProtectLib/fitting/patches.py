"""Prepared cases on disk, and the patches that a step of fitting cuts from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.batch import Batch
from MedProtectLib.fitting.dataset import CaseFiles
from MedProtectLib.levels import find_padding
from MedProtectLib.methods.base import CONTEXT
from MedProtectLib.progress import Report, Stage
from MedProtectLib.protector import on_grid_of
from MedProtectLib.regions import find_regions, grown
from MedProtectLib.texture import texture_map
from MedProtectLib.volume import LabelMap
from MedProtectLib.window import choose_window

BEYOND = 16


class PatchSource:
    """Memory-mapped prepared cases and seeded patches of them: patch n of step s is the same in every run.

    Every case lies in ``folder`` as one float32 array (4, k, j, i) - image, classes, region (1 interior, 2 contour),
    texture map - on the regions' box with some surroundings, so that memory does not grow with the number of cases.
    """

    def __init__(self, folder: Path, dimension: int, patch: tuple[int, ...], batch: int, seed: int) -> None:
        self.index = json.loads((folder / "index.json").read_text())
        self.cases = [np.load(folder / entry["file"], mmap_mode="r") for entry in self.index["cases"]]
        self.classes = int(self.index["classes"])
        self.dimension, self.patch, self.batch, self.seed = dimension, patch, batch, seed

    def draw(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        patches = torch.from_numpy(np.stack([self._patch(rng) for _ in range(self.batch)]))
        image, classes, region, texture = patches.unbind(dim=1)
        return Batch(
            image=image[:, None].clamp(0.0, 1.0),
            classes=classes[:, None].long(),
            contour=(region == 2)[:, None].float(),
            interior=(region == 1)[:, None].float(),
            texture=texture[:, None],
        )

    def _patch(self, rng: np.random.Generator) -> np.ndarray:
        """Channels x patch around a random voxel of the regions, zeros beyond the case."""
        case = self.cases[int(rng.integers(len(self.cases)))]
        centres = np.argwhere(np.asarray(case[2]) > 0)
        centre = centres[int(rng.integers(len(centres)))]
        if self.dimension == 2:
            case, centre = case[:, centre[0]], centre[1:]
        out = np.zeros((4, *self.patch), np.float32)
        source, target = [slice(None)], [slice(None)]
        for c, size, n in zip(centre, self.patch, case.shape[1:], strict=True):
            start = int(np.clip(c - rng.integers(size // 4, size - size // 4), min(0, n - size), max(0, n - size)))
            begin, end = max(0, start), min(n, start + size)
            source.append(slice(begin, end))
            target.append(slice(begin - start, end - start))
        out[tuple(target)] = case[tuple(source)]
        return out


def prepare(
    cases: Sequence[CaseFiles],
    folder: Path,
    half_width: int,
    planar: bool,
    modality: str | None,
    window: tuple[float, float] | None,
    segments: Sequence[str] | None,
    report: Report,
) -> list[str]:
    """Write the prepared cases to ``folder`` (skipped when it is complete). Returns remarks on cases that were left out.

    Raises:
        MedProtectError: not one usable case.
    """
    from MedProtectLib.io import read_labels, read_volume

    index = folder / "index.json"
    if index.is_file():
        return list(json.loads(index.read_text())["remarks"])
    folder.mkdir(parents=True, exist_ok=True)
    stage = Stage("prepare", len(cases), report)
    entries, remarks = [], []
    read = [(case, read_labels(case.labels).select(segments)) for case in cases]
    values = sorted({s.value for _, labels in read for s in labels.segments})
    for number, (case, labels) in enumerate(read):
        try:
            volume = read_volume(case.image)
            labels, _ = on_grid_of(volume.geometry, labels)
            classes = _common_classes(labels, values)
            regions = find_regions(classes > 0, half_width, planar, find_padding(volume))
            window_of_case = choose_window(volume, regions, modality, window)
            box = grown(regions.box, (0 if planar else BEYOND, BEYOND + CONTEXT, BEYOND + CONTEXT), volume.geometry.shape)
            region = np.zeros(volume.geometry.shape, np.uint8)
            region[regions.box] = regions.interior + 2 * regions.contour
            for c in volume.intensity_channels:
                image = window_of_case.normalise(volume.in_units(volume.channel(c)[box]))
                file = f"{number:06d}_{c}.npy"
                np.save(folder / file, np.stack([image, classes[box], region[box], texture_map(image)]).astype(np.float32))
                entries.append({"case": case.name, "file": file})
        except MedProtectError as error:
            remarks.append(f"{case.name} left out: {error}")
        stage.at(number + 1, case.name)
    if not entries:
        raise MedProtectError(f"none of the {len(cases)} cases can be used. {remarks[0]}")
    part = index.with_suffix(".part")
    part.write_text(json.dumps({"cases": entries, "classes": len(values) + 1, "remarks": remarks}))
    part.replace(index)
    return remarks


def _common_classes(labels: LabelMap, values: Sequence[int]) -> np.ndarray:
    """Class numbers that mean the same in every case: a label value's place among all values of the dataset."""
    out = np.zeros(labels.geometry.shape, np.int32)
    for segment in labels.segments:
        out[labels.layers[segment.layer] == segment.value] = values.index(segment.value) + 1
    return out
