"""Victims on patterns of whole images that tell class from class, for section 21 of Documentation/Research.md.

    python Testing/Benchmarks/research_classes.py pneumoniamnist --patterns none axes spots7 woven7 --regimes none augmented --seeds 0 1

Two classes, patterns at the bound, rounded to 1/255 by chance, cut at black and white and added in memory. One JSON line a run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from audit_data import MEDMNIST, dataset_of

from MedProtectLib.audit.data import AuditData, Sample
from MedProtectLib.audit.registry import regime_of
from MedProtectLib.audit.training import score, train_victim

RADIUS = 0.3
BLOCK = 4
Shape = tuple[int, ...]
Pattern = Callable[[int, Shape], np.ndarray]


def checker(shape: Shape, cell: int = 1, axes: Sequence[int] = (0, 1)) -> np.ndarray:
    """+-1 in squares of ``cell`` that alternate along ``axes``."""
    places = np.indices(shape)
    return 1.0 - 2.0 * (sum(places[axis] // cell for axis in axes) % 2)


def axes(number: int, shape: Shape, cell: int = 1) -> np.ndarray:
    """Chequers for the first class, stripes for the second."""
    return checker(shape, cell, ((0, 1), (0,))[number])


def zero_sum(inside: np.ndarray) -> np.ndarray:
    """1 inside a mask, elsewhere what makes the sum zero."""
    return np.where(inside, 1.0, -inside.mean() / (1 - inside.mean()))


def squares(number: int, shape: Shape, period: int, edge: int) -> np.ndarray:
    """Bright squares for the first class, dark ones for the second."""
    j, i = np.indices(shape) % period
    return (1, -1)[number] * zero_sum((j < edge) & (i < edge))


def spots(number: int, shape: Shape, distance: int) -> np.ndarray:
    """Bright spots on a triangular lattice for the first class, dark ones for the second."""
    places, steps = np.indices(shape), (distance, distance * 3**0.5)
    near = [
        sum(((place + (turn + 1) * step / 2) % step - step / 2) ** 2 for place, step in zip(places, steps, strict=True)) for turn in (0, 1)
    ]
    return (1, -1)[number] * zero_sum(np.minimum(*near) <= (RADIUS * distance) ** 2)


def blocks(number: int, shape: Shape) -> np.ndarray:
    """LSP without its noise: random signs in blocks, as many of each."""
    signs = np.random.default_rng([7, number]).permuted(np.repeat([-1.0, 1.0], 32)).reshape(8, 8)
    j, i = np.indices(shape) // BLOCK % 8
    return signs[j, i]


PATTERNS: dict[str, Pattern | None] = {
    "none": None,
    "noise": None,
    "blocks": blocks,
    "axes": axes,
    "axes2": lambda n, shape: axes(n, shape, 2),
    "cells": lambda n, shape: checker(shape, n + 1),
    "squares4": lambda n, shape: squares(n, shape, 4, 2),
    **{f"spots{d}": lambda n, shape, d=d: spots(n, shape, d) for d in (5, 6, 7, 8, 9)},
    **{f"quarter{d}": lambda n, shape, d=d: axes(n, shape) / 4 + 3 * spots(n, shape, d) / 4 for d in (5, 7, 9)},
    **{f"half{d}": lambda n, shape, d=d: axes(n, shape) / 2 + spots(n, shape, d) / 2 for d in (7, 8)},
    "woven7": lambda n, shape: np.clip(axes(n, shape) / 2 + spots(n, shape, 7), -1, 1),
}


def protected(data: AuditData, name: str, bound: float) -> tuple[list[Sample], float | None]:
    """The training samples with a pattern, and their mean PSNR in dB."""
    pattern, images, energies = PATTERNS[name], {}, []
    for n, sample in enumerate(data.samples("train")) if name != "none" else ():
        shape, rng = sample.image.shape, np.random.default_rng([1, n])
        drawn = rng.choice([-1.0, 1.0], shape) if pattern is None else np.broadcast_to(pattern(int(sample.target), shape[1:]), shape)
        change = np.sign(drawn) * np.floor(np.abs(drawn) * bound + rng.random(shape)) / 255
        images[sample.case.name] = np.clip(sample.image + change, 0.0, 1.0)
        energies.append(np.mean((images[sample.case.name] - sample.image) ** 2))
    return data.samples("train", images), round(float(-10 * np.log10(np.mean(energies))), 2) if energies else None


def main() -> None:
    """Train and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=MEDMNIST)
    parser.add_argument("--patterns", nargs="+", choices=PATTERNS, default=list(PATTERNS))
    parser.add_argument("--regimes", nargs="+", default=["none"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--bound", type=float, default=8.0, help="in 1/255")
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = dataset_of(given.dataset, Path())
    data = replace(data, setting=replace(data.setting, steps=given.steps))
    for name in given.patterns:
        released, psnr = protected(data, name, given.bound)
        for regime in given.regimes:
            for seed in given.seeds:
                trained = train_victim(data, released, regime_of(regime), None, seed)
                found = {"dataset": given.dataset, "pattern": name, "regime": regime, "seed": seed, "bound": given.bound, "psnr_db": psnr}
                for when, predictor in (("last", trained.last), ("best_epoch", trained.best)):
                    found[when] = round(score(predictor, data.samples("test"), data, distances=False).mean, 3)
                print(json.dumps(found | {"steps": given.steps, "loss": round(trained.loss, 3), "curve": trained.curve}), flush=True)


if __name__ == "__main__":
    main()
