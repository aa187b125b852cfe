from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from MedProtectLib.regions import find_regions
from MedProtectLib.statistics import measure
from MedProtectLib.volume import Geometry, Volume
from MedProtectLib.window import IntensityWindow

WINDOW = IntensityWindow(-160.0, 240.0)


def pair(shape: tuple[int, ...], seed: int) -> tuple[Volume, Volume, np.ndarray]:
    """An image, a copy that differs inside a mask, and the mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape[:3], bool)
    corner = [int(rng.integers(0, max(1, n - 3))) for n in shape[:3]]
    mask[tuple(slice(c, c + 6) for c in corner)] = True
    original = rng.integers(-200, 300, shape).astype(np.int16)
    change = rng.integers(-6, 7, shape) * mask.reshape(mask.shape + (1,) * (len(shape) - 3))
    geometry = Geometry(shape[2::-1], dimension=2 if shape[0] == 1 else 3)  # type: ignore[arg-type]
    return Volume(original, geometry), Volume((original + change).astype(np.int16), geometry), mask


@given(
    shape=st.sampled_from([(12, 20, 24), (3, 20, 24), (1, 30, 31), (7, 7, 7), (9, 8, 40), (1, 20, 20, 3), (10, 12, 12, 2)]),
    seed=st.integers(0, 999),
)
@settings(deadline=None)
def test_against_numpy_and_scikit_image_on_the_whole_image(shape: tuple[int, ...], seed: int) -> None:
    original, protected, mask = pair(shape, seed)
    found = measure(original, protected, find_regions(mask), [WINDOW], 4 / 255)
    a, b = original.array.astype(float), protected.array.astype(float)
    assert found.changed_voxels == np.count_nonzero((a != b).reshape(*shape[:3], -1).any(axis=-1))
    assert found.changed_outside_regions == 0
    if found.changed_voxels == 0:
        assert found.psnr_db is None
        return
    touched = find_regions(mask).on_grid(find_regions(mask).touched, shape[:3])
    assert found.psnr_db == pytest.approx(peak_signal_noise_ratio(a, b, data_range=400))
    assert found.psnr_full_range_db == pytest.approx(peak_signal_noise_ratio(a, b, data_range=a.max() - a.min()))
    assert found.psnr_roi_db == pytest.approx(peak_signal_noise_ratio(a[touched], b[touched], data_range=400))
    assert found.max_abs_change == pytest.approx((np.abs(a - b).max() / 400, np.abs(a - b).max()))
    assert found.roi_mean_shift == pytest.approx((b - a)[touched].mean())
    per_slice = [None if (x == y).all() else peak_signal_noise_ratio(x, y, data_range=400) for x, y in zip(a, b, strict=True)]
    assert found.per_slice_psnr_db == pytest.approx(per_slice)
    channels = np.moveaxis(np.stack([a, b]).reshape(2, *shape[:3], -1), -1, 0)
    if shape[0] >= 7:
        expected = np.mean([structural_similarity(x, y, win_size=7, data_range=400) for x, y in channels])
    else:
        expected = np.mean([structural_similarity(x[k], y[k], win_size=7, data_range=400) for x, y in channels for k in range(shape[0])])
    assert found.ssim == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("shape", "across", "window"),
    [
        ((24, 1, 20), 1, "7x7 uniform, row by row"),
        ((24, 2, 6), 1, "5x5 uniform, row by row"),
        ((24, 20, 1), 2, "7x7 uniform, column by column"),
        ((2, 24, 20), 0, "7x7 uniform, slice by slice"),
        ((1, 2, 30), None, "none: the image is smaller than 3 voxels along two axes"),
        ((24, 1, 1), None, "none: the image is smaller than 3 voxels along two axes"),
    ],
)
def test_thin_images_are_compared_plane_by_plane_or_not_at_all(shape: tuple[int, int, int], across: int | None, window: str) -> None:
    original, protected, mask = pair(shape, 4)
    found = measure(original, protected, find_regions(mask), [WINDOW], 4 / 255)
    assert found.changed_voxels > 0
    assert found.ssim_window == window
    json.dumps(found.as_record(), allow_nan=False)
    if across is None:
        assert found.ssim is None
        return
    a, b = (np.moveaxis(volume.array.astype(float), across, 0) for volume in (original, protected))
    expected = np.mean([structural_similarity(x, y, win_size=int(window[0]), data_range=400) for x, y in zip(a, b, strict=True)])
    assert found.ssim == pytest.approx(expected, abs=1e-9)


def test_changes_outside_the_regions_are_counted() -> None:
    original, protected, mask = pair((12, 20, 24), 1)
    spoiled = protected.array.copy()
    outside = np.argwhere(~find_regions(mask).on_grid(find_regions(mask).touched, mask.shape))[:5]
    spoiled[tuple(outside.T)] += 1
    assert measure(original, protected.with_array(spoiled), find_regions(mask), [WINDOW]).changed_outside_regions == 5


def test_slope_takes_stored_differences_to_units() -> None:
    original, protected, mask = pair((12, 20, 24), 1)
    scaled = [Volume(v.array, v.geometry, slope=-2.0, intercept=5.0) for v in (original, protected)]
    plain, steep = measure(original, protected, find_regions(mask), [WINDOW]), measure(scaled[0], scaled[1], find_regions(mask), [WINDOW])
    assert steep.max_abs_change_units == 2 * plain.max_abs_change_units
    assert steep.max_abs_change[1] == plain.max_abs_change[1]
    assert steep.psnr_db == pytest.approx(plain.psnr_db - 20 * np.log10(2))


def test_the_record_is_strict_json() -> None:
    original, _, mask = pair((12, 20, 24), 1)
    record = measure(original, original, find_regions(mask), [WINDOW]).as_record()
    assert json.loads(json.dumps(record, allow_nan=False))["psnr_db"] is None
