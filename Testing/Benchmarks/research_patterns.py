"""Victims on simple patterns, the first question of every idea in Documentation/Research.md.

    python Testing/Benchmarks/research_patterns.py busi_native --work ../audit_work --patterns none checker blocks --psnr 50.1 --steps 400

Patterns are scaled to the PSNR (whole image, at most --bound), in pictures rounded to 1/255 and cut at black and white, and added in
memory. One JSON line a run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from audit_data import DATASETS, dataset_of
from scipy.ndimage import binary_dilation, distance_transform_edt

from MedProtectLib.audit.data import AuditData, Sample
from MedProtectLib.audit.registry import regime_of
from MedProtectLib.audit.training import score, train_victim

LARGEST_LEVELS = 8.0
BAND = 3
FLOWER = np.array([[-8, 8, -6, 3], [8, 4, -8, 1], [-6, -8, 5, 0], [3, 1, 0, 0]]) / 8
Pattern = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def checker(inside: np.ndarray, cell: int = 1) -> np.ndarray:
    """+-1 in cubes of ``cell`` voxels, on the grid of a mask ([k,] j, i)."""
    return 1.0 - 2.0 * (sum(places // cell for places in np.indices(inside.shape)) % 2)


def band(inside: np.ndarray) -> np.ndarray:
    """What lies around a mask, ``BAND`` voxels wide."""
    return binary_dilation(inside, iterations=BAND) & ~inside


def rim(inside: np.ndarray, width: float) -> np.ndarray:
    """The outermost ``width`` voxels of a mask."""
    return inside & (distance_transform_edt(np.pad(inside, 1))[(slice(1, -1),) * inside.ndim] <= width)


def domains(inside: np.ndarray, edge: int) -> np.ndarray:
    """Random signs in blocks of ``edge`` voxels, the same for every image."""
    count = max(inside.shape) // edge + 1
    signs = np.random.default_rng(3).choice([-1.0, 1.0], (count,) * inside.ndim)
    return signs[tuple(places // edge for places in np.indices(inside.shape))]


def dots(inside: np.ndarray, period: int, edge: int = 3, cell: int = 1, start: int = 0) -> np.ndarray:
    """Chequered cubes of ``edge`` voxels, one every ``period`` voxels from ``start`` on, on the grid of a mask; 0 between them."""
    places = [(place - start) % period for place in np.indices(inside.shape)]
    return np.prod([place < edge for place in places], axis=0) * (1.0 - 2.0 * (sum(place // cell for place in places) % 2))


def rings(inside: np.ndarray, period: int, start: int = 0) -> np.ndarray:
    """Round spots, 1 within 1.5 voxels and negative up to 2.5 so that their sum is 0, on a lattice of the mask's grid."""
    squared = sum(((places - start) % period - 2) ** 2 for places in np.indices(inside.shape))
    centre, ring = squared <= 1.5**2, (squared > 1.5**2) & (squared < 2.5**2)
    return centre - ring * (centre.sum() / max(ring.sum(), 1))


def lattices(inside: np.ndarray, *of_dots: tuple[int, int, int, int]) -> np.ndarray:
    """Dots of several lattices (period, edge, cell, start); where they meet, the later ones stay."""
    out = np.zeros(inside.shape)
    for period, edge, cell, start in of_dots:
        further = dots(inside, period, edge, cell, start)
        out = np.where(further != 0, further, out)
    return out


def flowers(inside: np.ndarray, period: int) -> np.ndarray:
    """The round mark ``FLOWER`` every ``period`` voxels of a slice."""
    quadrant = np.abs(np.indices((7, 7)) - 3)
    tile = np.zeros((period, period))
    tile[:7, :7] = FLOWER[tuple(quadrant)]
    j, i = (places % period for places in np.indices(inside.shape)[-2:])
    return tile[j, i]


