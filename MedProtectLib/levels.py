"""The levels an image's stored values lie on: what survives being written to its file."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy import ndimage

from MedProtectLib.errors import MedProtectError
from MedProtectLib.regions import Regions
from MedProtectLib.volume import Volume

FLOOR_SHARE = 0.01
FINE_STEPS_PER_BOUND = 1024
GRID_MOST_LEVELS = 2**21
GRID_TOLERANCE = 0.05
GRID_OF_FLOATS = 65536  # from so many levels on, a grid about as fine as 32-bit floats is that of the floats themselves
BOUND_ROUNDING = 1 + 1e-5  # how far a stored change may pass the bound by the rounding of floats
WHOLE = 1 + 1e-9  # before rounding down: 3.9999999999 levels are 4
GRID_CHANCE = 1e-6  # how likely values that lie on no grid may lie as near to one
FLOAT_RESOLUTION = float(np.finfo(np.float32).eps)
LARGEST_INTEGER = 2**52  # the difference of any two such numbers is exact in a 64-bit float


@dataclass(frozen=True)
class Levels(ABC):
    """A ladder of stored values.

    ``step`` is the distance of two rungs in stored units, ``lowest`` and ``highest`` the stored values that a
    changed voxel may reach. ``held`` are the first and the last of the stored values that stand for padding in a scalar image:
    they do not change, and no other value becomes one of them.
    """

    tolerance: ClassVar[float] = 0.0  # how far, in steps, a rung may lie off its place

    step: float
    lowest: float
    highest: float
    held: tuple[float, float] | None = field(default=None, kw_only=True)

    @abstractmethod
    def shift(self, stored: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Stored values moved by whole levels, in the stored type. ``counts`` must respect :meth:`room`."""

    def room(self, stored: np.ndarray, up: np.ndarray) -> np.ndarray:
        """How many levels each value may move, upwards where ``up`` is true and downwards elsewhere."""
        values = stored.astype(np.float64)
        highest: np.ndarray | float = self.highest
        lowest: np.ndarray | float = self.lowest
        if self.held is not None:
            first, last = self.held
            highest = np.where(values <= last, min(self.highest, first - self.step), self.highest)
            lowest = np.where(values >= first, max(self.lowest, last + self.step), self.lowest)
        distance = np.where(up, highest - values, values - lowest)
        return np.maximum(np.floor(distance / self.step + self.tolerance), 0.0)

    @abstractmethod
    def within(self, most: float, stored: np.ndarray, counts: np.ndarray, up: np.ndarray) -> np.ndarray:
        """``counts`` >= 0, made smaller where the value would move by more than ``most`` stored units; they respect :meth:`room`."""


