"""The shared loop of generator methods: generators and a surrogate lower the same loss in turns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import nn

from MedProtectLib.fitting.checkpoint import Parts, load_checkpoint, save_checkpoint
from MedProtectLib.fitting.patches import PatchSource
from MedProtectLib.progress import Report, Stage

SURROGATE_CHANNELS = (16, 32, 64, 128)
SMOOTHING = 0.95


@dataclass(frozen=True)
class CotrainPlan:
    """How long and how fast: every ``surrogate_every``-th step trains the surrogate, the others the generators."""

    steps: int
    batch: int
    patch: tuple[int, ...]
    surrogate_every: int = 5
    generator_rate: float = 1e-3
    surrogate_rate: float = 1e-3
    save_every: int = 50

    def as_settings(self) -> dict[str, Any]:
        return asdict(self)


def surrogate_unet(dimension: int, classes: int) -> nn.Module:
    """The network that stands in for a victim while fitting."""
    strides = (2,) * (len(SURROGATE_CHANNELS) - 1)
    return UNet(dimension, 1, classes, SURROGATE_CHANNELS, strides, num_res_units=1, norm="instance")


def cotrain(
    generators: nn.Module,
    surrogate: nn.Module,
    source: PatchSource,
    plan: CotrainPlan,
    epsilon: float,
    checkpoint: Path,
    identity: str,
    report: Report,
) -> float:
    """Run the plan (from the checkpoint on, if there is one) and return the smoothed loss at its end.

    Step t draws its own patches from the seed, so that a run that was interrupted ends where an undisturbed one does.
    """
    optimisers = {
        "generator_optimiser": torch.optim.Adam(generators.parameters(), plan.generator_rate),
        "surrogate_optimiser": torch.optim.Adam(surrogate.parameters(), plan.surrogate_rate),
    }
    parts: Parts = {"generators": generators, "surrogate": surrogate, **optimisers}
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    start, smoothed = load_checkpoint(checkpoint, parts, identity)
    stage = Stage("fit", plan.steps, report, start=start)
    for step in range(start, plan.steps):
        batch = source.draw(step)
        trains_surrogate = step % plan.surrogate_every == 0
        protected = (batch.image + epsilon * generators(batch)).clamp(0.0, 1.0)
        loss = loss_of(surrogate(protected), batch.classes)
        optimiser = optimisers["surrogate_optimiser" if trains_surrogate else "generator_optimiser"]
        for each in optimisers.values():
            each.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        smoothed = float(loss.detach()) if smoothed is None else SMOOTHING * smoothed + (1 - SMOOTHING) * float(loss.detach())
        if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
            save_checkpoint(checkpoint, parts, step + 1, smoothed, identity)
        stage.at(step + 1, f"surrogate loss {smoothed:.3f}")
    return float("nan") if smoothed is None else smoothed
