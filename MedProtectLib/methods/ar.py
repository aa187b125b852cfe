"""AR: an autoregressive process per class and channel; a network needs one small convolution to recognise it.

    x(j, i) = sum over a, b in 0..2, (a, b) != (2, 2), of  w(a, b) x(j + a - 2, i + b - 2),     sum of w = 1

from a Gaussian start in the first two rows and columns. The filter that subtracts the prediction answers 0 on its own class
and not on the others.

Source: Sandoval-Segura et al., "Autoregressive Perturbations for Data Poisoning", NeurIPS 2022: fields of 36 x 36 of which
the first 4 rows and columns are cropped, at an L2 norm of 1.0 for 32 x 32 x 3 pixels.

Ours: larger images are covered by such fields of 32 x 32, volumes slice by slice, every field with a start of its own; the
recursion goes by tiles (the same numbers as pixel by pixel). The coefficients of all classes are chosen
together from a bounded number of draws, the set whose smallest mutual answer is the largest found; draws that explode,
vanish or are not finite are left out. A field's mean is taken away, to which a filter with sum 1 is blind. The largest change
is the bound; rms=0.018 with a larger bound gives the published L2 norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from MedProtectLib.errors import MedProtectError
from MedProtectLib.methods.base import Parameter, Purpose
from MedProtectLib.methods.pattern import RMS, PatternMethod
from MedProtectLib.regions import Box

CORE, CROP, ORDER = 32, 4, 3
LARGEST_NORM, SMALLEST_NORM = 50.0, 1.5
TRIAL_FIELDS = 16
POOL_PER_SET, SMALLEST_POOL = 3, 24
DRAWS_PER_POOL_PLACE = 60
MOST_STARTS = 8
TILE = 12
EDGE = np.ones((TILE + 2, TILE + 2), bool)
EDGE[2:, 2:] = False


def autoregress(start: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Run the recursion over fields.

    It is linear, so that a tile is a fixed matrix times the two rows above it and the two columns left of it. Tiles on one
    antidiagonal do not depend on each other and are one matrix product.

    Args:
        start: float64 (n, j, i), of which the first two rows and columns are kept.
        weights: float64 (3, 3); the last one is not used.

    Returns:
        float64 (n, j, i), equal to the recursion voxel by voxel up to rounding.
    """
    count, height, width = start.shape
    rows, columns = -(-(height - 2) // TILE), -(-(width - 2) // TILE)
    field = np.zeros((count, rows * TILE + 2, columns * TILE + 2))
    field[:, :2, :width], field[:, :height, :2] = start[:, :2], start[:, :, :2]
    tiles = sliding_window_view(field, EDGE.shape, axis=(1, 2), writeable=True)[:, ::TILE, ::TILE]
    inside = _tile_from_edge(weights)
    for diagonal in range(rows + columns - 1):
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        column = diagonal - row
        edges = tiles[:, row, column][..., EDGE]
        tiles[:, row, column, 2:, 2:] = (edges @ inside).reshape(count, len(row), TILE, TILE)
    return field[:, :height, :width]


def _tile_from_edge(weights: np.ndarray) -> np.ndarray:
    """What the recursion makes of every single voxel of a tile's edge: float64 (edge voxel, tile voxel)."""
    taps = np.append(weights.ravel()[:-1], 0.0)
    edge = int(EDGE.sum())
    answers = np.zeros((*EDGE.shape, edge))
    answers[EDGE] = np.eye(edge)
    for j in range(2, TILE + 2):
        for i in range(2, TILE + 2):
            answers[j, i] = taps @ answers[j - 2 : j + 1, i - 2 : i + 1].reshape(taps.size, -1)
    return answers[2:, 2:].reshape(TILE * TILE, -1).T


def answer(field: np.ndarray, weights: np.ndarray) -> float:
    """Root mean square of what the filter with these weights leaves of fields (n, j, i), against that of the fields."""
    rows, columns = field.shape[1] - 2, field.shape[2] - 2
    left = field[:, 2:, 2:].copy()
    for a in range(ORDER):
        for b in range(ORDER):
            if (a, b) != (2, 2):
                left -= weights[a, b] * field[:, a : a + rows, b : b + columns]
    return float(np.sqrt(np.mean(left**2) / np.mean(field**2)))


def products(field: np.ndarray) -> np.ndarray:
    """Mean products of the nine voxels under a filter on fields (n, j, i), by those of the fields, float64 (9, 9).

    The square of :func:`answer` is f' P f with the filter's taps f and these products P, whatever the filter.
    """
    seen = sliding_window_view(field, (ORDER, ORDER), axis=(1, 2)).reshape(-1, ORDER * ORDER)
    found: np.ndarray = seen.T @ seen / (len(seen) * np.mean(field**2))
    return found


def answers_of(weights: np.ndarray, found: np.ndarray) -> np.ndarray:
    """What :func:`answer` says of all filters (m, 3, 3) on all processes' :func:`products` (n, 9, 9), float64 (n, m)."""
    taps = -weights.reshape(-1, ORDER * ORDER)
    taps[:, -1] = 1.0
    squares = found.reshape(len(found), -1) @ (taps[:, :, None] * taps[:, None]).reshape(len(taps), -1).T
    answers: np.ndarray = np.sqrt(np.maximum(squares, 0.0))
    return answers


def usable(fields: np.ndarray) -> np.ndarray:
    """Which fields (n, j, i), transient rows cropped, are finite, bounded and not flat: bool (n,)."""
    within = np.where(np.isfinite(fields), np.abs(fields), np.inf).max(axis=(1, 2)) <= LARGEST_NORM
    bounded = np.where(within[:, None, None], fields, 0.0)
    norm = np.sqrt(((bounded - bounded.mean(axis=(1, 2), keepdims=True)) ** 2).sum(axis=(1, 2)))
    good: np.ndarray = (norm >= SMALLEST_NORM) & (norm <= LARGEST_NORM)
    return good


def draw_fields(count: int, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fields of CORE x CORE with a start of their own and transients cropped, float64 (count, CORE, CORE); not checked."""
    with np.errstate(over="ignore", invalid="ignore"):
        return autoregress(rng.standard_normal((count, CORE + CROP, CORE + CROP)), weights)[:, CROP:, CROP:]


def usable_fields(count: int, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fields as :func:`draw_fields` gives them, those that are not usable drawn again.

    Raises:
        MedProtectError: the process gives none.
    """
    fields = draw_fields(count, weights, rng)
    for _ in range(MOST_STARTS):
        bad = np.flatnonzero(~usable(fields))
        if not bad.size:
            return fields
        fields[bad] = draw_fields(bad.size, weights, rng)
    raise MedProtectError("the profile's autoregressive process is not stable. Fit another one with 'medprotect fit --method ar'.")


def search_weights(sets: int, rng: np.random.Generator) -> np.ndarray:
    """Coefficients whose filters answer least to their own process and much to the others', float64 (sets, 3, 3).

    Raises:
        MedProtectError: too few stable processes were found in the bounded number of draws.
    """
    wanted = max(SMALLEST_POOL, POOL_PER_SET * sets)
    pool: list[np.ndarray] = []
    found: list[np.ndarray] = []
    for _ in range(DRAWS_PER_POOL_PLACE * wanted):
        weights = rng.standard_normal((ORDER, ORDER))
        weights[2, 2] = 0.0
        weights /= weights.sum()
        trial = draw_fields(TRIAL_FIELDS, weights, rng)
        if usable(trial).all():
            pool.append(weights)
            found.append(products(trial - trial.mean(axis=(1, 2), keepdims=True)))
        if len(pool) == wanted:
            break
    if len(pool) < sets:
        raise MedProtectError(f"only {len(pool)} of {sets} stable autoregressive processes were found. Try another --seed.")
    answers = answers_of(np.stack(pool), np.stack(found))
    mutual = np.minimum(answers, answers.T)
    chosen = [int(np.argmax(mutual.sum(axis=1)))]
    while len(chosen) < sets:
        nearest = mutual[:, chosen].min(axis=1)
        nearest[chosen] = -1.0
        chosen.append(int(np.argmax(nearest)))
    return np.stack([pool[n] for n in chosen])


class AR(PatternMethod):
    """Autoregressive patterns."""

    name = "ar"
    title = "AR: autoregressive patterns"
    source = "Sandoval-Segura et al., NeurIPS 2022, our re-implementation"
    parameters: ClassVar[Mapping[str, Parameter]] = {"rms": RMS}
    from_places = False

    @classmethod
    def draw_fixed(cls, purpose: Purpose, parameters: Mapping[str, float], rng: np.random.Generator) -> np.ndarray:
        """Coefficients, float64 (class, channel, 3, 3)."""
        sets = search_weights(purpose.outputs * purpose.image_channels, rng)
        return sets.reshape(purpose.outputs, purpose.image_channels, *cls.shape_of_one(purpose))

    @staticmethod
    def shape_of_one(purpose: Purpose) -> tuple[int, ...]:
        return (ORDER, ORDER)

    def pattern(self, number: int, channel: int, box: Box, seed: list[int]) -> np.ndarray:
        weights = self.fixed[number, channel].astype(np.float64)
        height, width = (s.stop - s.start for s in box[1:])
        rows, columns = -(-height // CORE), -(-width // CORE)
        drawn = np.empty((box[0].stop - box[0].start, height, width))
        for k, out in enumerate(drawn, start=box[0].start):
            fields = usable_fields(rows * columns, weights, np.random.default_rng([*seed, k]))
            fields -= fields.mean(axis=(1, 2), keepdims=True)
            fields /= np.abs(fields).max(axis=(1, 2), keepdims=True)
            whole = fields.reshape(rows, columns, CORE, CORE).swapaxes(1, 2).reshape(rows * CORE, columns * CORE)
            out[:] = whole[:height, :width]
        return drawn
