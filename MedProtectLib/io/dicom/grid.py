"""From slices to one grid: their order, and a refusal wherever they are not the slices of one volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.dicom.planes import Plane
from MedProtectLib.io.grid import LARGEST_COSINE, geometry_from_matrix
from MedProtectLib.volume import Geometry

SAME_DIRECTION = 1e-4
SAME_PLACE = 0.01  # of the distance between slices
UNEVEN = 0.1
SIDEWAYS = 0.25  # of a pixel
GAP = 1.5


def stack(planes: Sequence[Plane], rows: int, columns: int, where: Path) -> tuple[list[Plane], Geometry]:
    """The planes in the order of the grid's k axis, which follows the normal of the slices, and the grid.

    One picture without a place in space is a 2D grid at the origin.

    Raises:
        MedProtectError: several orientations, spacings or rescalings; slices at the same place, missing, unevenly spaced or
            displaced sideways (gantry tilt, or one of them); only some of them placed in space.
    """
    if len(planes) == 1 and (planes[0].position is None or planes[0].orientation is None):
        row, column = planes[0].spacing
        return list(planes), Geometry((columns, rows, 1), (column, row, 1.0), dimension=2)
    first = planes[0]
    for plane in planes:
        if plane.position is None or plane.orientation is None:
            raise MedProtectError(
                f"{plane.path}: no position and orientation in space, which the other images of the series have. Get a fresh copy, or "
                "remove it if it is none of the slices."
            )
        _alike(first, plane)
    axes = _axes(first)
    distances = np.array([np.dot(plane.position or (), axes[2]) for plane in planes])
    order = np.argsort(distances, kind="stable")
    ordered = [planes[n] for n in order]
    step = _step(ordered, distances[order], axes[2], where)
    _in_line(ordered, distances[order], axes[2])
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack(axes, axis=1) * (first.spacing[1], first.spacing[0], step)
    matrix[:3, 3] = ordered[0].position or ()
    return ordered, geometry_from_matrix(where, (columns, rows, len(planes)), matrix)


def _alike(first: Plane, plane: Plane) -> None:
    different = {
        "orientations": not np.allclose(first.orientation or (), plane.orientation or (), rtol=0, atol=SAME_DIRECTION),
        "pixel spacings": not np.allclose(first.spacing, plane.spacing, rtol=1e-4),
        "rescale slopes or intercepts": (first.slope, first.intercept) != (plane.slope, plane.intercept),
    }
    for what, differ in different.items():
        if differ:
            raise MedProtectError(
                f"{plane.path}{_frame(plane)}: the images of the series have different {what} (see {first.path.name}{_frame(first)}). "
                "Only slices of one volume can be protected together; split the series."
            )


def _axes(plane: Plane) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors along the rows (i), along the columns (j) and from slice to slice (k)."""
    i, j = np.reshape(plane.orientation or (), (2, 3))
    lengths = np.linalg.norm(i), np.linalg.norm(j)
    if min(lengths) < 0.9 or max(lengths) > 1.1:
        raise MedProtectError(f"{plane.path}: damaged DICOM header: ImageOrientationPatient is not what the standard says.")
    i, j = i / lengths[0], j / lengths[1]
    k = np.cross(i, j)
    return i, j, k / (np.linalg.norm(k) or 1.0)


def _step(ordered: Sequence[Plane], distances: np.ndarray, normal: np.ndarray, where: Path) -> float:
    """The distance from slice to slice."""
    if len(ordered) == 1:
        return ordered[0].thickness
    gaps = np.diff(distances)
    usual = float(np.median(gaps))
    together = np.flatnonzero(gaps <= SAME_PLACE * usual)
    if usual <= 0 or together.size:
        one, other = ordered[int(together[0])], ordered[int(together[0]) + 1]
        raise MedProtectError(
            f"{other.path}{_frame(other)}: at the same place as {one.path.name}{_frame(one)}. Several acquisitions, phases or echoes are "
            "not one volume; split the series."
        )
    across = np.subtract(ordered[-1].position or (), ordered[0].position or ())
    tilt = math.degrees(math.acos(min(1.0, float(across @ normal / np.linalg.norm(across)))))
    if tilt > math.degrees(LARGEST_COSINE):
        raise MedProtectError(
            f"{where}: its slices are displaced sideways by {tilt:.1f} degrees (gantry tilt), so they are no rectangular grid. Protect a "
            "resampled copy instead."
        )
    step = float(distances[-1] - distances[0]) / (len(ordered) - 1)
    if np.abs(distances - distances[0] - step * np.arange(len(ordered))).max() > UNEVEN * step:
        wide = int(np.argmax(gaps))
        missing = round(gaps[wide] / usual) - 1
        what = f"{missing} or more slices are missing" if gaps[wide] > GAP * usual else "the slices are not evenly spaced"
        raise MedProtectError(
            f"{where}: {what} (between {ordered[wide].path.name}{_frame(ordered[wide])} and {ordered[wide + 1].path.name}"
            f"{_frame(ordered[wide + 1])}). Complete the series, or protect its even parts as series of their own."
        )
    return step


def _in_line(ordered: Sequence[Plane], distances: np.ndarray, normal: np.ndarray) -> None:
    """Refuse a slice that lies beside the straight line from the first to the last.

    Raises:
        MedProtectError: there is one.
    """
    if len(ordered) < 3:
        return
    positions = np.array([plane.position for plane in ordered])
    along = (distances - distances[0]) / (distances[-1] - distances[0])
    off = positions - positions[0] - np.outer(along, positions[-1] - positions[0])
    beside = np.linalg.norm(off - np.outer(off @ normal, normal), axis=1)
    worst = int(np.argmax(beside))
    if beside[worst] > SIDEWAYS * min(ordered[0].spacing):
        raise MedProtectError(
            f"{ordered[worst].path}{_frame(ordered[worst])}: displaced sideways by {beside[worst]:.3g} mm against the other slices, so "
            "that they are no rectangular grid. Split the series, or protect a resampled copy instead."
        )


def _frame(plane: Plane) -> str:
    return f" (frame {plane.frame + 1})" if plane.frame else ""
