"""SALM: error-minimising noise on the voxels that matter most, since most of a medical image is empty.

    M(x) = the fraction r of the voxels that may change with the largest |grad_x L(F(x), y)|  (largest over the channels)
    delta <- M clamp(delta - alpha sign(grad_delta L), -epsilon, epsilon),   10 steps of alpha = epsilon / 5 from zero

Source: Sun et al., "Medical Unlearnable Examples", arXiv 2403.10573 (2024). Its code is not public and its fraction r, loop
and steps are not known to us: this is our re-implementation from public descriptions, with the steps of the same group's
earlier code (Liu et al., 10 steps of 1.6/255 at 8/255). At fraction 1 it is EM with these steps.

Defaults: r = 0.2. M is computed once per case, before the noise, over the whole image (a large one in tiles that see equally
much of it, so that their gradients compare); while fitting over each patch anew at
every visit, where kept noise outside the new M is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from MedProtectLib.fitting.batch import Batch
from MedProtectLib.fitting.gradient_noise import mean_gradient
from MedProtectLib.methods.base import Parameter
from MedProtectLib.methods.em import EM, VISIT
from MedProtectLib.methods.gradient import STEP, STEPS, Scene
from MedProtectLib.progress import Report


def top_fraction(size: np.ndarray, allowed: np.ndarray, fraction: float) -> np.ndarray:
    """The ``fraction`` of the allowed voxels (at least one) with the largest ``size``, bool; ties count as in."""
    among = size[allowed]
    if fraction >= 1.0 or not among.size:
        return allowed
    count = max(1, round(fraction * among.size))
    threshold = np.partition(among, among.size - count)[among.size - count]
    chosen: np.ndarray = allowed & (size >= threshold)
    return chosen


class SALM(EM):
    """Error-minimising noise on the voxels with the largest gradients."""

    name = "salm"
    title = "SALM: error-minimising noise on the most significant voxels"
    source = "arXiv 2403.10573, our re-implementation"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "steps": Parameter(10, STEPS.low, STEPS.high, STEPS.meaning, whole=True),
        "step": Parameter(0.2, STEP.low, STEP.high, STEP.meaning),
        "visit": Parameter(2, VISIT.low, VISIT.high, VISIT.meaning, whole=True),
        "fraction": Parameter(0.2, 0.001, 1.0, "share of the voxels that change, largest gradients first"),
    }

    def narrowed(self, scene: Scene, report: Report) -> np.ndarray:
        fraction = self.chosen["fraction"]
        return scene.touched if fraction >= 1.0 else top_fraction(self.gradient_size(scene, report), scene.touched, fraction)

    def touched_of_batch(self, batch: Batch, network: nn.Module, targets: Tensor) -> Tensor:
        fraction = self.chosen["fraction"]
        if fraction >= 1.0:
            return batch.touched
        gradient = mean_gradient([network], self.loss, batch.image, torch.zeros_like(batch.image), targets)
        sizes = gradient.abs().amax(dim=1, keepdim=True).cpu().numpy()
        chosen = [top_fraction(size, allowed > 0, fraction) for size, allowed in zip(sizes, batch.touched.cpu().numpy(), strict=True)]
        return torch.from_numpy(np.stack(chosen)).to(batch.touched)
