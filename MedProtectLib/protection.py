"""A protected volume in memory with everything that was decided on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from MedProtectLib.profile import Profile
from MedProtectLib.regions import Regions
from MedProtectLib.statistics import POOLED, Statistics, measure
from MedProtectLib.volume import Volume
from MedProtectLib.window import IntensityWindow


class Components(Mapping[str, np.ndarray]):
    """The stored change, split by component and laid on the image's grid when asked for.

    Every value is a float32 array (k, j, i) or (k, j, i, c) in window units; their sum is the whole change.
    """

    def __init__(self, change: np.ndarray, masks: Mapping[str, np.ndarray], regions: Regions, shape: tuple[int, ...]) -> None:
        self._change, self._masks, self._regions, self._shape = change, masks, regions, shape

    def __getitem__(self, name: str) -> np.ndarray:
        mask = self._masks[name].reshape(self._masks[name].shape + (1,) * (self._change.ndim - 3))
        return self._regions.on_grid(self._change * mask, self._shape)

    def where(self, name: str) -> np.ndarray:
        """Bool (k, j, i): where the component may act."""
        return self._regions.on_grid(self._masks[name], self._shape)

    def of_channel(self, index: int) -> Components:
        """The same of one channel."""
        return Components(self._change[..., index], self._masks, self._regions, self._shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)


@dataclass(frozen=True)
class Protection:
    """A protected volume with everything that was decided on the way.

    ``windows`` and ``steps`` have one entry for every part of the image (:meth:`~MedProtectLib.volume.Volume.parts`). ``counts``
    holds the change of every voxel of the regions' box in whole levels of so many stored units, (k, j, i) or (k, j, i, c); int32,
    or int64 where a change needs it. ``notices`` are one-line remarks for the user (guesses), ``warnings`` things to act on.
    """

    volume: Volume
    original: Volume
    windows: tuple[IntensityWindow, ...]
    regions: Regions
    counts: np.ndarray = field(repr=False)
    steps: tuple[float, ...]
    components: Components = field(repr=False)
    bound: float
    target_psnr: float | None
    seed: int = field(repr=False)
    profile: Profile = field(repr=False)
    notices: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def statistics(self) -> Statistics:
        """Measured on the volume in memory; the record of a written file holds the same measured on the file."""
        return measure(self.original, self.volume, self.regions, self.windows, self.bound)

    @property
    def window(self) -> IntensityWindow:
        """The window of an image of one part; of several, whose numbers are pooled in window units, 0 to 1."""
        return self.windows[0] if len(self.windows) == 1 else POOLED

    @property
    def step(self) -> float:
        """The level step of an image of one part."""
        (step,) = self.steps
        return step

    def parts(self) -> tuple[Protection, ...]:
        """The protection of every part of the image on its own."""
        if len(self.windows) == 1:
            return (self,)
        volumes = zip(self.volume.parts(), self.original.parts(), strict=True)
        return tuple(
            replace(
                self,
                volume=after,
                original=before,
                windows=(self.windows[n],),
                counts=self.counts[..., n],
                steps=(self.steps[n],),
                components=self.components.of_channel(n),
            )
            for n, (after, before) in enumerate(volumes)
        )
