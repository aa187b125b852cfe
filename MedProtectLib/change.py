"""A change on its way from a method's window units to the levels of a file: quantised, applied, split by component."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from MedProtectLib.levels import Levels
from MedProtectLib.methods.base import Component
from MedProtectLib.plan import Plan
from MedProtectLib.protection import Components
from MedProtectLib.quantise import energy_budget, on_binary_grid, quantise
from MedProtectLib.regions import Regions
from MedProtectLib.volume import Volume
from MedProtectLib.window import IntensityWindow


def quantised_change(drawn: Sequence[Mapping[str, Component]], volume: Volume, plan: Plan, share: float = 1.0) -> np.ndarray:
    """Whole-level changes on the regions' box, for all channels of a part together, so that a PSNR target holds for every part.

    Args:
        drawn: a method's components of every channel, in window units on the regions' box.
        volume: the image, or a slab of it.
        plan: what was decided about it.
        share: the part of the target's energy that may be spent here, for a volume that is a slab of a larger one.

    Returns:
        int32 (k, j, i) or (k, j, i, c), or int64 where a change needs it.

    Raises:
        MedProtectError: no voxel is wished to change, or not a single one could.
    """
    left, counts = list(drawn), []
    for part, window, levels, own in zip(volume.parts(), plan.windows, plan.levels, plan.part_regions, strict=True):
        mine, left = left[: len(part.intensity_channels)], left[len(part.intensity_channels) :]
        counts.append(_quantised_part(mine, part, window, levels, own, plan, share))
    return np.stack(counts, axis=-1) if volume.channel_types else counts[0]


def _quantised_part(
    drawn: Sequence[Mapping[str, Component]],
    part: Volume,
    window: IntensityWindow,
    levels: Levels,
    regions: Regions,
    plan: Plan,
    share: float,
) -> np.ndarray:
    touched, box = regions.touched, regions.box
    if not touched.any():
        return np.zeros(touched.shape, np.int32)
    width_in_levels = window.width / (levels.step * abs(part.slope))
    stored = [part.channel(c)[box][touched] for c in part.intensity_channels]
    delta = on_binary_grid(_summed([[each.values for each in parts.values()] for parts in drawn], touched))
    limit = _summed([[each.limit for each in parts.values()] for parts in drawn], touched).astype(np.float64)
    upwards = delta * np.sign(part.slope) > 0
    room = np.stack([levels.room(s, upwards[:, n]) for n, s in enumerate(stored)], axis=-1)
    ceiling = np.minimum(np.floor(limit * width_in_levels * (1 + 1e-6)), room)
    most = plan.bound * window.width / abs(part.slope)
    for n, s in enumerate(stored):
        ceiling[:, n] = levels.within(most, s, ceiling[:, n], upwards[:, n])
    values = int(np.prod(part.geometry.shape)) * len(stored)
    budget = None if plan.target_psnr is None else share * energy_budget(plan.target_psnr, values, width_in_levels)
    counts = quantise((delta * width_in_levels).ravel(), ceiling.ravel(), plan.seed, budget).reshape(delta.shape)
    on_box = np.zeros((*touched.shape, len(stored)), counts.dtype)
    on_box[touched] = counts
    return on_box[..., 0] if part.array.ndim == 3 else on_box


def _summed(channels: Sequence[Sequence[np.ndarray]], touched: np.ndarray) -> np.ndarray:
    """The sum over the components of every channel at the touched voxels, (n, c)."""
    return np.stack([np.sum(components, axis=0)[touched] for components in channels], axis=-1)


def region_of(components: Sequence[Component], regions: Regions) -> np.ndarray:
    """Bool (k, j, i) on the regions' box: interior, contour band and background as far as a component acts in them in some channel."""
    region = np.zeros_like(regions.interior)
    for part in (regions.interior, regions.contour, regions.background):
        if part is not None and any(component.limit[part].any() for component in components):
            region |= part
    return region


def stored_components(drawn: Sequence[Mapping[str, Component]], counts: np.ndarray, volume: Volume, plan: Plan) -> Components:
    """The change that is stored, in window units, split by the components that were drawn."""
    regions, parts = plan.regions, zip(volume.parts(), plan.windows, plan.levels, strict=True)
    of_one_level = np.array([levels.step * abs(part.slope) / window.width for part, window, levels in parts])
    masks = {name: region_of([each[name] for each in drawn], regions) for name in plan.method.component_names}
    return Components((counts * of_one_level).astype(np.float32), masks, regions, volume.geometry.shape)


def apply_counts(volume: Volume, regions: Regions, counts: np.ndarray, levels: Sequence[Levels]) -> Volume:
    """A copy of the volume with whole-level changes; voxels that do not change keep their bits."""
    changes = [counts[..., n] for n in range(len(levels))] if volume.channel_types else [counts]
    parts = zip(volume.parts(), changes, levels, strict=True)
    return volume.with_parts([_apply_to_part(part, regions, change, ladder) for part, change, ladder in parts])


def _apply_to_part(volume: Volume, regions: Regions, counts: np.ndarray, levels: Levels) -> Volume:
    array = volume.array.copy()
    for n, c in enumerate(volume.intensity_channels):
        part = (array if array.ndim == 3 else array[..., c])[regions.box]
        change = counts if counts.ndim == 3 else counts[..., n]
        moved = change != 0
        part[moved] = levels.shift(part[moved], change[moved] * (1 if volume.slope > 0 else -1))
    return volume.with_array(array)
