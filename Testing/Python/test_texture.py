from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from MedProtectLib.texture import texture_map

IMAGES = arrays(np.int16, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-3, 3))


@given(image=IMAGES)
def test_texture_map_equals_the_naive_loop(image: np.ndarray) -> None:
    expected = np.zeros(image.shape)
    for k, j, i in np.ndindex(image.shape):
        for dj in (-1, 0, 1):
            for di in (-1, 0, 1):
                inside = 0 <= j + dj < image.shape[1] and 0 <= i + di < image.shape[2]
                if (dj, di) != (0, 0) and inside and image[k, j + dj, i + di] > image[k, j, i]:
                    expected[k, j, i] += 1 / 8
    assert np.array_equal(texture_map(image), expected)


def test_flat_areas_get_nothing() -> None:
    assert not texture_map(np.full((2, 6, 6), 5.0)).any()