def thinned(pattern: np.ndarray, period: int, psnr_db: float = 50.15) -> np.ndarray:
    """Whole dots of a lattice left out at random, the same in every image, until the rest has that PSNR at ``LARGEST_LEVELS``."""
    places = [place // period for place in np.indices(pattern.shape)]
    order = np.random.default_rng(5).permutation(int(np.prod([int(place.max()) + 1 for place in places])))
    number = order[np.ravel_multi_index(places, [int(place.max()) + 1 for place in places])]
    energy = np.cumsum(np.bincount(number.ravel(), (pattern**2).ravel(), len(order)))
    kept = energy * (LARGEST_LEVELS / 255) ** 2 <= 10 ** (-psnr_db / 10) * pattern.size
    return pattern * kept[number]


def woven(inside: np.ndarray, pattern: np.ndarray, ground: float) -> np.ndarray:
    """A pattern in a mask, and a quiet texture between its dots and, with the phase turned, around the mask."""
    return np.where(pattern == 0, ground * checker(inside), pattern) * inside - ground * checker(inside) * band(inside)


PATTERNS: dict[str, Pattern | None] = {
    "none": None,
    "noise": lambda inside, rng: rng.choice([-1.0, 1.0], inside.shape) * inside,
    "checker": lambda inside, rng: checker(inside) * inside,
    "checker_band": lambda inside, rng: checker(inside) * (inside | band(inside)),
    "turned": lambda inside, rng: checker(inside) * (1.0 * inside - band(inside)),
    "contour_only": lambda inside, rng: checker(inside) * (rim(inside, BAND) | band(inside)),
    "rim": lambda inside, rng: checker(inside) * rim(inside, 10),
    "blocks": lambda inside, rng: checker(inside, 2) * inside,
    "blocks_rim": lambda inside, rng: checker(inside, 2) * rim(inside, 10),
    "blocks_domains": lambda inside, rng: checker(inside, 2) * domains(inside, 16) * inside,
    "octaves": lambda inside, rng: (checker(inside) + checker(inside, 2)) / 2 * inside,
    "dots4": lambda inside, rng: dots(inside, 4, 2) * inside,
    "dots6": lambda inside, rng: dots(inside, 6) * inside,
    "dots8": lambda inside, rng: dots(inside, 8) * inside,
    "dots8_4": lambda inside, rng: dots(inside, 8, 4) * inside,
    "dots10": lambda inside, rng: dots(inside, 10, 4) * inside,
    "dots12": lambda inside, rng: dots(inside, 12, 4) * inside,
    "dots8_5": lambda inside, rng: dots(inside, 8, 5) * inside,
    "dots10_5": lambda inside, rng: dots(inside, 10, 5) * inside,
    "dots12_7": lambda inside, rng: dots(inside, 12, 7) * inside,
    "dots8_anywhere": lambda inside, rng: dots(inside, 8, start=int(rng.integers(8))) * inside,
    "dots8_dark": lambda inside, rng: -dots(inside, 8) * inside,
    "dots8_elsewhere": lambda inside, rng: dots(inside, 8, start=5) * inside,
    "dots8_5_anywhere": lambda inside, rng: dots(inside, 8, 5, start=int(rng.integers(8))) * inside,
    "dots8_turned": lambda inside, rng: dots(inside, 8) * (1.0 * inside - band(inside)),
    "blots12": lambda inside, rng: dots(inside, 12, 6, 2) * inside,
    "squares8": lambda inside, rng: dots(inside, 8, 6, 2) * inside,
    "flowers8": lambda inside, rng: flowers(inside, 8) * inside,
    "flowers12": lambda inside, rng: flowers(inside, 12) * inside,
    "dots_squares_dense": lambda inside, rng: lattices(inside, (8, 3, 1, 0), (8, 4, 2, 4)) * inside,
    "dots_squares_half": lambda inside, rng: lattices(inside, (8, 3, 1, 0), (16, 4, 2, 4), (16, 4, 2, 12)) * inside,
    "dots_squares_wide": lambda inside, rng: lattices(inside, (8, 3, 1, 0), (16, 6, 2, 4), (32, 12, 4, 12)) * inside,
    "dots_coarse": lambda inside, rng: lattices(inside, (8, 3, 1, 0), (32, 16, 4, 8)) * inside,
    "three_dots": lambda inside, rng: lattices(inside, (8, 3, 1, 0), (16, 4, 2, 4), (32, 16, 4, 8)) * inside,
    "two_dots": lambda inside, rng: (dots(inside, 8) + dots(inside, 16, 4, 2, 4)) * inside,
    "quiet_two": lambda inside, rng: (dots(inside, 8) / 4 + dots(inside, 16, 4, 2, 4)) * inside,
    "half_quiet_two": lambda inside, rng: (dots(inside, 8) / 2 + dots(inside, 16, 4, 2, 4)) * inside,
    "quiet_half": lambda inside, rng: (dots(inside, 8) / 4 + dots(inside, 16, 4, 2, 4) + dots(inside, 16, 4, 2, 12)) * inside,
    "quiet_dense": lambda inside, rng: (dots(inside, 8) / 4 + dots(inside, 8, 4, 2, 4)) * inside,
    "rings8": lambda inside, rng: rings(inside, 8) * inside,
    "dots_rings": lambda inside, rng: (dots(inside, 8, 4) + rings(inside, 8, 4)) * inside,
    "thin_dots": lambda inside, rng: thinned(dots(inside, 8, 4) * inside, 8),
    "ground": lambda inside, rng: woven(inside, dots(inside, 8, 4), 0.12),
    "dense_two": lambda inside, rng: (dots(inside, 8, 4) + dots(inside, 8, 4, 2, 4)) * inside,
    "turned_octaves": lambda inside, rng: (checker(inside) + checker(inside, 2)) / 2 * (1.0 * inside - band(inside)),
}


def at_psnr(pattern: np.ndarray, psnr_db: float, bound: float, step: float, rng: np.random.Generator, largest: float = 1.0) -> np.ndarray:
    """The pattern times a factor of at most ``largest``, at a PSNR, within the bound, in whole steps: rounded up or down by chance, the
    mean kept.
    """
    chance, budget = rng.random(pattern.shape), 10 ** (-psnr_db / 10) * pattern.size

    def scaled(factor: float) -> np.ndarray:
        size = np.minimum(np.abs(pattern) * factor, bound)
        size = np.floor(size / step + chance) * step if step else size
        return np.sign(pattern) * np.minimum(size, bound)

    low, high = 0.0, largest
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum(scaled(middle) ** 2) <= budget else (low, middle)
    return scaled(low)


def protected(
    data: AuditData, pattern: Pattern, psnr_db: float, bound: float, seed: int, largest: float = 1.0
) -> tuple[list[Sample], list[float]]:
    """The training samples with a pattern, and the PSNR of each in dB."""
    images, reached = {}, []
    for n, sample in enumerate(data.samples("train")):
        rng = np.random.default_rng([seed, n])
        change = at_psnr(pattern(sample.target > 0, rng), psnr_db, bound, 1 / 255 if data.dimension == 2 else 0.0, rng, largest)
        if data.dimension == 2:
            change = np.clip(sample.image + change, 0.0, 1.0) - sample.image
        images[sample.case.name] = sample.image + change
        reached.append(-10 * np.log10(np.mean(change**2)))
    return data.samples("train", images), reached


def main() -> None:
    """Train and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--patterns", nargs="+", choices=PATTERNS, default=list(PATTERNS))
    parser.add_argument("--psnr", type=float, default=50.1)
    parser.add_argument("--bound", type=float, default=LARGEST_LEVELS, help="in 1/255")
    parser.add_argument("--keep-shape", action="store_true", help="quiet parts stay quiet where the PSNR would let them reach the bound")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--regime", default="none")
    parser.add_argument("--victim", default=None, help="default: the data set's")
    parser.add_argument("--width", type=int, default=None, help="channels of the victim's first level; default: the data set's")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = dataset_of(given.dataset, given.work)
    setting = replace(data.setting, steps=given.steps or data.setting.steps, width=given.width or data.setting.width)
    data = replace(data, setting=setting)
    for name in given.patterns:
        pattern = PATTERNS[name]
        largest = given.bound / 255 if given.keep_shape else 1.0
        made = pattern and protected(data, pattern, given.psnr, given.bound / 255, 0, largest)
        released, reached = made or (data.samples("train"), [])
        for seed in given.seeds:
            trained = train_victim(data, released, regime_of(given.regime), given.victim, seed)
            found = {
                "dataset": given.dataset,
                "pattern": name,
                "regime": given.regime,
                "victim": given.victim or setting.victim,
                "width": setting.width,
                "seed": seed,
                "bound": given.bound,
                "steps": setting.steps,
            }
            found["psnr_db"] = round(float(np.mean(reached)), 2) if reached else None
            for when, predictor in (("dsc", trained.last), ("dsc_best_epoch", trained.best)):
                found[when] = round(score(predictor, data.samples("test"), data, distances=False).mean, 3)
            print(json.dumps(found | {"loss": round(trained.loss, 3), "curve": trained.curve}), flush=True)


if __name__ == "__main__":
    main()
