"""Weave: chequered knots of two sizes on lattices, woven into the labelled structures where the spectrum of images is quietest; where
whole images are classified, chequers or stripes without gaps.

    knot(p; period, edge, cell) = (-1)^(sum of floor(p / cell) over the axes) where p_j, p_i mod period < edge, else 0
    delta(p)   = epsilon w(p) (fine knot(p - o_c; period, edge, 1) + knot(p - o_c - gap; 2 period, coarse edge, 2))

with an origin o_c per class, fixed for a release; the coarse edge is the largest even number that fits between the fine knots, and the
gap begins at period - coarse edge, so that coarse knots lie in every second gap. In every slice of a class the weight w is 1 for the
sign of which there is less and turns the other down until both cancel: no structure becomes brighter or darker. In volumes the knots run
through the slices as threads and change their sign from one to the next, the coarse ones from every second. They alternate along every
axis.

A network learns first what stands out most from its surroundings in the band where it lies. Anatomy has its energy in low frequencies;
at the corner of the spectrum an ultrasound image of 256 pixels keeps 1.3/255, so that a few grey levels of a chequered pattern are the
plainest feature of all. What is spared between the knots is spent on them: they are so far above anything in an unprotected image that
a network which has learned them finds next to nothing there, where a texture that fills the structure leaves it guessing. Fine knots
need half of the bound for that; coarse ones lie where anatomy is louder and take all of it. Every fine knot looks the same, also in a
mirror when the edge is odd (a coarse one changes its sign there), and a period that is a power of two puts all of them on the same
place of a network's strided cells. They are bright in the first corner, since black leaves no room downwards. The fine knots decide as
long as an image keeps its pixels; where it is halved, blurred or compressed, the coarse ones remain.

Where whole images are classified, something must tell class from class everywhere, and nothing is gained by leaving gaps:

    delta(p) = epsilon w(p) (-1)^(sum of p over A_c)

A class has axes A_c of its own along which its pattern alternates: 3 classes of pictures and 6 of volumes differ, more than that repeat.

Source: MedProtect contributors, Documentation/Research.md, which also has what it does not withstand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import ClassVar

import numpy as np

from MedProtectLib.methods.base import SEGMENTATION, Halo, Parameter, Purpose
from MedProtectLib.methods.pattern import PatternMethod
from MedProtectLib.regions import Box

LARGEST_PERIOD = 64


def knots(places: Sequence[np.ndarray], period: int, edge: int, cell: int, axes: Sequence[int]) -> np.ndarray:
    """Knots of ``edge`` voxels every ``period`` voxels of a slice, of squares of ``cell`` that alternate along ``axes``; 0 between them.

    ``places`` (k, j, i): the voxels' places on the lattice, to be broadcast.
    """
    within = (places[0], places[1] % period, places[2] % period)
    parity = sum(within[axis] // cell for axis in axes) % 2
    knotted: np.ndarray = (within[1] < edge) * (within[2] < edge) * (1.0 - 2.0 * parity)
    return knotted


class Weave(PatternMethod):
    """Two lattices of chequered knots per class, the same in every image of a release."""

    name = "weave"
    title = "Weave: chequered knots in the quiet corner of the spectrum"
    source = "MedProtect contributors, our own method"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "period": Parameter(
            8, 2, LARGEST_PERIOD, "voxels from one fine knot to the next, in the plane of a slice; a power of two is best", whole=True
        ),
        "edge": Parameter(3, 2, LARGEST_PERIOD, "edge of a fine knot in voxels", whole=True),
        "fine": Parameter(0.5, 0.0, 1.0, "change of fine knots by that of coarse ones, 1 if none fit between"),
    }

    def __init__(self, purpose: Purpose, parameters: Mapping[str, float], fixed: np.ndarray) -> None:
        super().__init__(purpose, parameters, fixed)
        if not ((fixed >= 0) & (fixed < self.chosen["period"])).all():
            raise ValueError("an origin of the knots lies outside their period")

    @classmethod
    def draw_fixed(cls, purpose: Purpose, parameters: Mapping[str, float], rng: np.random.Generator) -> np.ndarray:
        """The origin (j, i) of every class's knots, even so that halving an image keeps the coarse ones, float32 (class, channel, 2)."""
        shape = (purpose.outputs, purpose.image_channels, *cls.shape_of_one(purpose))
        return (2 * rng.integers((int(parameters["period"]) + 1) // 2, size=shape)).astype(np.float32)

    @staticmethod
    def shape_of_one(purpose: Purpose) -> tuple[int, ...]:
        return (2,)

    @property
    def halo(self) -> Halo:
        """No slice depends on another."""
        return Halo(0)

    def pattern(self, number: int, channel: int, box: Box, seed: list[int]) -> np.ndarray:
        shape = tuple(part.stop - part.start for part in box)
        if self._is_background(number):
            return np.zeros(shape)
        origins = (0, *self.fixed[number, channel].astype(int))
        places = np.meshgrid(*(np.arange(s.start, s.stop) - o for s, o in zip(box, origins, strict=True)), indexing="ij", sparse=True)
        drawn = self._knots(places) if self.purpose.task == SEGMENTATION else knots(places, 2, 2, 1, self._axes_of(number))
        return np.broadcast_to(drawn, shape)

    def _knots(self, places: Sequence[np.ndarray]) -> np.ndarray:
        edge, period = int(self.chosen["edge"]), int(self.chosen["period"])
        coarse = 2 * ((period - edge) // 2)
        gap = (places[0], *(place - (period - coarse) for place in places[1:]))
        fine = self.chosen["fine"] if coarse > 0 else 1.0
        return fine * knots(places, period, edge, 1, self._grid) + knots(gap, 2 * period, coarse, 2, self._grid)

    def _axes_of(self, number: int) -> tuple[int, ...]:
        choices = [axes for count in range(len(self._grid), 0, -1) for axes in combinations(self._grid, count) if axes != (0,)]
        return choices[number % len(choices)]

    def cut_out(self, drawn: np.ndarray, here: np.ndarray) -> np.ndarray:
        """In every slice the sign that there is more of is turned down, so that the class keeps its mean."""
        cut = super().cut_out(drawn, here)
        bright, dark = (np.maximum(sign * cut, 0.0).sum(axis=(1, 2), keepdims=True) for sign in (1, -1))
        least = np.minimum(bright, dark)
        return np.where(cut > 0, least / np.where(bright > 0, bright, 1.0), least / np.where(dark > 0, dark, 1.0)) * cut

    def _is_background(self, number: int) -> bool:
        return number == 0 and self.purpose.task == SEGMENTATION and not self.whole_image

    @property
    def _grid(self) -> tuple[int, ...]:
        return (1, 2) if self.planar else (0, 1, 2)
