"""SEP: self-ensemble protection, targeted noise against many moments of one clean training.

    F_1 .. F_n: checkpoints of one training on clean images
    delta <- clamp(delta - alpha sign( mean over m of grad_delta L(F_m(clip(x + delta)), (y + s) mod K) ), -epsilon, epsilon)

Source: Chen et al., "Self-Ensemble Protection: Training Checkpoints Are Good Data Protectors", ICLR 2023: 30 checkpoints of 120
epochs, target (y + 5) mod 10, 30 steps of 1/255, epsilon 2/255 (8/255 as well). The variants with feature alignment and
variance reduction are not implemented.

Ours: 6 evenly spaced checkpoints by default, since the profile keeps them all and every step asks each (checkpoints=30, the
published number, makes profile and time per case 5 times as large); s is half the number of classes, rounded up; a step is
epsilon / 8, which is the published 1/255 at 8/255.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from MedProtectLib.fitting.gradient_noise import train_surrogate
from MedProtectLib.methods.base import Parameter
from MedProtectLib.methods.gradient import STEP, STEPS, GradientMethod
from MedProtectLib.methods.tap import shifted

if TYPE_CHECKING:
    from MedProtectLib.fitting.training import Training


class SEP(GradientMethod):
    """Targeted noise against the checkpoints of one clean training."""

    name = "sep"
    title = "SEP: self-ensemble protection"
    source = "Chen et al., ICLR 2023, our re-implementation"
    needs = "labels; the kept checkpoints of a surrogate (a profile), and an optimisation for every case"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "steps": Parameter(30, STEPS.low, STEPS.high, STEPS.meaning, whole=True),
        "step": Parameter(0.125, STEP.low, STEP.high, STEP.meaning),
        "checkpoints": Parameter(6, 1, 30, "how many moments of the training are kept", whole=True),
    }

    def learn(self, training: Training) -> tuple[list[nn.Module], dict[str, Any]]:
        steps, count = training.options.steps, int(self.chosen["checkpoints"])
        return train_surrogate(training, keep_at=sorted({max(1, steps * n // count) for n in range(1, count + 1)}))

    def wanted(self, targets: Tensor) -> Tensor:
        return shifted(targets, -(-self.purpose.outputs // 2), self.purpose.outputs)
