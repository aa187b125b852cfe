"""How far does noise get that is made against augmenting victims? (Documentation/Research.md)

    python Testing/Benchmarks/research_cotrain.py busi_native --work ../audit_work --start two_dots --rounds 6 --round-steps 400
    python Testing/Benchmarks/research_cotrain.py busi_native --work ../audit_work --start two_dots --objective lookahead

Every training image has a change of its own, within its dilated labels, the bound and the PSNR. Surrogates are trained one after the
other from new weights on batches that are augmented as the victim's are; every step also moves the changes of its batch, through the
augmentation, to where an objective is smaller: the surrogate's loss (error-minimising noise), or how much a step of the surrogate on
this batch helps it on the same batch without changes (one-step look-ahead on the clean loss, to first order). One JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from audit_data import DATASETS, dataset_of
from research_patterns import BAND, PATTERNS, protected
from scipy.ndimage import binary_dilation
from torch import Tensor, nn

from MedProtectLib.audit.batches import Normalisation, Preparation, Prepared, draw
from MedProtectLib.audit.data import AuditData, Sample
from MedProtectLib.audit.registry import regime_of
from MedProtectLib.audit.training import DECAY, LARGEST_GRADIENT, fresh_victim, loss_for, score, train_victim

LARGEST = 8 / 255
STRIDE = 0.15
FIRST_SURROGATE = 100


class Change:
    """The change of one image in window units (1, j, i), kept within region, bound and energy."""

    def __init__(self, sample: Sample, start: np.ndarray, psnr_db: float) -> None:
        self.sample = sample
        self.image = torch.from_numpy(sample.image.astype(np.float32))
        region = binary_dilation(sample.target > 0, iterations=BAND)
        self.region = torch.from_numpy(region)[None]
        self.energy = 10 ** (-psnr_db / 10) * sample.image.size
        self.value = torch.from_numpy(start.astype(np.float32))

    def move(self, slope: Tensor) -> None:
        """A step of a share of the energy down the slope."""
        slope = torch.where(self.region & slope.isfinite(), slope, 0.0)
        step = -STRIDE * self.energy**0.5 * slope / (slope.norm() + 1e-12)
        moved = (self.value + step).clamp(-LARGEST, LARGEST)
        moved = (self.image + moved).clamp(0.0, 1.0) - self.image
        self.value = moved * self.region * min(1.0, (self.energy / max(float(moved.square().sum()), 1e-12)) ** 0.5)

    def stored(self, rng: np.random.Generator) -> np.ndarray:
        """The changed image in whole levels, rounded up or down by chance."""
        levels = np.clip(np.floor(self.value.numpy() * 255 + rng.random(self.image.shape)), -8, 8)
        inside = np.clip(self.sample.image + levels / 255, 0.0, 1.0)
        return np.where(self.region.numpy(), inside, self.sample.image)


class Leaves(Sequence[Prepared]):
    """Prepared samples with their changes, of which those that are asked for collect gradients."""

    def __init__(self, changes: Sequence[Change], prepared: Sequence[Prepared]) -> None:
        self.changes, self.prepared = changes, prepared
        self.drawn: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.changes)

    def __getitem__(self, number: int) -> Prepared:
        leaf = self.drawn.setdefault(number, self.changes[number].value.clone().requires_grad_(True))
        sample = self.prepared[number]
        return sample._replace(image=sample.image + leaf * sample.units)


def agreement(slopes: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
    """Cosine of two gradients of a network: below 0, a step on the one batch makes the loss of the other larger."""
    product, own, other = (
        sum((a * b).sum() for a, b in zip(first, second, strict=True))
        for first, second in ((slopes, clean), (slopes, slopes), (clean, clean))
    )
    return product / (own * other).sqrt().clamp_min(1e-12)


def surrogate_round(data: AuditData, changes: list[Change], given: argparse.Namespace, seed: int) -> tuple[float, float]:
    """Train a new surrogate, as a victim of ``given.steps`` begins, and move the changes with it; means of loss and objective in the
    last tenth.
    """
    network = fresh_victim(data, data.setting.victim, seed)
    augment = regime_of(given.regime).augment
    transform = None if augment is None else augment(data.dimension)
    preparation = Preparation(data.setting, Normalisation.of(data, [c.sample for c in changes]))
    prepared = [preparation(c.sample) for c in changes]
    optimiser = torch.optim.Adam(network.parameters(), data.setting.rate)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, given.steps, DECAY)
    loss_of, told, weights = loss_for(data), [], list(network.parameters())
    looks_ahead = given.objective == "lookahead"
    torch.manual_seed(seed)
    for step in range(given.round_steps):
        network.train()
        samples = Leaves(changes, prepared)
        batch = draw(samples, data.setting, seed, step, transform)
        loss = loss_of(network(batch.images), batch.targets)
        slopes = torch.autograd.grad(loss, weights, create_graph=looks_ahead, retain_graph=True)
        objective = loss
        if looks_ahead:
            unchanged = draw(prepared, data.setting, seed, step, transform)
            objective = agreement(slopes, torch.autograd.grad(loss_of(network(unchanged.images), unchanged.targets), weights))
        leaves = list(samples.drawn.values())
        moves = torch.autograd.grad(objective, leaves, allow_unused=True)
        for weight, slope in zip(weights, slopes, strict=True):
            weight.grad = slope.detach()
        nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimiser.step()
        schedule.step()
        for number, move in zip(samples.drawn, moves, strict=True):
            if move is not None:
                changes[number].move(move)
        told.append((float(loss.detach()), float(objective.detach())))
    loss, objective = np.mean(told[-max(1, given.round_steps // 10) :], axis=0)
    return float(loss), float(objective)


def main() -> None:
    """Make the changes, train a victim and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--start", choices=PATTERNS, default="none")
    parser.add_argument("--objective", choices=("loss", "lookahead"), default="loss")
    parser.add_argument("--psnr", type=float, default=50.2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--round-steps", type=int, default=400)
    parser.add_argument("--regime", default="augmented")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = dataset_of(given.dataset, given.work)
    clean = data.samples("train")
    pattern = PATTERNS[given.start]
    begun = clean if pattern is None else protected(data, pattern, given.psnr, LARGEST, 0)[0]
    changes = [Change(sample, with_it.image - sample.image, given.psnr) for sample, with_it in zip(clean, begun, strict=True)]
    for number in range(given.rounds):
        at = time.monotonic()
        loss, objective = surrogate_round(data, changes, given, FIRST_SURROGATE + number)
        print(f"round {number}: surrogate loss {loss:.3f}, objective {objective:.3f}, {time.monotonic() - at:.0f} s", flush=True)
    rng = np.random.default_rng(0)
    released = data.samples("train", {c.sample.case.name: c.stored(rng) for c in changes})
    reached = [-10 * np.log10(np.mean((r.image - s.image) ** 2)) for r, s in zip(released, clean, strict=True)]
    trained = train_victim(data, released, regime_of(given.regime), seed=given.seed, steps=given.steps)
    found = {name: value for name, value in vars(given).items() if name != "work"}
    found |= {"psnr_db": round(float(np.mean(reached)), 2), "psnr_min_db": round(float(np.min(reached)), 2)}
    for when, predictor in (("dsc", trained.last), ("dsc_best_epoch", trained.best)):
        found[when] = round(score(predictor, data.samples("test"), data, distances=False).mean, 3)
    print(json.dumps(found | {"loss": round(trained.loss, 3), "curve": trained.curve}), flush=True)


if __name__ == "__main__":
    main()
