"""TAP: targeted adversarial poisons, images that a clean network takes for another class.

    F = argmin_F E L(F(x), y),  then fixed
    min_{|delta| <= epsilon}  L(F(clip(x + delta)), (y + 1) mod K)

In segmentation every voxel aims at the next class of the label map, the background being class 0.

Source: Fowl et al., "Adversarial Examples Make Strong Poisons", NeurIPS 2021: epsilon 8/255, 250 steps of epsilon / 20, with
random starts, differentiable augmentation and 8 restarts of which the best is kept.

Ours: one start at zero and 50 steps of epsilon / 20 by default, since a case must not take hours on a CPU (time grows with
steps x restarts: the published numbers, steps=250 restarts=8, take 40 times as long). Of several starts the first is at zero,
the others are uniform in the bound; the one with the lowest loss is kept. No augmentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from MedProtectLib.fitting.gradient_noise import descend, mean_loss, train_surrogate
from MedProtectLib.methods.base import Parameter
from MedProtectLib.methods.gradient import STEP, STEPS, GradientMethod

if TYPE_CHECKING:
    from MedProtectLib.fitting.training import Training


class TAP(GradientMethod):
    """Targeted adversarial noise against a clean surrogate."""

    name = "tap"
    title = "TAP: targeted adversarial poison"
    source = "Fowl et al., NeurIPS 2021, our re-implementation"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "steps": Parameter(50, STEPS.low, STEPS.high, STEPS.meaning, whole=True),
        "step": Parameter(0.05, STEP.low, STEP.high, STEP.meaning),
        "restarts": Parameter(1, 1, 100, "starts per case, of which the one with the lowest loss is kept", whole=True),
        "shift": Parameter(1, 1, 1000, "by how many classes the target differs from the truth", whole=True),
    }

    def learn(self, training: Training) -> tuple[list[nn.Module], dict[str, Any]]:
        return train_surrogate(training)

    def wanted(self, targets: Tensor) -> Tensor:
        return shifted(targets, int(self.chosen["shift"]), self.purpose.outputs)

    def noise_on(self, networks: Sequence[nn.Module], image: Tensor, targets: Tensor, touched: Tensor, epsilon: float) -> Tensor:
        limit, aim = epsilon * touched, self.wanted(targets)
        steps, step = int(self.chosen["steps"]), self.chosen["step"] * epsilon
        made = [
            descend(networks, self.loss, image, aim, limit, steps, step, start)
            for start in starts(image, limit, int(self.chosen["restarts"]))
        ]
        return min(made, key=lambda noise: mean_loss(networks, self.loss, image, noise, aim)) if len(made) > 1 else made[0]


def starts(image: Tensor, limit: Tensor, count: int) -> Iterator[Tensor]:
    """Zero, then noise that is uniform in +-limit; the same ones for every image of one shape."""
    yield torch.zeros_like(image)
    for number in range(1, count):
        drawn = torch.rand(image.shape, generator=torch.Generator().manual_seed(number))
        yield limit * (2 * drawn.to(image) - 1)


def shifted(targets: Tensor, shift: int, outputs: int) -> Tensor:
    """(y + shift) mod K, or the next class where that is the truth itself."""
    return (targets + (shift % outputs or 1)) % outputs
