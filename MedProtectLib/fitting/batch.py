"""What a fitting step works on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Patches with shape (b, 1, [k,] j, i).

    ``image``: float32 in window units, clipped to [0, 1]. ``classes``: int64 label classes, 0 background. ``contour`` and
    ``interior``: 0 or 1, where each component may act. ``texture``: the texture map in [0, 1].
    """

    image: Tensor
    classes: Tensor
    contour: Tensor
    interior: Tensor
    texture: Tensor
