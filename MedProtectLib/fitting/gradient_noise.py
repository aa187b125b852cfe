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
from MedProtectLib.fitting.kept_noise import KeptNoise
from MedProtectLib.fitting.surrogates import Loss, loss_for, surrogate_for, targets_of
from MedProtectLib.fitting.team import Team, on_device
from MedProtectLib.fitting.training import Training
from MedProtectLib.methods.base import CLASSIFICATION
from MedProtectLib.progress import Stage

SURROGATE_RATE = 1e-3
SMOOTHING = 0.95

Noise = Callable[[nn.Module, Batch, Tensor, Tensor], Tensor]


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


def mean_loss(networks: Sequence[nn.Module], loss: Loss, image: Tensor, delta: Tensor, targets: Tensor) -> float:
    """The loss at clip(image + delta), averaged over the networks."""
    with torch.no_grad():
        return sum(float(loss(network((image + delta).clamp(0.0, 1.0)), targets)) for network in networks) / len(networks)


def descend(
    networks: Sequence[nn.Module],
    loss: Loss,
    image: Tensor,
    targets: Tensor,
    limit: Tensor,
    steps: int,
    step: float,
    start: Tensor | None = None,
) -> Tensor:
    """Noise that lowers the networks' loss: ``steps`` projected steps of size ``step`` from ``start``.

    Args:
        networks: in eval mode.
        loss: of logits and targets.
        image: (b, c, [k,] j, i) in [0, 1].
        targets: what ``loss`` takes.
        limit: largest change of every voxel, of the image's shape or broadcast to it.
        steps: how many.
        step: size in window units.
        start: of the image's shape, within the limit; zero when None.

    Returns:
        A tensor of the image's shape.
    """
    delta = torch.zeros_like(image) if start is None else start
    for _ in range(steps):
        delta = projected_step(delta, mean_gradient(networks, loss, image, delta, targets), step, limit)
    return delta.detach()


def train_surrogate(training: Training, noise: Noise | None = None, keep_at: Sequence[int] = ()) -> tuple[list[nn.Module], dict[str, Any]]:
    """Train a surrogate on clean patches, or on patches with noise that goes on from visit to visit.

    At every step ``noise`` takes the kept noise of the step's patches further against the surrogate as it is, the surrogate
    trains on it, and it is kept again, on disk and case by case (:class:`~MedProtectLib.fitting.kept_noise.KeptNoise`).

    Args:
        training: what to train on, and for how many steps.
        noise: (surrogate in eval mode, batch, targets, kept noise of the batch) -> noise; None for clean patches.
        keep_at: numbers of steps after which the surrogate is kept, too; the last one is always kept.

    Returns:
        The kept surrogates in eval mode, oldest first, and the losses for the profile.
    """
    steps, source, device, team = training.options.steps, training.source(), training.device, Team()
    if team.size > 1 and training.purpose.task == CLASSIFICATION:
        raise UsageError("a fit for classification runs in one process: its networks normalise over the whole batch. Leave out torchrun.")
    surrogate, loss_of = surrogate_for(training.purpose).to(device), loss_for(training.purpose)
    optimiser = torch.optim.Adam(surrogate.parameters(), SURROGATE_RATE)
    kept = KeptNoise(training.folder / f"noise_{team.rank}", source, training.options.bound)
    parts: Parts = {"surrogate": surrogate, "optimiser": optimiser, "noise": kept}
    start, smoothed = load_checkpoint(training.checkpoint, parts, training.identity)
    stage = Stage("fit", steps, training.report, start=start)
    for step in range(start, steps):
        drawn, places = source.draw_located(step)
        batch = on_device(team.share_of(drawn), device)
        targets = targets_of(batch.classes, training.purpose)
        protected = batch.image
        if noise is not None:
            before = kept.read(places[team.rank :: team.size]).to(device)
            made = noise(surrogate.eval(), batch, targets, before)
            kept.write(places, team.whole(made).cpu())
            protected = (batch.image + kept.stored(made)).clamp(0.0, 1.0)
        loss = loss_of(surrogate.train()(protected), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        team.average_gradients(surrogate.parameters())
        optimiser.step()
        value = team.mean(loss)
        smoothed = value if smoothed is None else SMOOTHING * smoothed + (1 - SMOOTHING) * value
        if team.is_first and step + 1 in keep_at:
            save_checkpoint(_moment(training, step + 1), {"surrogate": surrogate}, step + 1, smoothed, training.identity)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            if team.is_first:
                save_checkpoint(training.checkpoint, parts, step + 1, smoothed, training.identity)
            team.wait()
            kept.settle()
        stage.at(step + 1, f"surrogate loss {smoothed:.3f}")
    team.wait()
    moments = []
    for number in keep_at:
        earlier = surrogate_for(training.purpose)
        load_checkpoint(_moment(training, number), {"surrogate": earlier}, training.identity)
        moments.append(earlier)
    networks = [*moments, surrogate] if steps not in keep_at else moments
    return [frozen(network.cpu()) for network in networks], {"steps": steps, "final_surrogate_loss": smoothed}


def _moment(training: Training, step: int) -> Path:
    return training.folder / f"kept_{step}.safetensors"


def frozen(network: nn.Module) -> nn.Module:
    """The network in eval mode, its weights no longer part of any gradient."""
    return network.eval().requires_grad_(False)
