"""Attackers who know the tool. The labels are public, so they know the regions; they work on the released training images."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter

from MedProtectLib.audit.data import Sample
from MedProtectLib.audit.regimes import Attack, Knowledge
from MedProtectLib.audit.restorer import EDGE, cut_around, fit_restorer
from MedProtectLib.errors import UsageError
from MedProtectLib.methods.base import CONTEXT, Case, Method
from MedProtectLib.profile import LARGEST_BOUND, Profile, shipped_profile
from MedProtectLib.protector import Protector
from MedProtectLib.regions import HALF_WIDTH, Regions, find_regions, grown
from MedProtectLib.window import choose_windows

BLUR_SIGMA, FILL_SIGMA, DETAIL_SIGMA = 1.0, 2.0, 1.0
LOOKED_AT, PAIRS = 20, 5
SMALLEST_WEIGHT = 1e-6
LOG = logging.getLogger(__name__)


def regions_of(sample: Sample) -> Regions:
    """The regions that the tool would find, interior and contour band; the whole image for classification."""
    labelled = sample.case.labels.classes() > 0
    width = 0 if sample.case.labels.of_whole_image else HALF_WIDTH
    return find_regions(labelled, width, planar=sample.case.planar)


def _in_regions(change: Callable[[np.ndarray, np.ndarray], np.ndarray], sample: Sample, contour_only: bool = False) -> np.ndarray:
    """The image with the values that ``change`` (channel (k, j, i), mask) gives in the regions."""
    if not sample.case.labelled:
        return sample.image
    regions = regions_of(sample)
    mask = regions.on_grid(regions.contour if contour_only else regions.touched, sample.case.volume.geometry.shape)
    solid = sample.image.reshape(len(sample.image), *mask.shape)
    changed = np.stack([np.where(mask, change(channel, mask), channel) for channel in solid])
    return changed.reshape(sample.image.shape).astype(np.float32)


def _blurred(channel: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(channel, [0 if n == 1 else sigma for n in channel.shape])


def _filled(channel: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask's voxels as weighted means of those outside it (normalised convolution), from near to far."""
    out, known = channel * ~mask, (~mask).astype(np.float32)
    sigma = FILL_SIGMA
    while known.min() <= 0:
        weight = _blurred(known, sigma)
        reached = (known == 0) & (weight > SMALLEST_WEIGHT)
        out = np.where(reached, _blurred(out, sigma) / np.maximum(weight, SMALLEST_WEIGHT), out)
        known = np.where(reached, np.float32(1), known)
        sigma *= 2
        if sigma > max(channel.shape):
            break
    return out


def blur_regions(knowledge: Knowledge) -> Attack:
    """Gaussian blur of sigma 1 in the regions alone."""
    return partial(_in_regions, lambda channel, mask: _blurred(channel, BLUR_SIGMA))


def inpaint_regions(knowledge: Knowledge) -> Attack:
    """Interior and band filled from outside."""
    return partial(_in_regions, _filled)


def inpaint_contour(knowledge: Knowledge) -> Attack:
    """The contour band filled from both of its sides."""
    return partial(_in_regions, _filled, contour_only=True)


