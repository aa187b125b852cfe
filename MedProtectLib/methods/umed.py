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
the gradient), the pattern compares strictly (so that flat areas get the least, not the most), and the generators have no
normalisation over space (so that a slab, a tile and the volume agree).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from MedProtectLib.fitting.batch import Batch
from MedProtectLib.methods.base import Case, Component, Method
from MedProtectLib.networks.tiling import run_in_tiles
from MedProtectLib.networks.unet import GeneratorUNet
from MedProtectLib.progress import Report, Stage, ignore
from MedProtectLib.regions import HALF_WIDTH
from MedProtectLib.texture import texture_map

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


class UMed(Method):
    """UMed with fitted generators, in 2D (slice by slice) or 3D."""

    name = "umed"
    title = "UMed: contour- and texture-aware perturbation"
    source = "arXiv 2403.14250, our re-implementation"
    needs = "labels; fitted generators (a profile)"
    component_names = ("contour", "texture")

    def __init__(self, dimension: int, half_width: int = HALF_WIDTH, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__(dimension, half_width)
        self.channels = tuple(channels)
        self.generators = UMedGenerators(dimension, self.channels).eval()

    def perturb(self, case: Case, epsilon: float, report: Report = ignore) -> dict[str, Component]:
        networks = [self.generators.contour, self.generators.texture]
        image = np.clip(case.image, 0.0, 1.0)
        wanted = case.on_context(case.regions.touched)
        if self.planar:
            slices = np.flatnonzero(wanted.any(axis=(1, 2)))
            stage = Stage("generate", len(slices), report)
            outputs = np.zeros((2, *image.shape), np.float32)
            for done, k in enumerate(slices, start=1):
                outputs[:, k] = run_in_tiles(networks, image[k], wanted[k])
                stage.at(done)
        else:
            outputs = np.stack(run_in_tiles(networks, image, wanted, report=report))
        contour, texture = (output[case.region_box] for output in outputs)
        contour_limit = (epsilon * case.regions.contour).astype(np.float32)
        texture_limit = (epsilon * texture_map(case.image)[case.region_box] * case.regions.interior).astype(np.float32)
        return {"contour": Component(contour_limit * contour, contour_limit), "texture": Component(texture_limit * texture, texture_limit)}

    def settings(self) -> dict[str, Any]:
        return {"dimension": self.dimension, "half_width": self.half_width, "channels": list(self.channels)}

    def tensors(self) -> dict[str, np.ndarray]:
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.generators.state_dict().items()}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> UMed:
        method = cls(int(settings["dimension"]), int(settings["half_width"]), tuple(int(c) for c in settings["channels"]))
        method.generators.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()})
        return method
