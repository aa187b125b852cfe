from __future__ import annotations

import numpy as np
import pytest
import torch

from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.methods.umed import UMed
from MedProtectLib.profile import Profile
from MedProtectLib.protector import Protector
from MedProtectLib.volume import Geometry, LabelMap, Volume

BOUND = 4 / 255


def untrained(dimension: int, seed: int = 0) -> Profile:
    """A profile of random generators with outputs of a useful size."""
    torch.manual_seed(seed)
    method = UMed(dimension, channels=(8, 8))
    with torch.no_grad():
        for generator in (method.generators.contour, method.generators.texture):
            generator.head.weight *= 30
    return Profile("umed", method.settings(), method.tensors(), BOUND, seed)


def scene(dtype: str = "int16", shape: tuple[int, ...] = (14, 40, 44), **more: object) -> tuple[Volume, LabelMap]:
    rng = np.random.default_rng(3)
    array = rng.normal(100, 30, shape)
    if dtype == "uint8":
        array = np.clip(array, 0, 255)
    geometry = Geometry(shape[2::-1], dimension=2 if shape[0] == 1 else 3)  # type: ignore[arg-type]
    labels = np.zeros(shape[:3], np.uint8)
    labels[shape[0] // 4 : shape[0] - shape[0] // 4 or 1, 10:30, 12:30] = 1
    labels[:, 15:18, 20:28] *= 2
    return Volume(array.astype(dtype), geometry, **more), LabelMap.from_array(labels, geometry)  # type: ignore[arg-type]


SCENES = {
    "3D int16": (3, {}),
    "3D uint8": (3, {"dtype": "uint8"}),
    "3D uint16 with intercept": (3, {"dtype": "uint16", "intercept": -1024.0, "modality": "CT"}),
    "3D int32 negative slope": (3, {"dtype": "int32", "slope": -1.0}),
    "3D float32": (3, {"dtype": "float32"}),
    "3D float64": (3, {"dtype": "float64"}),
    "3D two slices": (3, {"shape": (2, 40, 44)}),
    "2D picture": (2, {"dtype": "uint8", "shape": (1, 40, 44), "photograph": True}),
    "2D colour": (2, {"dtype": "uint8", "shape": (1, 40, 44, 3), "photograph": True}),
    "2D colour with alpha": (2, {"dtype": "uint8", "shape": (1, 40, 44, 4), "photograph": True, "alpha": 3}),
    "volume slice by slice": (2, {}),
}


@pytest.mark.parametrize("target", [None, 50.1])
@pytest.mark.parametrize("name", SCENES)
def test_bound_regions_range_and_target_hold_for_what_is_stored(name: str, target: float | None) -> None:
    dimension, options = SCENES[name]
    volume, labels = scene(**options)
    before = volume.array.copy()
    result = Protector(profile=untrained(dimension), bound=8 / 255, target_psnr=target).protect(volume, labels)
    after, found = result.volume.array, result.statistics
    assert np.array_equal(volume.array, before), "the input must not be modified"
    assert after.dtype == before.dtype
    assert found.changed_outside_regions == 0
    assert found.max_abs_change[0] <= 8 / 255 * (1 + 1e-6)
    assert found.changed_fraction >= 0.5 or target is not None
    assert after.min() >= before.min()
    assert after.max() <= before.max()
    assert found.psnr_roi_db is not None
    assert found.psnr_roi_db >= 20 * np.log10(255 / 8)
    full = Protector(profile=untrained(dimension), bound=8 / 255).protect(volume, labels).statistics.psnr_db
    assert found.psnr_db is not None
    assert full is not None
    if target is not None:
        assert found.psnr_db == pytest.approx(max(full, target), abs=0.5)
        assert found.psnr_db >= target - 1e-6
    if volume.alpha is not None:
        assert np.array_equal(after[..., 3], before[..., 3])


def test_components_add_up_to_the_stored_change() -> None:
    volume, labels = scene()
    result = Protector(profile=untrained(3)).protect(volume, labels)
    assert set(result.components) == {"contour", "texture"}
    total = sum(result.components[name] for name in result.components)
    change = (result.volume.array.astype(float) - volume.array) / result.window.width
    assert np.allclose(total, change, atol=1e-6)
    contour, texture = (result.components.where(name) for name in ("contour", "texture"))
    assert not (contour & texture).any()
    assert not result.components["contour"][~contour].any()


def test_flat_interior_keeps_its_values() -> None:
    volume, labels = scene()
    array = volume.array.copy()
    array[:, 13:27, 15:27] = 77
    result = Protector(profile=untrained(3), window=(0, 400)).protect(volume.with_array(array), labels)
    assert np.array_equal(result.volume.array[7, 14:26, 16:26], array[7, 14:26, 16:26])


@pytest.mark.parametrize("dimension", [2, 3])
def test_bytes_do_not_depend_on_the_thread_count(dimension: int) -> None:
    volume, labels = scene()
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(Protector(profile=untrained(dimension), target_psnr=50.1).protect(volume, labels).volume.array)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*results)