def snap_levels(knowledge: Knowledge) -> Attack:
    """Values in the regions put to the nearest value that occurs outside them: undoes what lies beside an image's level grid."""

    def snapped(channel: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if mask.all():
            return channel
        levels = np.unique(channel[~mask])
        upper = np.searchsorted(levels, channel).clip(1, max(1, len(levels) - 1)).clip(0, len(levels) - 1)
        lower = np.maximum(upper - 1, 0)
        return np.where(channel - levels[lower] <= levels[upper] - channel, levels[lower], levels[upper])

    return partial(_in_regions, snapped)


def public_profile(knowledge: Knowledge) -> tuple[Profile, Method]:
    """The profile that is shipped with the tool for such data, and its method.

    Raises:
        UsageError: there is none for the data's dimension and task.
    """
    dimension, task = knowledge.data.dimension, knowledge.data.task
    if shipped_profile("umed", dimension) is None:
        raise UsageError(f"no profile is shipped for {dimension}D, so there is nothing to subtract.")
    profile, method = Protector("umed").fitted(dimension)
    if method.purpose.task != task:
        raise UsageError(f"the shipped profile is for {method.purpose.task}; regime 'subtract_public' is for such data only.")
    return profile, method


def subtract_public(knowledge: Knowledge) -> Attack:
    """What the profile that is shipped with the tool would add, taken away, as loud as it is found in the release."""
    profile, method = public_profile(knowledge)

    def kinds(sample: Sample) -> np.ndarray:
        return pattern_of(sample, profile, method)[None]

    return subtract_found(knowledge, kinds)


def pattern_of(sample: Sample, profile: Profile, method: Method) -> np.ndarray:
    """What the tool would add to a sample at the full bound 1, with a profile and its method: (c, [k,] j, i)."""
    case, regions = sample.case, regions_of(sample)
    tools = choose_windows(case.volume, regions, profile.modality, profile.window)
    shape = case.volume.geometry.shape
    context = grown(regions.box, (CONTEXT, CONTEXT, CONTEXT), shape)
    solid = sample.image.reshape(len(sample.image), *shape)
    per_channel = [
        (tool, own) for part, tool, own in zip(case.volume.parts(), tools, case.windows, strict=True) for _ in part.intensity_channels
    ]
    seen = [tool.normalise(image[context] * own.width + own.low) for image, (tool, own) in zip(solid, per_channel, strict=True)]
    classes = case.labels.classes()[context]
    parts = method.perturb_channels([Case(image, classes, regions, context) for image in seen], 1.0)
    added = [
        regions.on_grid(np.sum([p.values for p in part.values()], axis=0), shape) * (tool.width / own.width)
        for part, (tool, own) in zip(parts, per_channel, strict=True)
    ]
    return np.stack(added).reshape(sample.image.shape)


def subtract_found(knowledge: Knowledge, kinds: Callable[[Sample], np.ndarray]) -> Attack:
    """Patterns of a sample (kind, c, [k,] j, i) at the full bound 1, taken away with the amplitudes that least squares find.

    An image's own equations are added to the mean ones of the release, which decide where a region is too small to tell.
    """
    samples = [sample for sample in knowledge.released if sample.case.labelled][:LOOKED_AT]
    common = np.mean([_equations(sample.image, kinds(sample)) for sample in samples], axis=0)

    def attack(sample: Sample) -> np.ndarray:
        if not sample.case.labelled:
            return sample.image
        here = kinds(sample)
        equations = _equations(sample.image, here) + common
        amplitudes = np.linalg.lstsq(equations[:, :-1], equations[:, -1])[0].clip(0.0, LARGEST_BOUND)
        return (sample.image - np.tensordot(amplitudes, here, 1)).astype(np.float32)

    return attack


def _equations(image: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """What the amplitudes of several kinds of patterns (kind, c, [k,] j, i) solve: a matrix with its right side, (kind, kind + 1)."""
    details = np.stack([*map(detail_of, kinds), detail_of(image)])
    return kinds.reshape(len(kinds), -1) @ details.reshape(len(details), -1).T


def detail_of(image: np.ndarray) -> np.ndarray:
    """What a blur of every slice takes away."""
    smooth: np.ndarray = gaussian_filter(image, [0.0] * (image.ndim - 2) + [DETAIL_SIGMA] * 2)
    return image - smooth


def learn_from_pairs(knowledge: Knowledge) -> Attack:
    """A small network learns the perturbation from a few originals that leaked, with the labels at hand, and takes it away.

    From a release without a change it learns nothing.
    """
    pairs = knowledge.leaked(PAIRS)
    if not pairs:
        return lambda sample: sample.image
    if len(pairs) < PAIRS:
        LOG.warning("learn_from_pairs: only %d of %d released images differ from their originals.", len(pairs), len(knowledge.released))
    changes = [released.image - original.image for original, released in pairs]
    size = max(float(np.abs(change).max()) for change in changes)
    outputs = knowledge.data.outputs
    given = [_with_labels(released, outputs) for _, released in pairs]
    places = [np.argwhere(regions_mask(released)) for _, released in pairs]
    dimension, channels = knowledge.data.dimension, knowledge.data.channels

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        n = int(rng.integers(len(pairs)))
        centre = places[n][int(rng.integers(len(places[n])))]
        both = cut_around(np.concatenate([given[n], changes[n]]), centre, EDGE[dimension])
        return both[:-channels], both[-channels:]

    say = fit_restorer(draw, dimension, channels + outputs, channels, knowledge.seed, size, "learn the change", knowledge.report)

    def attack(sample: Sample) -> np.ndarray:
        if not sample.case.labelled:
            return sample.image
        return sample.image - (say(_with_labels(sample, outputs)) * regions_mask(sample)).astype(np.float32)

    return attack


def regions_mask(sample: Sample) -> np.ndarray:
    """Bool ([k,] j, i): the regions on the image's grid."""
    regions = regions_of(sample)
    return regions.on_grid(regions.touched, sample.case.volume.geometry.shape).reshape(sample.image.shape[1:])


def _with_labels(sample: Sample, outputs: int) -> np.ndarray:
    """The image with one channel per class behind it, float32 (c + outputs, [k,] j, i)."""
    classes = np.broadcast_to(sample.target, sample.image.shape[1:])
    one_hot = np.stack([classes == n for n in range(outputs)])
    return np.concatenate([sample.image, one_hot]).astype(np.float32)
