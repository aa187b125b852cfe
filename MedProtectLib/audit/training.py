"""The one training loop of all victims and regimes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from torch import nn
from torch.nn import functional

from MedProtectLib.audit.batches import Normalisation, Preparation, Prepared, draw
from MedProtectLib.audit.data import VALIDATION, AuditData, Sample
from MedProtectLib.audit.regimes import Knowledge, Loss, Regime
from MedProtectLib.audit.scoring import Scores, score_predictions
from MedProtectLib.audit.victims import Shape, victim_for
from MedProtectLib.device import placed, process_device
from MedProtectLib.errors import MedProtectError
from MedProtectLib.methods.base import CLASSIFICATION
from MedProtectLib.progress import Report, Stage, ignore

EVALUATIONS = 10
DECAY = 0.9
LARGEST_GRADIENT = 12.0
OVERLAP = 0.25
WINDOWS_AT_ONCE = 4


@dataclass(frozen=True)
class Predictor:
    """A trained victim with all that its trainer does to an image before."""

    network: nn.Module = field(repr=False)
    preparation: Preparation
    task: str

    def __call__(self, sample: Sample) -> np.ndarray:
        """The classes ([k,] j, i) of the sample on its native grid, or its class as an array of no axes."""
        return self.of_prepared(self.preparation(sample), sample.image.shape[1:])

    @torch.no_grad()
    def of_prepared(self, prepared: Prepared, shape: Sequence[int]) -> np.ndarray:
        """As for a sample of that native shape."""
        self.network.eval()
        image = prepared.image[None]
        if self.task == CLASSIFICATION:
            return self.network(image)[0].argmax().numpy()
        setting = self.preparation.setting
        if setting.resized:
            mode = "bilinear" if len(shape) == 2 else "trilinear"
            logits = functional.interpolate(self.network(image), tuple(shape), mode=mode)
        else:
            logits = torch.as_tensor(sliding_window_inference(image, setting.size, WINDOWS_AT_ONCE, self.network, overlap=OVERLAP))
        return logits[0].argmax(0).numpy()


@dataclass(frozen=True)
class Trained:
    """A victim at the last step and at the best of ``EVALUATIONS`` looks at clean validation cases.

    Both say the classes of a sample on its native grid. ``curve``: (step, validation score) of every look; ``loss``: mean training
    loss of the last tenth of the steps; ``network``: that of the last step.
    """

    last: Callable[[Sample], np.ndarray]
    best: Callable[[Sample], np.ndarray]
    curve: tuple[tuple[int, float], ...]
    loss: float
    network: nn.Module = field(default_factory=nn.Identity, repr=False)


def train_victim(
    data: AuditData,
    released: Sequence[Sample],
    regime: Regime | None = None,
    victim: str | None = None,
    seed: int = 0,
    steps: int | None = None,
    public: AuditData | None = None,
    report: Report = ignore,
) -> Trained:
    """Train a victim on what was released, look at clean validation cases on the way, and give it back.

    Args:
        data: the data set that the samples come from; its ``val`` cases choose the best step.
        released: training samples, protected or not.
        regime: how it trains; plainly when None.
        victim: its name; the setting's when None.
        seed: of weights, batches and augmentation; the same seed gives the same victim on one number of threads, on a GPU nearly.
        steps: the setting's when None.
        public: another clean data set, for the regimes that need one.
        report: told the progress.

    Raises:
        UsageError: unknown victim, or one for another task. MedProtectError: the training diverged, or nothing is labelled.
    """
    regime, setting = regime or Regime(), data.setting
    victim, steps = victim or setting.victim, steps or setting.steps
    knowledge = Knowledge(data, released, public, victim, seed, steps, report)
    network = fresh_victim(data, victim, seed)
    if regime.start is not None:
        regime.start(network, knowledge)
    for build in regime.attack:
        attack = build(knowledge)
        released = [Sample(sample.case, attack(sample)) for sample in released]
        knowledge = replace(knowledge, released=released)
    preparation = Preparation(setting, Normalisation.of(data, released), tuple(build(knowledge) for build in regime.purify))
    samples = [preparation(sample) for sample in released]
    validation = data.samples(VALIDATION)
    prepared = [preparation(sample) for sample in validation]
    augment = None if regime.augment is None else regime.augment(data.dimension)
    loss_of = loss_for(data)
    optimiser = torch.optim.Adam(network.parameters(), setting.rate)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, steps, DECAY)
    looks = looks_of(steps)
    stage = Stage(f"train {victim}", steps, report)
    curve: list[tuple[int, float]] = []
    losses: list[float] = []
    best = copy.deepcopy(network)
    torch.manual_seed(seed)
    for step in range(steps):
        network.train()
        batch = draw(samples, setting, seed, step, augment)
        if regime.strategy is None:
            loss = loss_of(network(batch.images), batch.targets)
        else:
            loss = regime.strategy(network, batch, loss_of, np.random.default_rng([seed, step, 1]))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise MedProtectError(f"the training of victim '{victim}' diverged after {step + 1} steps: a score would say nothing.")
        if step + 1 in looks:
            value = _look(Predictor(network, preparation, data.task), validation, prepared, data).mean
            if not curve or value > max(v for _, v in curve):
                best.load_state_dict(network.state_dict())
            curve.append((step + 1, value))
        stage.at(step + 1, f"loss {np.mean(losses[-20:]):.3f}" + (f", clean validation {curve[-1][1]:.3f}" if curve else ""))
    last, at_best = (Predictor(net.eval(), preparation, data.task) for net in (network, best))
    return Trained(last, at_best, tuple(curve), float(np.mean(losses[-max(1, steps // 10) :])), network)


def looks_of(steps: int) -> list[int]:
    """The steps after which a victim is looked at: ``EVALUATIONS``, evenly, the last one included; fewer where there are fewer steps."""
    return sorted({max(1, round(steps * n / EVALUATIONS)) for n in range(1, EVALUATIONS + 1)})


def fresh_victim(data: AuditData, victim: str, seed: int) -> nn.Module:
    """The victim's network with the weights of a seed, on the process's GPU where there is one; images and logits are on the CPU."""
    shape = Shape(data.dimension, data.channels, data.outputs, data.setting.size, data.setting.width)
    built = victim_for(victim, data.task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return placed(built.build(shape), process_device())


def loss_for(data: AuditData) -> Loss:
    """Dice of the foreground + cross-entropy, or cross-entropy for classification."""
    if data.task == CLASSIFICATION:
        return functional.cross_entropy
    loss: Loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    return loss


def score(predictor: Callable[[Sample], np.ndarray], samples: Sequence[Sample], data: AuditData, distances: bool = True) -> Scores:
    """How well a victim does on samples, such as ``data.samples("test")``; without ``distances`` there is no HD95."""
    return score_predictions([predictor(sample) for sample in samples], samples, data, distances)


def _look(predictor: Predictor, samples: Sequence[Sample], prepared: Sequence[Prepared], data: AuditData) -> Scores:
    told = [predictor.of_prepared(p, sample.image.shape[1:]) for p, sample in zip(prepared, samples, strict=True)]
    return score_predictions(told, samples, data, distances=False)
