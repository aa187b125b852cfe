"""Weave: chequered knots on a lattice, woven into the labelled structures where the spectrum of images is quietest.

    knot_c(p)  = 1 where (p_j - o_cj) mod period < edge and (p_i - o_ci) mod period < edge, else 0
    delta(p)   = epsilon knot_c(p) (-1)^(sum over the class's axes of (p - o_c) mod period)

with an origin o_c per class, fixed for a release; in volumes the knots run through the slices as threads and change their sign
from one to the next.

A network learns first what stands out most from its surroundings in the band where it lies. Anatomy has its energy in low
frequencies; at the corner of the spectrum an ultrasound image of 256 pixels keeps 1.3/255, so that a few grey levels of a chequered
pattern are the plainest feature of all. What is spared between the knots is spent on them: knots of the full bound are so far
above anything in an unprotected image that a network which has learned them finds next to nothing there, where a texture that fills
the structure leaves it guessing. Every knot looks the same, also in a mirror when the edge is odd, and a period that is a power of
two puts all of them on the same place of a network's strided cells. They are bright in the middle, since black leaves no room downwards.

Source: MedProtect contributors, Documentation/Research.md, which also has what it does not withstand.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import ClassVar

import numpy as np

from MedProtectLib.methods.base import SEGMENTATION, Halo, Parameter, Purpose
from MedProtectLib.methods.pattern import PatternMethod
from MedProtectLib.regions import Box

LARGEST_PERIOD = 64


class Weave(PatternMethod):
    """A lattice of chequered knots per class, the same in every image of a release."""

    name = "weave"
    title = "Weave: chequered knots in the quiet corner of the spectrum"
    source = "MedProtect contributors, our own method"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "period": Parameter(8, 2, LARGEST_PERIOD, "voxels from one knot to the next, in the plane of a slice; a power of two is best"),
        "edge": Parameter(3, 1, LARGEST_PERIOD, "edge of a knot in voxels"),
    }

    def __init__(self, purpose: Purpose, parameters: Mapping[str, float], fixed: np.ndarray) -> None:
        super().__init__(purpose, parameters, fixed)
        if not ((fixed >= 0) & (fixed < self.chosen["period"])).all():
            raise ValueError("an origin of the knots lies outside their period")

    @classmethod
    def draw_fixed(cls, purpose: Purpose, parameters: Mapping[str, float], rng: np.random.Generator) -> np.ndarray:
        """The origin (j, i) of every class's knots, float32 (class, channel, 2)."""
        shape = (purpose.outputs, purpose.image_channels, *cls.shape_of_one(purpose))
        return rng.integers(int(parameters["period"]), size=shape).astype(np.float32)

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
        edge, period = int(self.chosen["edge"]), int(self.chosen["period"])
        origins = (0, *self.fixed[number, channel].astype(int))
        k, j, i = np.meshgrid(*(np.arange(s.start, s.stop) - o for s, o in zip(box, origins, strict=True)), indexing="ij", sparse=True)
        places = (k, j % period, i % period)
        parity = sum(places[axis] for axis in self._axes(number)) % 2
        return np.broadcast_to((places[1] < edge) * (places[2] < edge) * (1.0 - 2.0 * parity), shape)

    def _is_background(self, number: int) -> bool:
        return number == 0 and self.purpose.task == SEGMENTATION and not self.whole_image

    def _axes(self, number: int) -> tuple[int, ...]:
        """The axes along which a class's knots alternate: all of them for the first class, then every smaller choice in turn."""
        grid = (1, 2) if self.planar else (0, 1, 2)
        choices = [axes for count in range(len(grid), 0, -1) for axes in combinations(grid, count)]
        first = 1 if self.purpose.task == SEGMENTATION else 0
        return choices[(number - first) % len(choices)]
