"""UMed: one generator for the contour band, one for the interior under a texture-adaptive bound.

Objective, a cooperative minimisation in which the generators and a surrogate F both lower the segmentation loss L
(Dice + cross-entropy), so that the perturbation becomes the easiest thing to learn:

    min_F  E [ min_{Gc, Gt}  L(F(clip(x + dc + dt)), y) ]
    dc = epsilon C tanh(Gc(x))            C: contour band = dilate(F > 0) - erode(F > 0), half-width w
    dt = epsilon T I tanh(Gt(x))          I: interior, T in [0, 1]: local binary pattern, 0 where the image is flat

Source: Lin et al., "Safeguarding Medical Image Segmentation Datasets against Unauthorized Training via Contour- and
Texture-Aware Perturbations", arXiv 2403.14250 (2024). Its code is not public: this is our re-implementation from public
descriptions, and our figures are ours alone.

Defaults: epsilon 4/255, w = 3, central difference convolutions (theta 0.5, learnable) in Gc's encoder, four generator
steps to one surrogate step. Ours differs, on purpose: the texture bound scales tanh instead of clamping it (a clamp stops
the gradient), the pattern compares strictly (so that flat areas get the least, not the most), the generators have no
normalisation over space (so that a slab, a tile and the volume agree), and what they draw has no mean over 5 x 5 pixels of a slice
(so that it is texture and no shift of brightness). Our own choices are widths of 16-32-64 for both generators, and Adam at 1e-3
for generators and surrogate, where 1e-4 is told of the publication.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from MedProtectLib.fitting.batch import Batch
from MedProtectLib.methods.base import Case, Component, Purpose
from MedProtectLib.methods.generator import GeneratorMethod
from MedProtectLib.networks.unet import GeneratorUNet
from MedProtectLib.progress import Report, ignore
from MedProtectLib.regions import HALF_WIDTH
from MedProtectLib.texture import texture_map

if TYPE_CHECKING:
    from MedProtectLib.fitting.training import Training

CHANNELS = (16, 32, 64)


class UMedGenerators(nn.Module):
    """The two generators, with their outputs confined to where each may act."""

    def __init__(self, dimension: int, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        self.contour = GeneratorUNet(dimension, channels, central_difference=True)
        self.texture = GeneratorUNet(dimension, channels, central_difference=False)

    def forward(self, batch: Batch) -> Tensor:
        """The perturbation of a batch as a fraction of epsilon, in [-1, 1]."""
        contour = batch.contour * torch.tanh(self.contour(batch.image))
        texture = batch.interior * batch.texture * torch.tanh(self.texture(batch.image))
        return contour + texture


class UMed(GeneratorMethod[UMedGenerators]):
    """UMed with fitted generators, in 2D (slice by slice) or 3D."""

    name = "umed"
    title = "UMed: contour- and texture-aware perturbation"
    source = "arXiv 2403.14250, our re-implementation"
    needs = "labels; fitted generators (a profile)"
    component_names = ("contour", "texture")

    def __init__(self, dimension: int, half_width: int = HALF_WIDTH, channels: tuple[int, ...] = CHANNELS) -> None:
        self.channels = tuple(channels)
        super().__init__(Purpose(dimension, half_width=half_width), UMedGenerators(dimension, self.channels))

    @classmethod
    def fit(cls, training: Training) -> tuple[UMed, dict[str, Any]]:
        from MedProtectLib.fitting.cotrain import CotrainPlan, cotrain

        method = cls(training.purpose.dimension, training.purpose.half_width)
        return method, cotrain(method.generators, training, CotrainPlan(training.options.steps))

    def perturb(self, case: Case, epsilon: float, report: Report = ignore) -> dict[str, Component]:
        contour, texture = self.draw([self.generators.contour, self.generators.texture], case, report)
        contour_limit = (epsilon * case.regions.contour).astype(np.float32)
        texture_limit = (epsilon * texture_map(case.image)[case.region_box] * case.regions.interior).astype(np.float32)
        return {"contour": Component(contour_limit * contour, contour_limit), "texture": Component(texture_limit * texture, texture_limit)}

    def settings(self) -> dict[str, Any]:
        return {"dimension": self.dimension, "half_width": self.half_width, "channels": list(self.channels)}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> UMed:
        method = cls(int(settings["dimension"]), int(settings["half_width"]), tuple(int(c) for c in settings["channels"]))
        method.load(tensors)
        return method