def test_another_profile_gives_another_perturbation() -> None:
    volume, labels = scene()
    one, other = (Protector(profile=untrained(3, seed)).protect(volume, labels).counts for seed in (0, 1))
    assert np.mean(one == other) < 0.5


def test_padding_is_not_touched() -> None:
    volume, labels = scene()
    array = volume.array.copy()
    array[:, :14] = -2000
    result = Protector(profile=untrained(3)).protect(volume.with_array(array), labels)
    assert np.array_equal(result.volume.array == -2000, array == -2000)


def test_labels_on_another_grid_are_resampled_with_a_notice() -> None:
    volume, labels = scene()
    i, j, k = labels.geometry.size
    coarse = Geometry((i // 2, j // 2, k), (2.0, 2.0, 1.0), (0.5, 0.5, 0.0))
    result = Protector(profile=untrained(3)).protect(volume, LabelMap.from_array(labels.layers[0][:, ::2, ::2], coarse))
    assert any("another grid" in notice for notice in result.notices)
    assert result.statistics.changed_voxels > 0


def test_a_float_image_on_a_grid_stays_on_it() -> None:
    volume, labels = scene()
    gridded = Volume((np.rint(volume.array / 2) * 2.5 + 1.25).astype(np.float32), volume.geometry)
    result = Protector(profile=untrained(3)).protect(gridded, labels)
    assert result.statistics.changed_voxels > 0
    assert np.isin(np.unique(result.volume.array * 4) % 10, (5.0,)).all()


def test_below_two_levels_warns_and_below_one_refuses() -> None:
    volume, labels = scene()
    coarse = Protector(profile=untrained(3), window=(0, 100)).protect(volume, labels)
    assert any("stored levels" in warning for warning in coarse.warnings)
    with pytest.raises(MedProtectError, match="nothing could be written"):
        Protector(profile=untrained(3), window=(0, 60)).protect(volume, labels)
    fine = Protector(profile=untrained(3), window=(0, 400)).protect(volume, labels)
    assert not fine.warnings


def test_an_unreachable_target_is_refused_rather_than_ignored() -> None:
    volume, labels = scene()
    with pytest.raises(MedProtectError, match="below one stored level"):
        Protector(profile=untrained(3), target_psnr=200.0).protect(volume, labels)


@pytest.mark.parametrize("options", [{"bound": 0.0}, {"bound": 33 / 255}, {"target_psnr": 0.0}, {"window": (3, 1)}, {"method": "nosuch"}])
def test_bad_options_are_wrong_usage(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Protector(**options)  # type: ignore[arg-type]


def test_a_volume_profile_refuses_a_picture() -> None:
    volume, labels = scene(dtype="uint8", shape=(1, 40, 44))
    with pytest.raises(MedProtectError, match="single picture"):
        Protector(profile=untrained(3)).protect(volume, labels)


def test_tensors_of_another_network_are_refused() -> None:
    profile = untrained(3)
    broken = Profile("umed", dict(profile.settings) | {"channels": [8, 16]}, profile.tensors, BOUND, 0)
    with pytest.raises(MedProtectError, match="do not fit"):
        Protector(profile=broken).protect(*scene())
