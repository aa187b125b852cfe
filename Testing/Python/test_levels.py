from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume
from MedProtectLib.levels import FineLevels, GridLevels, IntegerLevels, find_levels, find_padding
from MedProtectLib.regions import Regions, find_regions
from MedProtectLib.volume import Geometry, Volume


def volume_of(array: np.ndarray, **more: object) -> Volume:
    return Volume(array, Geometry(tuple(array.shape[2::-1])), **more)  # type: ignore[arg-type]


def everywhere(array: np.ndarray) -> Regions:
    return find_regions(np.ones(array.shape[:3], bool))


@given(step=st.floats(1e-3, 1e3), origin=st.floats(-1e3, 1e3), count=st.integers(20, 300), seed=st.integers(0, 99))
def test_a_float_grid_is_found_and_kept(step: float, origin: float, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ladder = (origin + step * np.arange(count)).astype(np.float32)
    if np.diff(ladder.astype(np.float64)).min() < 0.99 * step:
        return
    array = rng.choice(ladder, size=(4, 20, 20))
    levels = find_levels(volume_of(array), None, 4 * step, everywhere(array))
    assert isinstance(levels, GridLevels)
    stored = array.ravel()
    up = rng.random(stored.size) < 0.5
    counts = np.minimum(levels.room(stored, up), 3) * np.where(up, 1, -1)
    moved = levels.shift(stored, counts)
    assert np.isin(moved, levels.rungs).all()
    assert moved.min() >= array.min()
    assert moved.max() <= array.max()
    tolerance = 0.1 * levels.step
    assert np.allclose(moved.astype(float) - stored.astype(float), counts * levels.step, atol=tolerance)


@given(step=st.sampled_from([0.0366, 0.1, 1 / 3, 0.3713, 2.442]), top=st.integers(2000, 400_000), seed=st.integers(0, 99))
def test_a_bright_outlier_hides_no_float_grid(step: float, top: int, seed: int) -> None:
    array = (step * np.append(np.random.default_rng(seed).integers(0, 1500, 2399), top)).astype(np.float32).reshape(6, 20, 20)
    levels = find_levels(volume_of(array), None, 4 * step, everywhere(array))
    assert isinstance(levels, GridLevels)
    for up in (True, False):
        counts = np.minimum(levels.room(array, np.full(array.shape, up)), 20) * (1 if up else -1)
        indices = levels.shift(array, counts).astype(np.float64) / step
        assert np.abs(indices - np.rint(array / step) - counts).max() < 0.05


def test_a_float_grid_whose_largest_value_is_far_from_the_others(shared_data: Path) -> None:
    volume = read_volume(shared_data / "msd_hippocampus" / "imagesTr" / "hippocampus_311.nii.gz")
    levels = find_levels(volume, None, 20.0, everywhere(volume.array))
    assert isinstance(levels, GridLevels)
    assert levels.step == pytest.approx(0.1046952, abs=1e-7)


def test_few_values_that_happen_to_lie_near_a_grid_are_on_none() -> None:
    array = (1.974779590763816 * np.resize([0.0, 2, 177, 14238, 264189], (4, 10, 10))).astype(np.float64)
    assert isinstance(find_levels(volume_of(array), None, 6.0, everywhere(array)), FineLevels)


def test_continuous_floats_are_on_no_grid_though_all_are_multiples_of_the_gap_between_floats(rng: np.random.Generator) -> None:
    array = rng.uniform(1000, 1020, (6, 20, 20)).astype(np.float32)
    assert isinstance(find_levels(volume_of(array), None, 0.3, everywhere(array)), FineLevels)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("outlier", [60_000, 200_000, 3_000_000, 2**30, 2**40])
@pytest.mark.parametrize("multiple", [1, 4])
def test_whole_numbers_of_any_range_stay_whole(kind: type, outlier: int, multiple: int, rng: np.random.Generator) -> None:
    array = (multiple * np.rint(rng.normal(1500, 300, (6, 20, 20)).clip(1))).astype(kind)
    array[0, 0, :3] = outlier
    inside = find_regions(np.broadcast_to(np.arange(6)[:, None, None] > 2, array.shape), half_width=0)
    levels = find_levels(volume_of(array), None, 6.0 * multiple, inside)
    assert levels.step == multiple
    stored, up = array[3:], rng.random((3, 20, 20)) < 0.5
    counts = levels.within(6.0 * multiple, stored, np.minimum(levels.room(stored, up), 6), up)
    assert np.mean(counts == 6) > 0.99
    assert np.array_equal(levels.shift(stored, np.where(up, counts, -counts)), stored + np.where(up, counts, -counts) * multiple)


def test_whole_numbers_without_neighbours_stay_whole(rng: np.random.Generator) -> None:
    array = rng.choice([0.0, 20, 41, 63, 97, 2000, 2021], (6, 20, 20)).astype(np.float32)
    levels = find_levels(volume_of(array), None, 6.0, everywhere(array))
    assert levels.step == 1


def test_whole_numbers_beyond_the_gap_between_floats_move_by_no_less_than_that(rng: np.random.Generator) -> None:
    array = np.rint(rng.normal(1500, 300, (6, 20, 20))).astype(np.float32)
    array[0, 0, :3] = 3e7
    assert find_levels(volume_of(array), None, 6.0, everywhere(array)).step == 2


def test_continuous_floats_get_a_fine_binary_step(rng: np.random.Generator) -> None:
    array = rng.normal(size=(4, 30, 30)).astype(np.float32)
    levels = find_levels(volume_of(array), None, 0.05, everywhere(array))
    assert isinstance(levels, FineLevels)
    assert levels.step < 0.05 / 500
    assert np.log2(levels.step) == int(np.log2(levels.step))


def test_continuous_floats_stay_in_the_images_own_range(rng: np.random.Generator) -> None:
    array = rng.uniform(size=(4, 30, 30)).astype(np.float32)
    levels = find_levels(volume_of(array), None, 0.5, everywhere(array))
    for up, end in ((True, array.max()), (False, array.min())):
        room = levels.room(array, np.full(array.shape, up))
        moved = levels.shift(array, room if up else -room)
        assert np.abs(moved - end).max() <= levels.step
        assert array.min() <= moved.min() <= moved.max() <= array.max()


def test_a_fine_step_is_no_smaller_than_the_gaps_between_the_floats_that_may_change(rng: np.random.Generator) -> None:
    array = (rng.normal(size=(4, 30, 30)) * 100).astype(np.float32)
    array[0] += 1e9
    far, near = everywhere(array), find_regions(np.broadcast_to(np.arange(4)[:, None, None] == 2, array.shape), half_width=0)
    assert find_levels(volume_of(array), None, 6.0, far).step == np.spacing(np.float32(1e9))
    assert find_levels(volume_of(array), None, 6.0, near).step < 6.0 / 500


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_integers_stay_in_the_images_own_range(dtype: type, rng: np.random.Generator) -> None:
    info = np.iinfo(dtype)
    array = rng.integers(info.min if info.bits < 32 else -1000, info.max if info.bits < 32 else 1000, (3, 9, 9)).astype(dtype)
    levels = find_levels(volume_of(array), None, 6, everywhere(array))
    assert isinstance(levels, IntegerLevels)
    stored = array.ravel()
    for up in (True, False):
        room = levels.room(stored, np.full(stored.size, up))
        moved = levels.shift(stored, np.minimum(room, 5) * (1 if up else -1))
        assert moved.min() >= array.min()
        assert moved.max() <= array.max()


@pytest.mark.parametrize(("dtype", "value"), [(np.int64, -(2**52) - 1), (np.uint64, 2**64 - 1)])
def test_integers_that_floats_cannot_count_are_refused(dtype: type, value: int) -> None:
    array = np.arange(300, dtype=dtype).reshape(3, 10, 10)
    array[0, 0, 0] = value
    with pytest.raises(MedProtectError, match="beyond 2\\^52"):
        find_levels(volume_of(array), None, 6, everywhere(array))


def test_padding_is_the_floor_that_many_voxels_share() -> None:
    array = np.full((2, 10, 10), 100, np.int16)
    array[:, :3] = -2000
    padding = find_padding(volume_of(array))
    assert padding is not None
    assert np.array_equal(padding, array == -2000)
    levels = find_levels(volume_of(array), padding, 6, everywhere(array))
    assert levels.lowest == -1999, "a voxel must not become padding"


def test_a_lonely_minimum_is_no_padding(rng: np.random.Generator) -> None:
    array = rng.integers(0, 1000, (5, 20, 20)).astype(np.int16)
    array[0, 0, 0] = -5
    assert find_padding(volume_of(array)) is None


def test_a_declared_padding_value_wins() -> None:
    array = np.arange(200, dtype=np.int16).reshape(2, 10, 10)
    padding = find_padding(volume_of(array, padding_value=7))
    assert padding is not None
    assert padding.sum() == 1


def picture_with_black() -> np.ndarray:
    """A grey picture with a black frame of 3 pixels and, apart from it, a black square of 20 x 20."""
    array = np.full((1, 60, 60), 90, np.uint8)
    array[:, :3] = array[:, -3:] = array[:, :, :3] = array[:, :, -3:] = 0
    array[:, 20:40, 20:40] = 0
    return array


def test_black_inside_a_picture_is_anatomy_and_its_frame_is_padding() -> None:
    array = picture_with_black()
    padding = find_padding(Volume(array, Geometry((60, 60, 1), dimension=2)))
    assert padding is not None
    assert padding[0, :3].all()
    assert padding[0, :, -3:].all()
    assert not padding[0, 3:-3, 3:-3].any()


def test_black_inside_a_volume_is_padding() -> None:
    array = np.repeat(picture_with_black(), 3, axis=0)
    padding = find_padding(volume_of(array))
    assert padding is not None
    assert np.array_equal(padding, array == 0)


def test_a_declared_padding_value_holds_inside_a_picture_too() -> None:
    array = picture_with_black()
    padding = find_padding(Volume(array, Geometry((60, 60, 1), dimension=2), padding_value=0))
    assert padding is not None
    assert np.array_equal(padding, array == 0)


def test_a_picture_without_a_frame_has_no_padding() -> None:
    array = picture_with_black()
    array[array == 0] = 90
    array[:, 20:40, 20:40] = 0
    assert find_padding(Volume(array, Geometry((60, 60, 1), dimension=2))) is None
