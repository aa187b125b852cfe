"""Labels on another grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.volume import Geometry, LabelMap

UNPLACED = Geometry((1, 1, 1))


def on_grid_of(geometry: Geometry, labels: LabelMap) -> tuple[LabelMap, tuple[str, ...]]:
    """The labels on the image's grid, and a notice when they had to be resampled."""
    if labels.geometry.same_grid(geometry):
        return labels, ()
    notice = f"{labels.name}: the labels lie on another grid than the image and were resampled to it (nearest)."
    return resample_labels(labels, geometry), () if is_one_grid(labels.geometry, geometry) else (notice,)


def resample_labels(labels: LabelMap, geometry: Geometry) -> LabelMap:
    """The labels at the voxel centres of another grid (nearest neighbour in space, 0 outside), layer by layer.

    Grids that :func:`is_one_grid` takes for one are not resampled.

    Raises:
        MedProtectError: the two grids have no point in common; as for :func:`check_size`.
    """
    check_size(labels, geometry, "the image")
    if is_one_grid(labels.geometry, geometry):
        return replace(labels, geometry=geometry)
    if not (_reaches(labels.geometry, geometry) and _reaches(geometry, labels.geometry)):
        raise MedProtectError(
            f"{labels.name}: the labels lie elsewhere in space than the image ({_extent(labels.geometry)}; the image {_extent(geometry)}). "
            "Give the label map that belongs to this image."
        )
    from MedProtectLib.io.itk import resample_nearest

    layers = tuple(resample_nearest(layer, labels.geometry, geometry) for layer in labels.layers)
    return replace(labels, layers=layers, geometry=geometry)


def is_one_grid(one: Geometry, other: Geometry) -> bool:
    """Whether the voxels of both grids belong together one by one.

    Grids of equal size do so where one of them has no position in space, such as the pages of a TIFF stack: resolutions in picture
    files are about printing. So do 2D pictures that lie at the origin.
    """
    if one.size != other.size:
        return False
    return not (one.placed and other.placed) or one.same_grid(other) or (_lies_at_the_origin(one) and _lies_at_the_origin(other))


def check_size(labels: LabelMap, geometry: Geometry, image: str) -> None:
    """Refuse labels that would have to be resampled where they or the ``image`` have no position in space, such as PNG and TIFF.

    Raises:
        MedProtectError: they have another size than the image.
    """
    if labels.geometry.size != geometry.size and not (labels.geometry.placed and geometry.placed):
        raise MedProtectError(
            f"{labels.name}: the labels have {_pixels(labels.geometry)} pixels and {image} has {_pixels(geometry)}, and a picture does "
            "not say where it lies. Give labels of the image's size."
        )


def _pixels(grid: Geometry) -> str:
    return " x ".join(map(str, grid.size[: grid.dimension]))


def _lies_at_the_origin(picture: Geometry) -> bool:
    return (picture.dimension, picture.origin, picture.direction) == (2, UNPLACED.origin, UNPLACED.direction)


def _reaches(grid: Geometry, other: Geometry) -> bool:
    """Whether the box around ``grid``, along the axes of ``other``, meets the voxels of ``other``."""
    index = np.linalg.inv(other.index_to_physical()) @ grid.index_to_physical() @ _corners(grid)
    return bool(np.all(index[:3].max(axis=1) > -0.5) and np.all(index[:3].min(axis=1) < np.array(other.size) - 0.5))


def _corners(grid: Geometry) -> np.ndarray:
    """The eight outer voxel corners as columns (i, j, k, 1)."""
    return np.array([(*np.where(corner, np.array(grid.size) - 0.5, -0.5), 1) for corner in np.ndindex(2, 2, 2)]).T


def _extent(grid: Geometry) -> str:
    points = (grid.index_to_physical() @ _corners(grid))[:3]
    return " x ".join(f"{low:.0f}..{high:.0f}" for low, high in zip(points.min(axis=1), points.max(axis=1), strict=True)) + " mm"
