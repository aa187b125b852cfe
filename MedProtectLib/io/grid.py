"""Grids in space: from the matrices of file headers, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.volume import Geometry

LARGEST_COSINE = 1e-3  # between two axes of a grid: 0.06 degrees


def check_spacing(path: Path, spacing: Iterable[float]) -> None:
    """Refuse a spacing, as it stands in a header, that no grid can have.

    Raises:
        MedProtectError: zero, negative, infinite or not a number.
    """
    values = [float(value) for value in spacing]
    if not all(0 < value < float("inf") for value in values):
        listed = " x ".join(f"{value:g}" for value in values)
        raise MedProtectError(f"{path}: the voxel spacing in its header is {listed}; it must be positive. Correct the header.")


def check_grid(path: Path, grid: Sequence[int]) -> None:
    """Refuse sizes, slowest axis first and without channels, that are no 2D or 3D grid. One volume in a 4D file counts as 3D.

    Raises:
        MedProtectError: more than one volume, or less than two axes.
    """
    if math.prod(grid[:-3]) > 1:
        raise MedProtectError(
            f"{path}: {len(grid)}D image whose channels nobody declared. Split it into 3D images, or declare them in its header."
        )
    if len(grid) < 2:
        raise MedProtectError(f"{path}: the image has {len(grid)} axis; 2 or 3 are needed.")


def geometry_from_matrix(path: Path, size: Sequence[int], matrix: np.ndarray, dimension: int = 3) -> Geometry:
    """The grid of ``size`` (i, j, k) whose index (i, j, k, 1) a 4x4 ``matrix`` takes to a point (x, y, z, 1) in LPS mm.

    A missing (zero) third axis of a 2D image becomes the unit normal of the first two.

    Raises:
        MedProtectError: the matrix is not finite, is singular, or its axes are not at right angles.
    """
    axes, origin = np.array(matrix[:3, :3], np.float64), matrix[:3, 3] + 0.0
    if dimension == 2 and not axes[:, 2].any():
        normal = np.cross(axes[:, 0], axes[:, 1])
        axes[:, 2] = normal / (np.linalg.norm(normal) or 1.0)
    spacing = np.linalg.norm(axes, axis=0)
    if not (np.isfinite(axes).all() and np.isfinite(origin).all()):
        raise MedProtectError(f"{path}: the position in space in its header is not finite. Correct the header.")
    if not spacing.all():
        raise MedProtectError(f"{path}: the orientation in its header is singular (an axis without direction). Correct the header.")
    direction = axes / spacing + 0.0  # no -0.0
    cosines = direction.T @ direction - np.eye(3)
    if np.abs(cosines).max() > LARGEST_COSINE:
        what = "singular" if abs(np.linalg.det(direction)) < LARGEST_COSINE else "sheared (its axes are not at right angles)"
        raise MedProtectError(f"{path}: the orientation in its header is {what}. Resample the image to a rectangular grid first.")
    i, j, k = (int(length) for length in size)
    return Geometry((i, j, k), _triple(spacing), _triple(origin), tuple(direction.ravel().tolist()), dimension)


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return (x, y, z)