class IntegerLevels(Levels):
    """Every integer is a level."""

    def shift(self, stored: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return (stored.astype(np.int64) + counts.astype(np.int64)).astype(stored.dtype)

    def within(self, most: float, stored: np.ndarray, counts: np.ndarray, up: np.ndarray) -> np.ndarray:
        return np.minimum(counts, np.floor(most * WHOLE))


class FineLevels(Levels):
    """A float image without a ladder of rungs: the step is added to the float itself.

    In a continuous image it is a binary step far below the bound, in one of whole numbers, whatever their range, a whole number.
    """

    def shift(self, stored: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return (stored.astype(np.float64) + counts * self.step).astype(stored.dtype)

    def within(self, most: float, stored: np.ndarray, counts: np.ndarray, up: np.ndarray) -> np.ndarray:
        """Where rounding to the stored type leads too far, the last float before that is the end."""
        end = self.shift(stored, np.where(up, counts, -counts))
        before = np.nextafter(end, stored)
        return np.where(_apart(end, stored) > most * BOUND_ROUNDING, np.floor(_apart(before, stored) / self.step), counts)


@dataclass(frozen=True)
class GridLevels(Levels):
    """A float image whose values lie on a regular grid; ``rungs`` holds the exact stored float of every level."""

    tolerance = GRID_TOLERANCE

    rungs: np.ndarray

    def shift(self, stored: np.ndarray, counts: np.ndarray) -> np.ndarray:
        index = np.rint((stored.astype(np.float64) - float(self.rungs[0])) / self.step).astype(np.int64)
        return self.rungs[index + counts.astype(np.int64)]

    def within(self, most: float, stored: np.ndarray, counts: np.ndarray, up: np.ndarray) -> np.ndarray:
        """A rung may lie a little off its place, which is less than one level for two of them."""
        end = self.shift(stored, np.where(up, counts, -counts))
        return counts - (_apart(end, stored) > most * BOUND_ROUNDING)


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    distance: np.ndarray = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return distance


def find_padding(volume: Volume) -> np.ndarray | None:
    """Bool (k, j, i) of the voxels that hold no picture, None when there are none.

    Padding is the declared padding value, else the image's lowest value where at least 1 % of the voxels lie exactly
    there: the zero background of MR, the filling outside a CT's circular field, the black frame of an ultrasound picture. In a
    picture only what reaches its edge counts: black inside is anatomy, such as a cyst.
    Where channels are images of their own, it is what all of them call padding.
    """
    if volume.channel_types:
        found = [find_padding(part) for part in volume.parts()]
        common = [mask for mask in found if mask is not None]
        return np.logical_and.reduce(common) if len(common) == len(found) else None
    declared = declared_padding(volume)
    at_floor = None
    for c in volume.intensity_channels:
        channel = volume.channel(c)
        first, last = declared or (channel.min(), channel.min())
        here = (channel >= first) & (channel <= last)
        at_floor = here if at_floor is None else at_floor & here
    if at_floor is None or not at_floor.any():
        return None
    if not declared and _is_picture(volume):
        at_floor = _reaching_the_edge(at_floor[0])[None]
    return at_floor if declared or np.count_nonzero(at_floor) >= FLOOR_SHARE * at_floor.size else None


def regions_of_parts(volume: Volume, regions: Regions) -> tuple[Regions, ...]:
    """Where every part of an image may change: the regions but for what is padding in this part."""
    if not volume.channel_types:
        return (regions,)
    found = [find_padding(part) for part in volume.parts()]
    return tuple(regions if padding is None else regions.without(padding) for padding in found)


def _is_picture(volume: Volume) -> bool:
    return volume.geometry.dimension == 2


def _reaching_the_edge(mask: np.ndarray) -> np.ndarray:
    """The pieces of a mask (j, i) that touch the edge of the picture."""
    pieces, _ = ndimage.label(mask)
    edge = np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]])
    reaching: np.ndarray = np.isin(pieces, edge[edge > 0])
    return reaching


def find_levels(volume: Volume, padding: np.ndarray | None, epsilon_stored: float, regions: Regions) -> Levels:
    """The levels of an image of one part. ``padding`` as found for it, ``epsilon_stored`` the bound in stored units.

    Raises:
        MedProtectError: integers too large to be counted exactly.
    """
    stored = volume.array if volume.alpha is None else volume.array[..., list(volume.intensity_channels)]
    lowest, highest = stored.min(), stored.max()
    keep_off_floor = padding is not None and volume.padding_value in (None, float(lowest))
    held = declared_padding(volume) if stored.ndim == 3 else None
    if held is None and padding is not None and stored.ndim == 3 and not _is_picture(volume):
        held = (float(lowest), float(lowest))
    if np.issubdtype(stored.dtype, np.integer):
        if max(-int(lowest), int(highest)) > LARGEST_INTEGER:
            raise MedProtectError(
                f"{volume.name}: its values go from {lowest} to {highest}; beyond 2^52 whole numbers cannot be measured exactly. "
                "Subtract an offset, or store them with fewer digits."
            )
        return IntegerLevels(1.0, float(lowest) + keep_off_floor, float(highest), held=held)
    present = np.unique(stored)
    rungs = _regular_grid(present)
    if rungs is not None:
        step = (float(rungs[-1]) - float(rungs[0])) / (len(rungs) - 1)
        return GridLevels(step, float(rungs[int(keep_off_floor)]), float(rungs[-1]), rungs, held=held)
    gap = _widest_gap(volume, regions)
    step = _whole_step(present, gap) if _are_whole(present) else _fine_step(epsilon_stored, gap)
    return FineLevels(step, float(lowest) + keep_off_floor * step, float(highest), held=held)


