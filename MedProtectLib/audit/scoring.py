"""How well a victim does on clean cases, on their native grids.

DSC and IoU of a class: 0 where either the prediction or the truth is empty and the other is not; not counted where both are.
HD95: the 95th percentile of the distances between the two surfaces, in the units of the spacing (mm; pixels for pictures); the
diagonal of the image where one of the two is empty; not counted where both are. Means go over classes first, then over cases.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance

from MedProtectLib.audit.data import AuditData, Sample
from MedProtectLib.methods.base import CLASSIFICATION

PERCENTILE = 95


@dataclass(frozen=True)
class Scores:
    """Of cases and foreground classes: arrays (case, class), NaN where not counted. For classification only ``hits`` (case,)
    and ``balanced``, the mean of the classes' hit rates.
    """

    dsc: np.ndarray
    iou: np.ndarray
    hd95: np.ndarray
    hits: np.ndarray
    balanced: float | None = None

    @property
    def mean(self) -> float:
        """Mean DSC; for classification the balanced accuracy."""
        return mean_over(self.dsc) if self.balanced is None else self.balanced

    @property
    def accuracy(self) -> float | None:
        return float(self.hits.mean()) if self.hits.size else None


def constant_score(samples: Sequence[Sample], data: AuditData) -> float:
    """What a victim scores that has learned nothing: that says every class everywhere, or one class of those there are."""
    if data.task == CLASSIFICATION:
        return 1.0 / len({int(sample.target) for sample in samples})
    fractions = np.array([[float((sample.target == c).mean()) for c in range(1, data.outputs)] for sample in samples])
    return mean_over(np.where(fractions > 0, 2 * fractions / (1 + fractions), math.nan))


def mean_over(values: np.ndarray) -> float:
    """The mean over the counted classes of every case, then over cases; NaN where nothing was counted."""
    counted = ~np.isnan(values)
    cases = counted.any(axis=1)
    if not cases.any():
        return math.nan
    return float((np.where(counted, values, 0.0).sum(axis=1)[cases] / counted.sum(axis=1)[cases]).mean())


def score_predictions(told: Sequence[np.ndarray], samples: Sequence[Sample], data: AuditData, distances: bool = True) -> Scores:
    """Predictions ([k,] j, i) or () against the samples' targets; ``distances`` False leaves HD95 out (it takes longest)."""
    if data.task == CLASSIFICATION:
        truth = np.array([int(sample.target) for sample in samples])
        hits = np.array([int(t) for t in told]) == truth
        balanced = float(np.mean([hits[truth == c].mean() for c in np.unique(truth)]))
        return Scores(np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0)), hits, balanced)
    classes = range(1, data.outputs)
    rows = [[_class_scores(t == c, s.target == c, s, distances) for c in classes] for t, s in zip(told, samples, strict=True)]
    values = np.array(rows, np.float64)
    return Scores(values[..., 0], values[..., 1], values[..., 2], np.zeros(0, bool))


def _class_scores(told: np.ndarray, truth: np.ndarray, sample: Sample, distances: bool) -> tuple[float, float, float]:
    sizes = int(told.sum()), int(truth.sum())
    if not any(sizes):
        return math.nan, math.nan, math.nan
    common = int((told & truth).sum())
    spacing = sample.case.volume.geometry.spacing_kji[3 - truth.ndim :]
    if not distances:
        distance = math.nan
    elif not all(sizes):
        distance = math.dist((0.0,) * truth.ndim, [n * s for n, s in zip(truth.shape, spacing, strict=True)])
    else:
        distance = _hd95(told, truth, spacing)
    return 2 * common / sum(sizes), common / (sum(sizes) - common), distance


def _hd95(told: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> float:
    near = _box_around(told | truth)
    first, second = (torch.from_numpy(np.pad(mask[near], 1))[None, None] for mask in (told, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(compute_hausdorff_distance(first, second, include_background=True, percentile=PERCENTILE, spacing=list(spacing)))


def _box_around(mask: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(int(hit.min()), int(hit.max()) + 1) for hit in np.nonzero(mask))
