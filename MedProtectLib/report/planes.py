"""Which slices of a volume to show, and how to turn them to the way a radiologist looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from MedProtectLib.volume import Geometry

LEFT, POSTERIOR, SUPERIOR = range(3)
LETTERS = ("RL", "AP", "IS")
# Plane -> patient axes and senses that run to the right and down on the screen: patient right at image left, anterior or head up.
SCREEN = {
    "axial": ((LEFT, 1), (POSTERIOR, 1)),
    "coronal": ((LEFT, 1), (SUPERIOR, -1)),
    "sagittal": ((POSTERIOR, 1), (SUPERIOR, -1)),
}
LETTER_FROM_COSINE = 0.38  # 22.5 degrees off another axis
OBLIQUE_FROM_DEGREES = 5.0
CROP_MARGIN = 1.5
SMALLEST_CROP = 32


@dataclass(frozen=True)
class Plane:
    """A viewing plane of a grid. ``normal``, ``rows`` and ``columns`` are array axes of (k, j, i).

    ``edges`` are the letters at the left, right, top and bottom, empty for pictures; ``pixel`` is (height, width) in mm.
    """

    name: str
    normal: int
    rows: int
    columns: int
    flip_rows: bool
    flip_columns: bool
    edges: tuple[str, str, str, str]
    pixel: tuple[float, float]


@dataclass(frozen=True)
class Cut:
    """One slice of a plane, or a part of it."""

    plane: Plane
    index: int
    rows: slice
    columns: slice
    count: int
    cropped: bool

    def of(self, array: np.ndarray) -> np.ndarray:
        """A view of the slice as it appears on the screen: (rows, columns) or (rows, columns, c) from (k, j, i) or (k, j, i, c)."""
        p = self.plane
        part = np.moveaxis(array, (p.normal, p.rows, p.columns), (0, 1, 2))[self.index, self.rows, self.columns]
        return part[:: -1 if p.flip_rows else 1, :: -1 if p.flip_columns else 1]

    @property
    def caption(self) -> str:
        """Which slice this is, counted from 1."""
        where = f"{self.plane.name}, slice {self.index + 1} of {self.count}" if self.plane.name in SCREEN else "whole picture"
        if self.cropped:
            where = f"{where}, zoomed to the regions" if self.plane.name in SCREEN else "zoomed to the regions"
        return where.capitalize()

    @property
    def aspect(self) -> float:
        """Height / width in space."""
        height, width = self.plane.pixel
        return (self.rows.stop - self.rows.start) * height / ((self.columns.stop - self.columns.start) * width)


def planes_of(geometry: Geometry) -> tuple[Plane, ...]:
    """The anatomical planes that have more than one voxel each way, the acquired one first; a 2D picture is shown as it is stored."""
    spacing = geometry.spacing_kji
    if geometry.dimension == 2:
        return (Plane("picture", 0, 1, 2, False, False, ("", "", "", ""), (spacing[1], spacing[2])),)
    cosines = np.reshape(geometry.direction, (3, 3))[:, ::-1]  # patient axis x array axis
    nearest = max(permutations(range(3)), key=lambda order: sum(abs(cosines[axis, order[axis]]) for axis in range(3)))
    planes = []
    for name, ((across, rightward), (along, downward)) in SCREEN.items():
        columns, rows = nearest[across], nearest[along]
        to_right, to_bottom = cosines[:, columns], cosines[:, rows]
        flip_columns, flip_rows = to_right[across] * rightward < 0, to_bottom[along] * downward < 0
        to_right, to_bottom = (-to_right if flip_columns else to_right), (-to_bottom if flip_rows else to_bottom)
        edges = (_letters(-to_right), _letters(to_right), _letters(-to_bottom), _letters(to_bottom))
        pixel = (spacing[rows], spacing[columns])
        planes.append(Plane(name, 3 - rows - columns, rows, columns, bool(flip_rows), bool(flip_columns), edges, pixel))
    planes.sort(key=lambda plane: plane.normal != 0)
    solid = [p for p in planes if geometry.shape[p.rows] > 1 and geometry.shape[p.columns] > 1]
    return tuple(solid or planes[:1])


def tilt(geometry: Geometry) -> float:
    """Largest angle in degrees between an index axis and its nearest patient axis."""
    cosines = np.abs(np.reshape(geometry.direction, (3, 3))).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines, 0, 1))).max())


def areas_by_axis(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels of a mask (k, j, i) in every slice along k, j and i."""
    projected = mask.sum(axis=0, dtype=np.int32)
    return np.array([np.count_nonzero(plane) for plane in mask]), projected.sum(axis=1), projected.sum(axis=0)


def plane_cuts(geometry: Geometry, areas: tuple[np.ndarray, ...]) -> list[Cut]:
    """One whole slice of every plane, where the regions have most area."""
    return [_whole(plane, _largest(areas[plane.normal]), geometry) for plane in planes_of(geometry)]


def slice_cuts(geometry: Geometry, areas: tuple[np.ndarray, ...], count: int) -> list[Cut]:
    """At most ``count`` acquired slices, zoomed to the regions and spread so that equal parts of the regions lie between them."""
    plane = planes_of(geometry)[0]
    occupied = np.flatnonzero(areas[plane.normal])
    if occupied.size > count:
        reached = np.cumsum(areas[plane.normal]) / areas[plane.normal].sum()
        occupied = np.unique(np.searchsorted(reached, (np.arange(count) + 0.5) / count))
    return [_zoomed(plane, int(index), geometry, areas) for index in occupied]


def largest_cut(geometry: Geometry, areas: tuple[np.ndarray, ...]) -> Cut:
    """The acquired slice where the regions have most area, zoomed to them; the whole middle slice where there are none."""
    plane = planes_of(geometry)[0]
    index = _largest(areas[plane.normal])
    return _zoomed(plane, index, geometry, areas) if areas[plane.normal][index] else _whole(plane, index, geometry)


def _letters(direction: np.ndarray) -> str:
    by_size = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    return "".join(LETTERS[axis][int(direction[axis] > 0)] for axis in by_size if abs(direction[axis]) >= LETTER_FROM_COSINE)


def _largest(areas: np.ndarray) -> int:
    """The slice with most area, the middle one of equals."""
    best = np.flatnonzero(areas == areas.max())
    return int(best[best.size // 2])


def _whole(plane: Plane, index: int, geometry: Geometry) -> Cut:
    count, rows, columns = (geometry.shape[axis] for axis in (plane.normal, plane.rows, plane.columns))
    return Cut(plane, index, slice(0, rows), slice(0, columns), count, cropped=False)


def _zoomed(plane: Plane, index: int, geometry: Geometry, areas: tuple[np.ndarray, ...]) -> Cut:
    """A part of the slice, square in space, that holds the regions of all slices with a margin."""
    axes = (plane.rows, plane.columns)
    occupied = [np.flatnonzero(areas[axis]) for axis in axes]
    side = max(max(CROP_MARGIN * (o[-1] - o[0] + 1), SMALLEST_CROP) * mm for o, mm in zip(occupied, plane.pixel, strict=True))
    parts = []
    for axis, o, mm in zip(axes, occupied, plane.pixel, strict=True):
        size = geometry.shape[axis]
        length = min(size, round(side / mm))
        start = min(max(0, int(o[0] + o[-1] + 1 - length) // 2), size - length)
        parts.append(slice(start, start + length))
    cropped = any(part.stop - part.start < geometry.shape[axis] for axis, part in zip(axes, parts, strict=True))
    return Cut(plane, index, parts[0], parts[1], geometry.shape[plane.normal], cropped)