def _widest_gap(volume: Volume, regions: Regions) -> float:
    """The gap between the largest of the floats that may change and the next."""
    values = [volume.channel(c)[regions.box][regions.touched] for c in volume.intensity_channels]
    return max(float(np.spacing(np.abs(v).max())) for v in values)


def _fine_step(epsilon_stored: float, gap: float) -> float:
    """A power of 2 far below the bound, yet no smaller than the gap between floats."""
    return max(float(2.0 ** np.floor(np.log2(epsilon_stored / FINE_STEPS_PER_BOUND))), gap)


def _are_whole(present: np.ndarray) -> bool:
    """Whether these are more than two values, and whole numbers that can be counted exactly."""
    return len(present) > 2 and bool(np.abs(present).max() <= LARGEST_INTEGER and np.array_equal(present, np.rint(present)))


def _whole_step(present: np.ndarray, gap: float) -> float:
    """The smallest step that keeps whole numbers on the grid they share and that no ``gap`` between floats swallows."""
    return float(math.lcm(int(np.gcd.reduce(np.diff(present.astype(np.int64)))), math.ceil(gap)))


def in_declared_padding(volume: Volume, stored: np.ndarray) -> np.ndarray:
    """Bool (k, j, i): where stored values (k, j, i) or (k, j, i, c) of an image of one part are what it declares to be padding."""
    ends = declared_padding(volume)
    if ends is None:
        return np.zeros(stored.shape[:3], bool)
    inside = (stored >= ends[0]) & (stored <= ends[1])
    return inside if inside.ndim == 3 else np.logical_and.reduce(inside, axis=3)


def declared_padding(volume: Volume) -> tuple[float, float] | None:
    """The first and the last of the values that an image declares to be padding."""
    if volume.padding_value is None:
        return None
    limit = volume.padding_value if volume.padding_limit is None else volume.padding_limit
    return min(volume.padding_value, limit), max(volume.padding_value, limit)


def _regular_grid(present: np.ndarray) -> np.ndarray | None:
    """All levels from the lowest to the highest value if the sorted distinct values lie on a regular grid, else None."""
    values = present.astype(np.float64)
    estimate = _estimated_step(values)
    if estimate is None:
        return None
    counted = round((values[-1] - values[0]) / estimate)
    residual, count = min((_largest_residual(values, count), count) for count in (counted - 1, counted, counted + 1))
    step = (values[-1] - values[0]) / count
    indices = np.rint((values - values[0]) / step).astype(np.int64)
    if residual > GRID_TOLERANCE or len(np.unique(indices)) < len(values) or _may_be_chance(len(values), count, residual):
        return None
    if count >= GRID_OF_FLOATS and np.abs(values).max() * FLOAT_RESOLUTION > 2 * GRID_TOLERANCE * step:
        return None
    rungs = values[0] + step * np.arange(count + 1)
    rungs = (np.rint(rungs) if _are_whole(present) else rungs).astype(present.dtype)
    rungs[indices] = present
    return rungs


def _estimated_step(values: np.ndarray) -> float | None:
    """The step of the grid that sorted values may lie on, None where it would have too many levels.

    The smallest gap tells it to within the rounding of floats, by which the levels in a wide gap would be miscounted. So the estimate
    grows better from gaps of one step to gaps twice, four times, ... as wide.
    """
    gaps = np.diff(values)
    if len(gaps) < 2 or gaps.sum() >= GRID_MOST_LEVELS * gaps.min():
        return None
    step, reach = float(gaps.min()), 1.5
    while True:
        near = gaps[gaps < reach * step]
        step = float(near.sum() / np.rint(near / step).sum())
        if len(near) == len(gaps):
            return step
        reach *= 2


def _largest_residual(values: np.ndarray, count: int) -> float:
    """How far, in steps, a value lies off the grid of ``count`` steps from the first to the last of them."""
    if count < 1:
        return math.inf
    indices = (values - values[0]) / ((values[-1] - values[0]) / count)
    return float(np.abs(indices - np.rint(indices)).max())


def _may_be_chance(present: int, count: int, residual: float) -> bool:
    """Whether so few values on a grid with most of its levels empty may be there by chance: two define it, the others have to fit."""
    return 2 * present < count and 3 * (2 * residual) ** (present - 2) > GRID_CHANCE
