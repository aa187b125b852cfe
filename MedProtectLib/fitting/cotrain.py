"""The shared loop of generator methods: generators and a surrogate lower the same loss in turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from MedProtectLib.fitting.batch import Batch
from MedProtectLib.fitting.checkpoint import SAVE_EVERY, Parts, load_checkpoint, save_checkpoint
from MedProtectLib.fitting.surrogates import segmentation_loss, surrogate_unet
from MedProtectLib.fitting.team import Team, on_device
from MedProtectLib.fitting.training import Training
from MedProtectLib.progress import Stage

SMOOTHING = 0.95

Penalty = Callable[[Batch, Tensor, Tensor, nn.Module], Tensor]


@dataclass(frozen=True)
class CotrainPlan:
    """How long and how fast: every ``surrogate_every``-th step trains the surrogate, the others the generators."""

    steps: int
    surrogate_every: int = 5
    generator_rate: float = 1e-3
    surrogate_rate: float = 1e-3

    def as_settings(self) -> dict[str, Any]:
        return asdict(self)


def cotrain(generators: nn.Module, training: Training, plan: CotrainPlan, penalty: Penalty | None = None) -> dict[str, Any]:
    """Run the plan (from the checkpoint on, if there is one); the surrogate's smoothed loss at its end, and the plan.

    Step t draws its own patches from the seed, so that a run that was interrupted ends where an undisturbed one does.
    The generators minimise the surrogate's loss plus the ``penalty`` of (batch, perturbation as a fraction of the bound,
    surrogate's logits on the protected patches, surrogate).
    """
    source, epsilon, device, team = training.source(), training.options.bound, training.device, Team()
    surrogate = surrogate_unet(training.purpose.dimension, source.classes).to(device)
    loss_of = segmentation_loss()
    generators.train().to(device)
    optimisers = {
        "generator_optimiser": torch.optim.Adam(generators.parameters(), plan.generator_rate),
        "surrogate_optimiser": torch.optim.Adam(surrogate.parameters(), plan.surrogate_rate),
    }
    parts: Parts = {"generators": generators, "surrogate": surrogate, **optimisers}
    start, smoothed = load_checkpoint(training.checkpoint, parts, training.identity)
    stage = Stage("fit", plan.steps, training.report, start=start)
    for step in range(start, plan.steps):
        batch = on_device(team.share_of(source.draw(step)), device)
        trains_surrogate = step % plan.surrogate_every == 0
        drawn = generators(batch)
        logits = surrogate((batch.image + epsilon * drawn).clamp(0.0, 1.0))
        loss = loss_of(logits, batch.classes)
        objective = loss if penalty is None or trains_surrogate else loss + penalty(batch, drawn, logits, surrogate)
        optimiser = optimisers["surrogate_optimiser" if trains_surrogate else "generator_optimiser"]
        for each in optimisers.values():
            each.zero_grad(set_to_none=True)
        objective.backward()
        team.average_gradients((surrogate if trains_surrogate else generators).parameters())
        optimiser.step()
        value = team.mean(loss)
        smoothed = value if smoothed is None else SMOOTHING * smoothed + (1 - SMOOTHING) * value
        if team.is_first and ((step + 1) % SAVE_EVERY == 0 or step + 1 == plan.steps):
            save_checkpoint(training.checkpoint, parts, step + 1, smoothed, training.identity)
        stage.at(step + 1, f"surrogate loss {smoothed:.3f}")
    generators.eval().cpu()
    return {"plan": plan.as_settings(), "final_surrogate_loss": smoothed}
