"""An attacker who knows Weave: finds where its lattices begin from the release and its labels alone, and takes the knots away."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from MedProtectLib.audit.attackers import LOOKED_AT, detail_of, regions_of, subtract_found
from MedProtectLib.audit.data import Sample
from MedProtectLib.audit.regimes import Attack, Knowledge
from MedProtectLib.methods.base import Case, Purpose
from MedProtectLib.methods.weave import Weave


def subtract_weave(knowledge: Knowledge) -> Attack:
    """Weave's default knots taken away: origins by correlation over the release, then fine and coarse knots as loud as they are found."""
    data = knowledge.data
    purpose = Purpose(data.dimension, data.task, image_channels=data.channels, classes=data.classes)
    samples = [sample for sample in knowledge.released if sample.case.labelled][:LOOKED_AT]
    both = _found(purpose, samples)
    coarse = Weave(purpose, both.chosen | {"fine": 0.0}, both.fixed)

    def kinds(sample: Sample) -> np.ndarray:
        coarse_knots = _knots(coarse, sample)
        return np.stack([_knots(both, sample) - coarse_knots, coarse_knots])

    return subtract_found(knowledge, kinds)


def _found(purpose: Purpose, samples: Sequence[Sample]) -> Weave:
    """Weave with the origin at which every class of every channel correlates best with the images' detail, all knots alike."""
    parameters = Weave.checked_parameters({"fine": 1.0})
    shape = (purpose.outputs, purpose.image_channels)
    origins = np.array(list(product(range(0, int(parameters["period"]), 2), repeat=2)), np.float32)
    details = [detail_of(sample.image) for sample in samples]
    scores = np.zeros((len(origins), *shape))
    for n, origin in enumerate(origins):
        weave = Weave(purpose, parameters, np.broadcast_to(origin, (*shape, 2)).copy())
        for sample, detail in zip(samples, details, strict=True):
            products = detail * _knots(weave, sample)
            for number in range(purpose.outputs):
                scores[n, number] += products.reshape(len(products), -1) @ np.ravel(
                    np.broadcast_to(sample.target == number, products.shape[1:])
                )
    return Weave(purpose, parameters, origins[scores.argmax(axis=0)])


def _knots(weave: Weave, sample: Sample) -> np.ndarray:
    """The knots of the full bound 1 on a sample's grid, (c, [k,] j, i)."""
    regions, shape = regions_of(sample), sample.case.volume.geometry.shape
    classes = sample.case.labels.classes(weave.purpose.classes)[regions.box]
    solid = sample.image.reshape(len(sample.image), *shape)
    parts = weave.perturb_channels([Case(channel[regions.box], classes, regions, regions.box) for channel in solid], 1.0)
    drawn = [regions.on_grid(np.sum([component.values for component in part.values()], axis=0), shape) for part in parts]
    return np.stack(drawn).reshape(sample.image.shape)
