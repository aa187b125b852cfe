"""What a fitting step works on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Patches with shape (b, c, [k,] j, i), c = 1 but for ``image`` and ``texture`` of images whose channels are seen together.

    ``image``: float32 in window units, clipped to [0, 1]. ``classes``: int64 label classes, 0 background. ``contour`` and
    ``interior``: 0 or 1, where each component may act; ``touched``: 0 or 1, where anything may. ``texture``: the texture
    map in [0, 1].
    """

    image: Tensor
    classes: Tensor
    contour: Tensor
    interior: Tensor
    touched: Tensor
    texture: Tensor
