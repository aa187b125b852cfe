"""A MedMNIST file (.npz): every image of its parts is a case; the release is one such file again.

An image that does not go out is left out of the file, with its label.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from MedProtectLib.fitting.dataset import find_cases
from MedProtectLib.io.npz import read_array, rewrite
from MedProtectLib.release.case import Item, ReleaseCase
from MedProtectLib.release.layouts.base import Layout
from MedProtectLib.release.roots import MEMBER, Roots, written_shared


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

    def assemble(self, roots: Roots) -> None:
        target = roots.target(self.dataset.name)
        images, whole = {}, True
        kept: dict[str, np.ndarray] = {}
        for split, cases in groupby(self.cases(), key=lambda case: case.split):
            array = read_array(self.dataset, f"{split}_images").copy()
            kept[split] = np.zeros(len(array), bool)
            for case in cases:
                path = roots.of_case(case.name) / MEMBER
                if roots.record(case.name).exists() and case.member is not None:
                    array[case.member], kept[split][case.member] = np.load(path, allow_pickle=False), True
            images[split], whole = array, whole and bool(kept[split].all())
        if whole:
            rewrite(self.dataset, target, {f"{split}_images": array for split, array in images.items()})
            return
        rows = {f"{split}_images": images[split][kept[split]] for split in images}
        rows |= {f"{split}_labels": read_array(self.dataset, f"{split}_labels")[kept[split]] for split in images}
        with written_shared(target) as file:
            np.savez_compressed(file, **rows)

    def left_out(self) -> list[str]:
        return []
