"""LSP: linearly separable patterns, blocks of constant sign whose arrangement tells the class.

    block b of class y, channel c, in one image:  v = s(y, c, b) + n / class_sep,   s in {-1, +1},  n ~ N(0, 1)
    delta(p) = epsilon v(block of p) / max |v|   where the label map has class y

A linear classifier separates the patterns, so a network learns them before it learns anatomy.

Source: Yu et al., "Availability Attacks Create Shortcuts", KDD 2022. Its patterns are one sample of a class cluster per
image (class_sep 10), enlarged in blocks of 8 at 32 pixels, at an L2 norm of (6/255) sqrt(d).

Ours: the arrangement repeats every 8 blocks, so that images of any size and volumes (blocks are cubes) have one; blocks of
4 voxels by default, since an organ must hold several; label maps are painted class by class, the background too. The largest
change is the bound; rms=0.0235 with --bound 16/255 gives the published L2 norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from MedProtectLib.methods.base import Parameter, Purpose
from MedProtectLib.methods.pattern import RMS, PatternMethod
from MedProtectLib.regions import Box

PERIOD = 8


class LSP(PatternMethod):
    """Linearly separable block patterns."""

    name = "lsp"
    title = "LSP: linearly separable block patterns"
    source = "Yu et al., KDD 2022, our re-implementation"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "block": Parameter(4, 1, 64, "edge of a block in voxels", whole=True),
        "class_sep": Parameter(10, 1, 1000, "distance of the classes in standard deviations of the images within a class"),
        "rms": RMS,
    }

    @classmethod
    def draw_fixed(cls, purpose: Purpose, parameters: Mapping[str, float], rng: np.random.Generator) -> np.ndarray:
        """Signs of the blocks, as many plus as minus, float32 (class, channel, [k,] j, i)."""
        count = PERIOD**purpose.dimension
        balanced = np.repeat([-1.0, 1.0], count // 2).astype(np.float32)
        signs = rng.permuted(np.tile(balanced, (purpose.outputs * purpose.image_channels, 1)), axis=1)
        return signs.reshape(purpose.outputs, purpose.image_channels, *cls.shape_of_one(purpose))

    @staticmethod
    def shape_of_one(purpose: Purpose) -> tuple[int, ...]:
        return (PERIOD,) * purpose.dimension

    def pattern(self, number: int, channel: int, box: Box, seed: list[int]) -> np.ndarray:
        signs = self.fixed[number, channel].astype(np.float64)
        blocks = signs + np.random.default_rng(seed).standard_normal(signs.shape) / self.chosen["class_sep"]
        blocks /= np.abs(blocks).max()
        places = [np.arange(s.start, s.stop) // int(self.chosen["block"]) % PERIOD for s in box]
        if self.planar:
            return np.broadcast_to(blocks[np.ix_(*places[1:])], tuple(len(p) for p in places))
        drawn: np.ndarray = blocks[np.ix_(*places)]
        return drawn
