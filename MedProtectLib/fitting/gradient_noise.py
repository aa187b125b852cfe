"""The shared loop of gradient methods: noise by projected gradient steps, and a surrogate that may train on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from MedProtectLib.errors import UsageError
from MedProtectLib.fitting.batch import Batch
from MedProtectLib.fitting.checkpoint import SAVE_EVERY, Parts, load_checkpoint, save_checkpoint
from MedProtectLib.fitting.surrogates import Loss, loss_for, surrogate_for, targets_of
from MedProtectLib.fitting.team import Team, on_device
from MedProtectLib.fitting.training import Training
from MedProtectLib.methods.base import CLASSIFICATION
from MedProtectLib.progress import Stage

SURROGATE_RATE = 1e-3
SMOOTHING = 0.95

Noise = Callable[[nn.Module, Batch, Tensor], Tensor]


def projected_step(delta: Tensor, gradient: Tensor, step: float, limit: Tensor) -> Tensor:
    """One step of sign descent, projected back: clamp(delta - step sign(gradient), -limit, limit)."""
    return torch.minimum(torch.maximum(delta - step * gradient.sign(), -limit), limit)


def mean_gradient(networks: Sequence[nn.Module], loss: Loss, image: Tensor, delta: Tensor, targets: Tensor) -> Tensor:
    """The gradient of the loss by the noise at clip(image + delta), averaged over the networks."""
    total = torch.zeros_like(delta)
    for network in networks:
        moved = delta.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(network((image + moved).clamp(0.0, 1.0)), targets), moved)
        total += gradient
    return total / len(networks)


def descend(networks: Sequence[nn.Module], loss: Loss, image: Tensor, targets: Tensor, limit: Tensor, steps: int, step: float) -> Tensor:
    """Noise that lowers the networks' loss: ``steps`` projected steps of size ``step`` from zero.

    Args:
        networks: in eval mode.
        loss: of logits and targets.
        image: (b, c, [k,] j, i) in [0, 1].
        targets: what ``loss`` takes.
        limit: largest change of every voxel, of the image's shape or broadcast to it.
        steps: how many.
        step: size in window units.

    Returns:
        A tensor of the image's shape.
    """
    delta = torch.zeros_like(image)
    for _ in range(steps):
        delta = projected_step(delta, mean_gradient(networks, loss, image, delta, targets), step, limit)
    return delta.detach()


def train_surrogate(training: Training, noise: Noise | None = None, keep_at: Sequence[int] = ()) -> tuple[list[nn.Module], dict[str, Any]]:
    """Train a surrogate on clean patches, or on patches with the noise that is made against it at that very step.

    No noise is stored: ``noise`` makes it anew from the network as it is, so that it belongs to its patch by construction,
    memory does not grow with the cases, and an interrupted run ends with the same surrogate as an undisturbed one.

    Args:
        training: what to train on, and for how many steps.
        noise: (surrogate in eval mode, batch, targets) -> noise; None for clean patches.
        keep_at: numbers of steps after which the surrogate is kept, too; the last one is always kept.

    Returns:
        The kept surrogates in eval mode, oldest first, and the losses for the profile.
    """
    steps, source, device, team = training.options.steps, training.source(), training.device, Team()
    if team.size > 1 and training.purpose.task == CLASSIFICATION:
        raise UsageError("a fit for classification runs in one process: its networks normalise over the whole batch. Leave out torchrun.")
    surrogate, loss_of = surrogate_for(training.purpose).to(device), loss_for(training.purpose)
    optimiser = torch.optim.Adam(surrogate.parameters(), SURROGATE_RATE)
    parts: Parts = {"surrogate": surrogate, "optimiser": optimiser}
    start, smoothed = load_checkpoint(training.checkpoint, parts, training.identity)
    stage = Stage("fit", steps, training.report, start=start)
    for step in range(start, steps):
        batch = on_device(team.share_of(source.draw(step)), device)
        targets = targets_of(batch.classes, training.purpose)
        protected = batch.image
        if noise is not None:
            protected = (batch.image + noise(surrogate.eval(), batch, targets)).clamp(0.0, 1.0)
        loss = loss_of(surrogate.train()(protected), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        team.average_gradients(surrogate.parameters())
        optimiser.step()
        value = team.mean(loss)
        smoothed = value if smoothed is None else SMOOTHING * smoothed + (1 - SMOOTHING) * value
        if team.is_first and step + 1 in keep_at:
            save_checkpoint(_kept(training, step + 1), {"surrogate": surrogate}, step + 1, smoothed, training.identity)
        if team.is_first and ((step + 1) % SAVE_EVERY == 0 or step + 1 == steps):
            save_checkpoint(training.checkpoint, parts, step + 1, smoothed, training.identity)
        stage.at(step + 1, f"surrogate loss {smoothed:.3f}")
    team.wait()
    kept = []
    for number in keep_at:
        earlier = surrogate_for(training.purpose)
        load_checkpoint(_kept(training, number), {"surrogate": earlier}, training.identity)
        kept.append(earlier)
    networks = [*kept, surrogate] if steps not in keep_at else kept
    return [frozen(network.cpu()) for network in networks], {"steps": steps, "final_surrogate_loss": smoothed}


def _kept(training: Training, step: int) -> Path:
    return training.folder / f"kept_{step}.safetensors"


def frozen(network: nn.Module) -> nn.Module:
    """The network in eval mode, its weights no longer part of any gradient."""
    return network.eval().requires_grad_(False)
