"""How textured an image is around each voxel: a local binary pattern as a number between 0 and 1."""

from __future__ import annotations

import numpy as np

NEIGHBOURS = tuple((dj, di) for dj in (-1, 0, 1) for di in (-1, 0, 1) if (dj, di) != (0, 0))


def texture_map(image: np.ndarray) -> np.ndarray:
    """The share of a voxel's eight in-plane neighbours that are strictly greater than the voxel.

    The comparison is strict, so that a flat area gives 0 and with it the smallest budget; neighbours beyond the image
    count as not greater. (scikit-image's local_binary_pattern compares with >= and interpolates the diagonals.)

    Args:
        image: (k, j, i), any ordered type. Every slice k is treated on its own, as in the 2D method.

    Returns:
        float32 (k, j, i), multiples of 1/8 in [0, 1].
    """
    greater = np.zeros(image.shape, np.uint8)
    rows, columns = image.shape[1:]
    for dj, di in NEIGHBOURS:
        here = (slice(None), slice(max(0, -dj), rows - max(0, dj)), slice(max(0, -di), columns - max(0, di)))
        there = (slice(None), slice(max(0, dj), rows - max(0, -dj)), slice(max(0, di), columns - max(0, -di)))
        greater[here] += image[there] > image[here]
    return greater.astype(np.float32) / len(NEIGHBOURS)
