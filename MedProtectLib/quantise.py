"""From a perturbation in window units to whole levels: the bound, the PSNR target and the storage type meet here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from MedProtectLib.errors import MedProtectError

BINARY_GRID = 2.0**20
TIE_BREAK = 2.0**-20
BUDGET_USED = 0.998
MOST_HALVINGS = 60


def on_binary_grid(delta: np.ndarray) -> np.ndarray:
    """Window units rounded to multiples of 2^-20, so that the last bits of float arithmetic do not reach the file."""
    return np.rint(delta.astype(np.float64) * BINARY_GRID) / BINARY_GRID


def energy_budget(target_psnr: float, values: int, width_in_levels: float) -> float:
    """The largest sum of squared level changes at which ``values`` voxels still have the target PSNR.

    PSNR = -20 log10(rms difference / window width).
    """
    return values * (width_in_levels * 10.0 ** (-target_psnr / 20.0)) ** 2


def quantise(desired: np.ndarray, ceiling: np.ndarray, seed: int, budget: float | None = None) -> np.ndarray:
    """Whole-level changes for the region's voxels.

    With the wish d (in levels), the ceiling c and an amplitude 0 <= s <= 1 a voxel changes by

        q_s = sign(d) min(c, max(round(s |d|), 1 for the half of the voxels with the largest |d|))

    and s is the largest amplitude whose energy sum q_s^2 stays within the budget (s = 1 without a budget). A budget too
    small even for that half buys single levels, largest |d| first. Equal wishes are ordered by the seed.

    Args:
        desired: float (n,), signed wish in levels.
        ceiling: float (n,), whole levels >= 0 that a voxel may change at most.
        seed: breaks ties.
        budget: largest sum of squared changes.

    Returns:
        int32 (n,), or int64 where a change needs it.

    Raises:
        MedProtectError: no voxel is wished to change, or not a single one could.
    """
    if not desired.any():
        raise MedProtectError("the method leaves the regions as they are: they are too small for it. Use another method for this image.")
    able = (ceiling >= 1) & (desired != 0)
    jitter = 1.0 - TIE_BREAK * np.random.default_rng(seed).random(len(desired))
    magnitude = np.where(able, np.minimum(np.abs(desired), ceiling) * jitter, 0.0)
    half = min(-(-len(desired) // 2), int(able.sum()))
    singles = half if budget is None else int(min(half, budget))
    if singles < 1:
        raise MedProtectError(
            "the bound or the PSNR target lies below one stored level: nothing could be written. Allow a larger bound or a lower PSNR."
        )
    chosen = _largest(magnitude, singles)

    def at(amplitude: float) -> np.ndarray:
        return np.minimum(np.maximum(np.rint(amplitude * magnitude), chosen), ceiling)

    counts = at(1.0) if budget is None else _strongest_within(at, budget)
    kind = np.int32 if counts.max() <= np.iinfo(np.int32).max else np.int64
    return (np.sign(desired) * counts * able).astype(kind)


def _largest(magnitude: np.ndarray, count: int) -> np.ndarray:
    """1 for the ``count`` largest magnitudes, 0 elsewhere."""
    threshold = np.partition(magnitude, len(magnitude) - count)[len(magnitude) - count]
    chosen = magnitude > threshold
    tied = np.flatnonzero(magnitude == threshold)
    chosen[tied[: count - int(chosen.sum())]] = True
    return chosen.astype(np.float64)


def _strongest_within(at: Callable[[float], np.ndarray], budget: float) -> np.ndarray:
    """The changes at the largest amplitude in [0, 1] whose energy stays within the budget, by bisection."""
    full = at(1.0)
    if np.sum(full**2) <= budget:
        return full
    best, low, high = at(0.0), 0.0, 1.0
    for _ in range(MOST_HALVINGS):
        middle = (low + high) / 2
        counts = at(middle)
        energy = np.sum(counts**2)
        if energy > budget:
            high = middle
        else:
            best, low = counts, middle
            if energy >= BUDGET_USED * budget:
                break
    return best
