"""A MedMNIST file (.npz): every image of its parts is a case; the release is one such file again.

An image that does not go out is left out of the file, with its label and its entry in every other array of its part.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.dataset import find_cases
from MedProtectLib.io.npz import PLAIN, array_shapes, read_array, rewrite
from MedProtectLib.release.case import Item, ReleaseCase
from MedProtectLib.release.layouts.base import Layout
from MedProtectLib.release.members import SPLITS
from MedProtectLib.release.roots import MEMBER, Roots, written_shared

IMAGES = "_images"


class MedMNIST(Layout):
    """Its cases have no files of their own: they are kept in the private root until the whole file can be written."""

    name = "MedMNIST"

    @classmethod
    def fits(cls, dataset: Path) -> bool:
        return dataset.is_file() and dataset.suffix.lower() == ".npz"

    def cases(self) -> Iterator[ReleaseCase]:
        file = Item(self.dataset.name, self.dataset.name)
        for found in find_cases(self.dataset):
            yield ReleaseCase(found.name, file, (file,), image_class=found.image_class, member=found.member, split=found.split)

    def check(self) -> None:
        """Refuse images of no part, and arrays of which it is not clear what belongs to an image that stays behind."""
        shapes = array_shapes(self.dataset)
        counts = {part: shapes.get(f"{part}{IMAGES}", ())[:1] for part in SPLITS}
        unclear = {*counts.values(), (sum(map(sum, counts.values())),)} - {()}
        for name, shape in shapes.items():
            part = name.partition("_")[0]
            if (name.endswith(IMAGES) and part not in SPLITS) or (shape[:1] in unclear and shape[:1] != counts.get(part)):
                raise MedProtectError(
                    f"{self.dataset}: array '{name}' may have an entry for every image, and does not say of which part. Name it "
                    "train_..., val_... or test_..., or take it out."
                )

    def assemble(self, roots: Roots) -> list[str]:
        target = roots.target(self.dataset.name)
        images, whole = {}, True
        kept: dict[str, np.ndarray] = {}
        for split, cases in groupby(self.cases(), key=lambda case: case.split):
            array = read_array(self.dataset, f"{split}{IMAGES}").copy()
            kept[split] = np.zeros(len(array), bool)
            for case in cases:
                path = roots.of_case(case.name) / MEMBER
                if roots.record(case.name).exists() and case.member is not None:
                    array[case.member], kept[split][case.member] = np.load(path, allow_pickle=False), True
            images[split], whole = array, whole and bool(kept[split].all())
        if whole:
            rewrite(self.dataset, target, {f"{split}{IMAGES}": array for split, array in images.items()})
            return [self.dataset.name]
        rows: dict[str, Any] = {name: read_array(self.dataset, name, PLAIN) for name in array_shapes(self.dataset)}
        rows |= {f"{split}{IMAGES}": array for split, array in images.items()}
        for name, array in rows.items():
            chosen = kept.get(name.partition("_")[0])
            if chosen is not None and array.shape[:1] == chosen.shape:
                rows[name] = array[chosen]
        with written_shared(target) as file:
            np.savez_compressed(file, **rows)
        return [self.dataset.name]

    def left_out(self) -> list[str]:
        return []
