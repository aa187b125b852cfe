"""TAP: targeted adversarial poisons, images that a clean network takes for another class.

    F = argmin_F E L(F(x), y),  then fixed
    min_{|delta| <= epsilon}  L(F(clip(x + delta)), (y + 1) mod K)

In segmentation every voxel aims at the next class of the label map, the background being class 0.

Source: Fowl et al., "Adversarial Examples Make Strong Poisons", NeurIPS 2021: epsilon 8/255, 250 steps of epsilon / 20, with
random starts, differentiable augmentation and up to 8 restarts of which the best is kept.

Ours: one start at zero, no augmentation, 50 steps of epsilon / 20 by default, since a case must not take hours on a CPU;
steps=250 is the published number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from MedProtectLib.fitting.gradient_noise import train_surrogate
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
        "steps": Parameter(50, STEPS.low, STEPS.high, STEPS.meaning),
        "step": Parameter(0.05, STEP.low, STEP.high, STEP.meaning),
        "shift": Parameter(1, 1, 1000, "by how many classes the target differs from the truth"),
    }

    def learn(self, training: Training) -> tuple[list[nn.Module], dict[str, Any]]:
        return train_surrogate(training)

    def wanted(self, targets: Tensor) -> Tensor:
        return shifted(targets, int(self.chosen["shift"]), self.purpose.outputs)


def shifted(targets: Tensor, shift: int, outputs: int) -> Tensor:
    """(y + shift) mod K, or the next class where that is the truth itself."""
    return (targets + (shift % outputs or 1)) % outputs
