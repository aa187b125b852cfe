"""Weave: a chequered texture with a fixed phase, woven into the labelled structures where the spectrum of images is quietest.

    s_o(p) = +-(-1)^(sum over the class's axes of floor(p / (cell 2^o)))     the carrier of octave o = 0, 1, ..., one per class:
                                                                              + in the structure, - in the band around it
    m_o(p) = (T_o * (s_o x))(p)                                              the image's own share of it
    delta(p) = sum over o of s_o(p) clip(a - m_o(p), 0, a),   a = epsilon / octaves

A network learns first what stands out most from its surroundings in the band where it lies. Anatomy has its energy in low
frequencies; at the corner of the spectrum an ultrasound image of 256 pixels keeps 1.3/255, so that a few grey levels of a pattern
whose phase never changes are the plainest feature of all: a convolution of 3 voxels an axis recognises it. Around the structure the
phase is turned, so that its border is where the sign changes and energy alone tells nothing. The finest octave is the
strongest on images as they are; the next one has louder anatomy to compete with, and survives halving.

The embedding is informed: an image's own share of the carrier is evened out, so that the texture is equally strong everywhere.
T is a triangle of two periods an axis, with a zero at the carrier: no other band leaks into m.

Source: MedProtect contributors, Documentation/Research.md, which also has what it does not withstand; informed embedding is a
principle of robust watermarks (Cox, Miller and McKellips, "Watermarking as communications with side information", Proc. IEEE 1999).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import ClassVar

import numpy as np
from scipy.ndimage import convolve1d, distance_transform_edt

from MedProtectLib.methods.base import CLASSIFICATION, Case, Component, Halo, Parameter, Purpose
from MedProtectLib.methods.pattern import PatternMethod
from MedProtectLib.regions import Box

LARGEST_CELL, MOST_OCTAVES = 4, 3


class Weave(PatternMethod):
    """A chequered texture per class, with the image's own share of it evened out."""

    name = "weave"
    title = "Weave: a chequered texture in the quiet corner of the spectrum"
    source = "MedProtect contributors, our own method"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "cell": Parameter(1, 1, LARGEST_CELL, "edge of the finest octave's squares in voxels"),
        "octaves": Parameter(2, 1, MOST_OCTAVES, "how many textures, each of squares twice as large as the one before"),
    }

    @classmethod
    def draw_fixed(cls, purpose: Purpose, parameters: Mapping[str, float], rng: np.random.Generator) -> np.ndarray:
        """The sign of every carrier, float32 (class, channel, octave)."""
        signs: np.ndarray = rng.choice(np.array([-1, 1], np.float32), (purpose.outputs, purpose.image_channels, *cls.shape_of_one(purpose)))
        return signs

    @staticmethod
    def shape_of_one(purpose: Purpose) -> tuple[int, ...]:
        return (MOST_OCTAVES,)

    @property
    def halo(self) -> Halo:
        """The triangle's reach across slices."""
        return Halo(0 if self.planar else 2 * max(self.cells) - 1)

    @property
    def cells(self) -> tuple[int, ...]:
        """The edge of every octave's squares, in voxels."""
        return tuple(min(int(self.chosen["cell"]) * 2**octave, LARGEST_CELL) for octave in range(int(self.chosen["octaves"])))

    def carrier(self, number: int, channel: int, box: Box, octave: int) -> np.ndarray:
        """The signs of a class's carrier on the part ``box`` of a volume, float64 that broadcasts to the box's shape (k, j, i)."""
        places = np.meshgrid(*(np.arange(s.start, s.stop) // self.cells[octave] for s in box), indexing="ij", sparse=True)
        parity = sum(places[axis] for axis in self._axes(number)) % 2
        signs: np.ndarray = self.fixed[number, channel, octave] * (1.0 - 2.0 * parity)
        return signs

    def pattern(self, number: int, channel: int, box: Box, seed: list[int]) -> np.ndarray:
        shape = tuple(s.stop - s.start for s in box)
        carriers = [np.broadcast_to(self.carrier(number, channel, box, octave), shape) for octave in range(len(self.cells))]
        return np.asarray(np.mean(carriers, axis=0))

    def _axes(self, number: int) -> tuple[int, ...]:
        """The axes along which a class's texture alternates: all of them for the first class, then every smaller choice in turn."""
        grid = (1, 2) if self.planar else (0, 1, 2)
        choices = [axes for count in range(len(grid), 0, -1) for axes in combinations(grid, count)]
        order = number if self.purpose.task == CLASSIFICATION else max(number - 1, 0)
        return choices[order % len(choices)]

    def _painted(self, case: Case, channel: int, epsilon: float) -> Component:
        touched = case.regions.touched
        numbers, side = self._numbers_and_sides(case)
        share = epsilon / len(self.cells)
        values = np.zeros(touched.shape, np.float64)
        for number in np.unique(numbers[touched]).tolist():
            here = touched & (numbers == number)
            for octave, cell in enumerate(self.cells):
                carrier = self.carrier(number, channel, case.context, octave)
                own = side * smoothed(carrier * case.image, cell, self.planar)[case.region_box]
                sign = side * np.broadcast_to(carrier, case.image.shape)[case.region_box]
                values[here] += (sign * np.clip(share - own, 0.0, share))[here]
        return Component(values.astype(np.float32), (epsilon * touched).astype(np.float32))

    def _numbers_and_sides(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """Every voxel's class or, in the background, the nearest one; and 1 in the structures, -1 around them."""
        classes = case.classes[case.region_box].astype(np.int64)
        if self.purpose.task == CLASSIFICATION:
            return classes - 1, np.ones(classes.shape)
        nearest = distance_transform_edt(classes == 0, return_distances=False, return_indices=True)
        return classes[tuple(nearest)], np.where(classes > 0, 1.0, -1.0)


def smoothed(image: np.ndarray, cell: int, planar: bool) -> np.ndarray:
    """A volume (k, j, i) under a triangle of 4 cell - 1 voxels an axis, which has a zero where the carrier of that cell lies.

    So a carrier times an image keeps only what the image has in the carrier's own band.
    """
    box = np.ones(2 * cell) / (2 * cell)
    triangle = np.convolve(box, box)
    for axis in (1, 2) if planar else (0, 1, 2):
        image = convolve1d(image, triangle, axis, mode="nearest")
    return image
