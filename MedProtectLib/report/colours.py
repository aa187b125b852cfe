"""Colours of a signed difference: one pair of hues a component, told apart by readers with any colour vision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb

STEPS = 257  # odd, so that no change is exactly white


@dataclass(frozen=True)
class Palette:
    """Hues of full negative and full positive change; no change is white."""

    negative: str
    positive: str

    def table(self) -> np.ndarray:
        """RGB in [0, 1] of the changes from -limit to +limit, shape (STEPS, 3)."""
        stops = np.array([to_rgb(self.negative), (1.0, 1.0, 1.0), to_rgb(self.positive)])
        return np.stack([np.interp(np.linspace(-1, 1, STEPS), (-1, 0, 1), stops[:, channel]) for channel in range(3)], axis=-1)


# Bright pair and dark pair: the full colours of the first two stay apart (CIEDE2000 above 25) for normal, protan, deutan and tritan vision.
PALETTES = (Palette("#3d9be9", "#f28e1c"), Palette("#761a6a", "#1c5b2b"), Palette("#37474f", "#d1304f"))
RESERVED = {"contour": PALETTES[0], "texture": PALETTES[1]}


def palettes_for(names: Iterable[str]) -> dict[str, Palette]:
    """A palette for every component; contour and texture always have the same ones."""
    names = list(names)
    free = [p for p in PALETTES if p not in [RESERVED.get(name) for name in names]] or list(PALETTES)
    others = [name for name in names if name not in RESERVED]
    chosen = {name: free[number % len(free)] for number, name in enumerate(others)}
    return {name: RESERVED.get(name) or chosen[name] for name in names}


def paint(changes: Mapping[str, np.ndarray], limit: float) -> np.ndarray:
    """RGB (rows, columns, 3) of the components' signed changes (rows, columns); where several act, each weighs by its size."""
    palettes = palettes_for(changes)
    shape = next(iter(changes.values())).shape
    colour, weight = np.zeros((*shape, 3)), np.zeros(shape)
    for name, change in changes.items():
        position = np.rint((np.clip(change / limit, -1, 1) + 1) / 2 * (STEPS - 1)).astype(np.intp)
        colour += np.abs(change)[..., None] * palettes[name].table()[position]
        weight += np.abs(change)
    return np.divide(colour, weight[..., None], out=np.ones_like(colour), where=weight[..., None] > 0)
