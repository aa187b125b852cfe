from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from MedProtectLib.errors import MedProtectError
from MedProtectLib.regions import bounding_box, find_regions

MASKS = arrays(bool, st.tuples(*[st.integers(1, 12)] * 3), elements=st.booleans()).filter(np.any)


def naive(mask: np.ndarray, reach: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    dilated, eroded = np.zeros_like(mask), np.zeros_like(mask)
    for index in np.ndindex(mask.shape):
        near = mask[tuple(slice(max(0, c - r), c + r + 1) for c, r in zip(index, reach, strict=True))]
        dilated[index], eroded[index] = near.any(), near.all()
    return eroded, dilated & ~eroded


@given(mask=MASKS, half_width=st.integers(1, 3), planar=st.booleans())
def test_interior_and_contour_follow_their_definition(mask: np.ndarray, half_width: int, planar: bool) -> None:
    regions = find_regions(mask, half_width, planar)
    interior, contour = naive(mask, (0 if planar else half_width, half_width, half_width))
    assert np.array_equal(regions.on_grid(regions.interior, mask.shape), interior)
    assert np.array_equal(regions.on_grid(regions.contour, mask.shape), contour)


def test_padding_is_left_out() -> None:
    mask = np.zeros((9, 20, 20), bool)
    mask[2:7, 5:15, 5:15] = True
    padding = np.zeros_like(mask)
    padding[:, :8] = True
    regions = find_regions(mask, untouchable=padding)
    assert not (regions.on_grid(regions.touched, mask.shape) & padding).any()


@pytest.mark.parametrize("padding", [None, np.ones((3, 5, 5), bool)])
def test_nothing_to_touch_is_refused(padding: np.ndarray | None) -> None:
    mask = np.full((3, 5, 5), padding is not None)
    with pytest.raises(MedProtectError, match="nothing to protect"):
        find_regions(mask, untouchable=padding)


def test_bounding_box_of_nothing() -> None:
    assert bounding_box(np.zeros((2, 2, 2), bool)) is None


def test_a_whole_image_around_labels_on_padding_alone_is_refused() -> None:
    foreground, untouchable = np.zeros((4, 8, 8), bool), np.zeros((4, 8, 8), bool)
    foreground[1:3, 2:4, 2:4] = untouchable[:, :6, :6] = True
    untouchable[:] = True
    untouchable[3, 7, 7] = False
    with pytest.raises(MedProtectError, match="every labelled voxel is padding"):
        find_regions(foreground, 0, untouchable=untouchable, whole_image=True)
