from __future__ import annotations

import numpy as np
import pytest

from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.regions import Regions, find_regions
from MedProtectLib.volume import Geometry, Volume
from MedProtectLib.window import choose_window


def scene(array: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1), **more: object) -> tuple[Volume, Regions]:
    mask = np.zeros(array.shape[:3], bool)
    mask[2:-2, 20:30, 20:30] = True
    return Volume(array, Geometry(tuple(array.shape[2::-1]), spacing), **more), find_regions(mask)  # type: ignore[arg-type]


@pytest.fixture
def hounsfield(rng: np.random.Generator) -> np.ndarray:
    array = rng.normal(40, 20, (8, 50, 50))
    array[:, :5] = -1000
    return array.astype(np.int16)


def test_ct_is_recognised_and_seen_near_the_regions_only(hounsfield: np.ndarray) -> None:
    window = choose_window(*scene(hounsfield))
    assert (window.guessed, window.unit) == (True, "HU")
    assert window.width == pytest.approx(400)
    assert (window.low + window.high) / 2 == pytest.approx(40, abs=5), "air, more than 10 mm away, must not count"


def test_ct_reach_is_in_millimetres(hounsfield: np.ndarray) -> None:
    near_air = choose_window(*scene(hounsfield, spacing=(0.5, 0.5, 0.5)), modality="CT")
    assert near_air.low == -1000
    assert not near_air.guessed


def test_ct_reach_does_not_depend_on_the_last_bits_of_the_spacing(hounsfield: np.ndarray) -> None:
    hounsfield[:, 9] = np.linspace(-900, -800, 50)  # 11 rows from the labels, 8 from the contour band
    exact, rounded = (choose_window(*scene(hounsfield, spacing=(s, s, s)), modality="CT") for s in (1.25, 1.2500000295020257))
    assert exact == rounded
    assert exact.low < -800


def test_ct_stored_unsigned_with_an_intercept(hounsfield: np.ndarray) -> None:
    stored = (hounsfield.astype(np.int32) + 1024).astype(np.uint16)
    direct, shifted = choose_window(*scene(hounsfield)), choose_window(*scene(stored, intercept=-1024.0))
    assert (direct.low, direct.high) == pytest.approx((shifted.low, shifted.high))


def test_declared_padding_near_the_regions_does_not_count(hounsfield: np.ndarray) -> None:
    window = choose_window(*scene(hounsfield, spacing=(0.5, 0.5, 0.5), padding_value=-1000.0), modality="CT")
    assert window.width == pytest.approx(400)
    hounsfield[:, :5] = np.resize([-1000, -2000], (5, 50))
    ranged = choose_window(*scene(hounsfield, spacing=(0.5, 0.5, 0.5), padding_value=-1000.0, padding_limit=-2000.0), modality="CT")
    assert ranged == window
    everything = choose_window(*scene(np.full_like(hounsfield, -1000), padding_value=-1000.0), modality="CT")
    assert (everything.low, everything.high) == (-1200, -800), "the refusal is another check's"


def test_ct_reach_ends_with_the_image(hounsfield: np.ndarray) -> None:
    whole, finer = (choose_window(*scene(hounsfield, spacing=(s, s, s)), modality="CT") for s in (0.2, 1e-9))
    assert whole == finer


@pytest.mark.parametrize(("factor", "modality"), [(1e-35, "MR"), (1e35, "MR"), (1e35, "CT")])
def test_values_without_a_measurable_window_are_refused(factor: float, modality: str, hounsfield: np.ndarray) -> None:
    with pytest.raises(MedProtectError, match="in which nothing can be measured"):
        choose_window(*scene(hounsfield * factor), modality=modality)


def test_mr_uses_the_percentiles_of_the_nonzero_voxels(rng: np.random.Generator) -> None:
    array = rng.integers(1, 1000, (8, 50, 50)).astype(np.int16)
    array[:, :, :15] = 0
    window = choose_window(*scene(array), modality="MR")
    assert (window.low, window.high) == pytest.approx(tuple(np.percentile(array[array != 0], (0.5, 99.5))))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("slope", [0.7, float(np.float32(0.7)), -0.3, 1.0])
def test_the_background_counts_as_zero_though_slope_and_intercept_are_rounded(slope: float, dtype: type, rng: np.random.Generator) -> None:
    array = rng.integers(1500, 2500, (8, 50, 50)).astype(dtype)
    array[:, :, :15] = 1000
    volume, regions = scene(array, slope=slope, intercept=-round(slope * 1000, 3))
    window = choose_window(volume, regions, modality="MR")
    assert (window.low, window.high) == pytest.approx(tuple(np.percentile(volume.in_units(array[array != 1000]), (0.5, 99.5))), rel=1e-5)


def test_values_beside_a_large_stored_zero_are_not_zero(rng: np.random.Generator) -> None:
    array = (2**31 + rng.integers(1, 100, (8, 50, 50))).astype(np.uint32)
    array[:, :, :15] = 2**31
    window = choose_window(*scene(array, intercept=-(2.0**31)), modality="MR")
    assert (window.low, window.high) == pytest.approx(tuple(np.percentile(array[array != 2**31] - 2.0**31, (0.5, 99.5))))


def test_photographs_have_their_full_range() -> None:
    window = choose_window(*scene(np.full((8, 50, 50, 3), 9, np.uint8), photograph=True))
    assert (window.low, window.high, window.guessed) == (0, 255, False)


def test_a_given_window_overrides_every_rule(hounsfield: np.ndarray) -> None:
    window = choose_window(*scene(hounsfield), given=(-160, 240))
    assert (window.low, window.high, window.unit) == (-160, 240, "HU")


@pytest.mark.parametrize("given", [(5, 5), (7, 2), (0, float("inf")), (float("nan"), 1), (0, 5e-324)])
def test_an_empty_window_is_wrong_usage(given: tuple[float, float], hounsfield: np.ndarray) -> None:
    with pytest.raises(UsageError):
        choose_window(*scene(hounsfield), given=given)


def test_a_constant_image_has_no_window() -> None:
    with pytest.raises(MedProtectError, match="constant"):
        choose_window(*scene(np.full((8, 50, 50), 3, np.int16)))
