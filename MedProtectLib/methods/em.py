"""EM: error-minimising noise, with which there is nothing left to learn.

    min_F  E [ min_{|delta| <= epsilon}  L(F(clip(x + delta)), y) ]
    delta <- clamp(delta - alpha sign(grad_delta L), -epsilon, epsilon),   20 steps of alpha = epsilon / 10 from zero

L: Dice + cross-entropy for segmentation, cross-entropy for classification.

Source: Huang et al., "Unlearnable Examples: Making Personal Data Unexploitable", ICLR 2021: sample-wise, epsilon 8/255, 20
steps of 0.8/255, ten batches for the surrogate and then one noise pass over all data, until the error is below 1 %.

Ours differs, on purpose: the surrogate trains in every step on noise that is made against it at that step (as the code
of later work by Fu et al. and Liu et al. does) for a fixed number of steps, since the error may never fall far enough; noise
is not carried over from step to step, so that the surrogate learns from just the noise that a new case gets from it later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from MedProtectLib.fitting.gradient_noise import train_surrogate
from MedProtectLib.methods.gradient import GradientMethod

if TYPE_CHECKING:
    from MedProtectLib.fitting.batch import Batch
    from MedProtectLib.fitting.training import Training


class EM(GradientMethod):
    """Error-minimising noise, made for each case."""

    name = "em"
    title = "EM: error-minimising noise"
    source = "Huang et al., ICLR 2021, our re-implementation"

    def learn(self, training: Training) -> tuple[list[nn.Module], dict[str, Any]]:
        def noise(surrogate: nn.Module, batch: Batch, targets: Tensor) -> Tensor:
            return self.noise_of_batch(batch, surrogate, targets, training.options.bound)

        return train_surrogate(training, noise)
