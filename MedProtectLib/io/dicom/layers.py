"""Structures slice by slice, put together to a label map: one layer as long as they do not overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.volume import Geometry, LabelMap, Segment

MOST_BYTES = 1 << 31


@dataclass(frozen=True)
class Structure:
    """A named structure: its label value, and bool (j, i) by the k of the slices on which it is."""

    name: str
    value: int
    slices: Mapping[int, np.ndarray]


def label_map(structures: Iterable[Structure], geometry: Geometry, largest: int, name: str) -> LabelMap:
    """Structures as segments, each in the first layer where it meets no other. ``largest`` is the largest label value.

    Raises:
        MedProtectError: so many overlap that the layers would take more than 2 GiB.
    """
    dtype = np.min_scalar_type(largest)
    layers = [np.zeros(geometry.shape, dtype)]
    segments = []
    for structure in structures:
        number = next((n for n, layer in enumerate(layers) if not _meets(layer, structure)), len(layers))
        if number == len(layers):
            if (number + 1) * layers[0].nbytes > MOST_BYTES:
                raise MedProtectError(f"{name}: more than {number} of its structures overlap. Leave some of them out of the file.")
            layers.append(np.zeros(geometry.shape, dtype))
        for k, mask in structure.slices.items():
            layers[number][k][mask] = structure.value
        segments.append(Segment(structure.name, structure.value, number))
    return LabelMap(tuple(layers), geometry, tuple(segments), name)


def _meets(layer: np.ndarray, structure: Structure) -> bool:
    return any(layer[k][mask].any() for k, mask in structure.slices.items())
