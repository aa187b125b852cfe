"""Where a perturbation may act: the interior of the labelled structures and a band along their contour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from MedProtectLib.errors import MedProtectError

Box = tuple[slice, slice, slice]

HALF_WIDTH = 3


@dataclass(frozen=True)
class Regions:
    """Interior and contour band on the part ``box`` of the image that holds them.

    With foreground F and the (2w+1) box window: contour = dilate(F) - erode(F), interior = erode(F).
    Both are bool arrays of the box's shape (k, j, i) and do not overlap. Beyond the image's border nothing is
    known, so the border itself is no contour. ``background`` is all the rest that may change, for a method that
    touches the whole image; None for one that keeps to the labelled structures.
    """

    box: Box
    interior: np.ndarray
    contour: np.ndarray
    background: np.ndarray | None = None

    @property
    def labelled(self) -> np.ndarray:
        """The voxels of the box in the structures and their contour band."""
        return self.interior | self.contour

    @property
    def touched(self) -> np.ndarray:
        """Every voxel of the box that may change."""
        return self.labelled if self.background is None else self.labelled | self.background

    def without(self, voxels: np.ndarray) -> Regions:
        """The regions but for the voxels of a mask of the image's shape (k, j, i)."""
        kept = ~voxels[self.box]
        background = None if self.background is None else self.background & kept
        return Regions(self.box, self.interior & kept, self.contour & kept, background)

    def on_grid(self, part: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A box-sized array laid into zeros of the image's shape (k, j, i), trailing axes kept."""
        whole = np.zeros(shape + part.shape[3:], part.dtype)
        whole[self.box] = part
        return whole


def find_regions(
    foreground: np.ndarray,
    half_width: int = HALF_WIDTH,
    planar: bool = False,
    untouchable: np.ndarray | None = None,
    whole_image: bool = False,
) -> Regions:
    """Interior and contour band of a foreground mask.

    Args:
        foreground: bool (k, j, i).
        half_width: w in voxels.
        planar: work in each slice k alone (for 2D methods).
        untouchable: bool (k, j, i), voxels to leave out, such as padding.
        whole_image: the background may change too, and the box is the whole image.

    Raises:
        MedProtectError: no voxel is labelled, or none of the regions may be touched.
    """
    tight = bounding_box(foreground)
    if tight is None:
        raise MedProtectError(
            "the selected segments label no voxel of the image: there is nothing to protect. Check the labels and --segments."
        )
    reach = (0 if planar else half_width, half_width, half_width)
    box = grown(tight, foreground.shape if whole_image else reach, foreground.shape)
    inside = foreground[box].astype(np.uint8)
    size = tuple(2 * r + 1 for r in reach)
    dilated = maximum_filter(inside, size, mode="constant", cval=0).astype(bool)
    interior = minimum_filter(inside, size, mode="constant", cval=1).astype(bool)
    allowed = np.ones_like(interior) if untouchable is None else ~untouchable[box]
    regions = Regions(box, interior & allowed, dilated & ~interior & allowed, allowed & ~dilated if whole_image else None)
    if not (regions.interior.any() or regions.contour.any()):
        raise MedProtectError(
            "every labelled voxel is padding (the image's constant floor): there is nothing to protect. Check the labels."
        )
    return regions


def bounding_box(mask: np.ndarray) -> Box | None:
    """The smallest box around the true voxels of a bool array (k, j, i); None when there are none."""
    ranges = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        if not hit.size:
            return None
        ranges.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return (ranges[0], ranges[1], ranges[2])


def grown(box: Box, margin: tuple[int, int, int], shape: tuple[int, ...]) -> Box:
    """The box with a margin in voxels (k, j, i) on every side, cut at the image's border."""
    k, j, i = (slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(box, margin, shape, strict=False))
    return (k, j, i)


def within(inner: Box, outer: Box) -> Box:
    """The inner box in the coordinates of the outer one."""
    k, j, i = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))
    return (k, j, i)
