from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MedProtectLib import protect_file, restore_file
from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.levels import BOUND_ROUNDING
from MedProtectLib.methods.umed import UMed
from MedProtectLib.profile import Profile, shipped_profile
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


@cache
def of_pictures() -> Profile:
    path = shipped_profile("umed", 2)
    assert path is not None
    return Profile.load(path)


KINDS = [
    *("int16 integers", "int32 integers", "int64 wide"),
    *("float32 rounded", "float64 rounded", "float32 spread", "float64 spread"),
]


def stored_values(kind: str, levels: int, scale: float, offset: float, seed: int) -> np.ndarray:
    """A picture (1, j, i): integers, a grid of decimals that were rounded, or a continuum with a few values far away."""
    rng = np.random.default_rng(seed)
    array = np.rint(rng.normal(0.5, 0.17, (1, 24, 26)).clip(0, 1) * levels)
    dtype, form = kind.split()
    if form in ("integers", "wide"):
        return (np.rint(offset) + np.rint(scale * (1e9 if form == "wide" else 1)) * array).astype(dtype)
    if form == "rounded":
        return (np.round(array * scale / levels, 2 - int(np.log10(scale / levels))) + offset).astype(dtype)
    far = rng.uniform(offset, 1e7, array.shape) * (np.arange(24)[:, None] < 2)
    return np.where(far, far, offset + scale * (array + rng.random(array.shape)) / levels).astype(dtype)


@pytest.mark.parametrize(("divisor", "high"), [(3, 85.0), (7, 36.43)])
def test_a_grid_of_rounded_decimals_keeps_the_bound(divisor: int, high: float) -> None:
    """Its levels lie up to 4 % of a step off, and four of them would be more than the bound."""
    volume, labels = scene()
    values = volume.array.clip(0, 255)
    values[0].flat[:256] = np.arange(256)
    array = np.round(values / divisor, 2).astype(np.float32)
    result = Protector(window=(0, high)).protect(Volume(array, volume.geometry), labels)
    assert result.step == pytest.approx(1 / divisor, rel=1e-3)
    assert 0.9 * BOUND < result.statistics.max_abs_change[0] <= BOUND * BOUND_ROUNDING
    assert result.statistics.changed_fraction > 0.5


@pytest.mark.parametrize("offset", [1e4, 3e5])
def test_floats_of_few_digits_in_a_narrow_window_keep_the_bound(offset: float) -> None:
    volume, labels = scene(dtype="float64")
    array = (offset + volume.array).astype(np.float32)
    array[0, 0] = np.random.default_rng(0).uniform(0, 1e7, array.shape[2])
    window = (offset + 70, offset + 123.6)
    result = Protector(window=window).protect(Volume(array, volume.geometry), labels)
    assert 0.9 * BOUND < result.statistics.max_abs_change[0] <= BOUND * BOUND_ROUNDING
    assert np.count_nonzero(result.counts) == result.statistics.changed_voxels


def test_floats_too_coarse_for_the_bound_are_refused() -> None:
    volume, labels = scene(dtype="float64")
    array = (3e7 + 3 * volume.array).astype(np.float32)
    array[0] = np.random.default_rng(0).uniform(0, 1e4, array.shape[1:])
    with pytest.raises(MedProtectError, match="nothing could be written"):
        Protector(profile=untrained(3), window=(3e7, 3e7 + 60)).protect(Volume(array, volume.geometry), labels)


@pytest.mark.parametrize("target", [None, 50.1])
@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_more_levels_than_32_bits_count(dtype: str, target: float | None) -> None:
    volume, labels = scene(dtype="float64")
    wide = volume.with_array((volume.array.clip(0) * 4e9 + np.random.default_rng(0).integers(0, 2**32, volume.array.shape)).round())
    result = Protector(target_psnr=target).protect(Volume(wide.array.astype(dtype), volume.geometry), labels)
    reference = Protector(target_psnr=target).protect(wide, labels)
    assert result.counts.dtype == np.int64
    assert result.statistics.psnr_db == pytest.approx(50.1 if target else reference.statistics.psnr_db, abs=0.02)
    assert result.statistics.max_abs_change[0] <= BOUND * (1 + 1e-8)
    assert np.isin(np.sign(result.counts) - np.sign(reference.counts), 0).mean() > 0.99


@given(
    kind=st.sampled_from(KINDS),
    levels=st.integers(40, 400),
    scale=st.floats(1, 300),
    offset=st.sampled_from([0.0, -7.3, 1e3, 8190.0, 1e4, 1e5, 3e5, 1e6, 3e6]),
    width=st.floats(0.2, 1.5),
    target=st.sampled_from([None, 45.0, 52.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_what_is_stored_keeps_the_bound_and_the_regions(
    kind: str, levels: int, scale: float, offset: float, width: float, target: float | None, seed: int
) -> None:
    if kind == "int16 integers":
        scale, offset = 1.0, min(offset, 1e4)
    array = stored_values(kind, levels, scale, offset, seed)
    labels = np.zeros(array.shape, np.uint8)
    labels[:, 8:18, 6:20] = 1
    geometry = Geometry((26, 24, 1), dimension=2)
    low, high = np.percentile(array[labels > 0], (0, 100)).tolist()
    window = (low, low + max(width * (high - low), 1e-3))
    protector = Protector(profile=of_pictures(), target_psnr=target, window=window)
    try:
        result = protector.protect(Volume(array, geometry), LabelMap.from_array(labels, geometry))
    except MedProtectError as error:
        if "nothing could be written" not in str(error):
            raise
        return
    change = np.abs(result.volume.array.astype(np.longdouble) - array.astype(np.longdouble))
    assert 0 < change.max() <= BOUND * result.window.width * BOUND_ROUNDING
    touched = result.regions.on_grid(result.regions.touched, array.shape)
    assert not change[~touched].any()
    assert result.statistics.changed_voxels == np.count_nonzero(result.counts)


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


@pytest.mark.parametrize("outlier", [200_000, 2**27])
def test_whole_numbers_in_floats_stay_whole_beside_a_bright_outlier(outlier: int) -> None:
    volume, labels = scene()
    array = np.rint(volume.array * 7.3).astype(np.float32)
    array[0, 0, :3] = outlier
    result = Protector(profile=untrained(3)).protect(Volume(array, volume.geometry), labels)
    assert result.statistics.changed_fraction >= 0.5
    assert result.statistics.max_abs_change[0] <= BOUND * BOUND_ROUNDING
    assert np.array_equal(result.volume.array, np.rint(result.volume.array))


def test_below_two_levels_warns_and_below_one_refuses() -> None:
    volume, labels = scene()
    coarse = Protector(profile=untrained(3), window=(0, 100)).protect(volume, labels)
    assert any("stored levels" in warning for warning in coarse.warnings)
    with pytest.raises(MedProtectError, match="nothing could be written"):
        Protector(profile=untrained(3), window=(0, 60)).protect(volume, labels)
    with pytest.raises(MedProtectError, match="the largest bound, 32/255, does not mend that"):
        Protector(profile=untrained(3), window=(0, 7)).protect(volume, labels)
    fine = Protector(profile=untrained(3), window=(0, 400)).protect(volume, labels)
    assert not fine.warnings


@pytest.mark.parametrize("high", [23, 47, 53, 60, 61, 62, 63])
def test_the_advised_bound_is_enough(high: float) -> None:
    volume, labels = scene()
    with pytest.raises(MedProtectError, match=r"Allow at least --bound [\d.]+/255") as refused:
        Protector(profile=untrained(3), window=(0, high)).plan(volume, labels)
    advised = re.search(r"--bound ([\d.]+)/255", str(refused.value))
    assert advised
    Protector(profile=untrained(3), window=(0, high), bound=float(advised[1]) / 255).plan(volume, labels)


def test_a_window_that_is_not_the_images_is_told_or_refused() -> None:
    volume, labels = scene("float64")
    small = volume.with_array(volume.array / 1000)
    told = Protector(profile=untrained(3), modality="CT").plan(small, labels).warnings
    assert any("the intensity window is 400 wide" in warning and "that will be seen" in warning for warning in told)
    assert not any("will be seen" in warning for warning in Protector(profile=untrained(3)).plan(small, labels).warnings)
    with pytest.raises(MedProtectError, match=r"the intensity window is 1e\+16 wide"):
        Protector(profile=untrained(3), window=(0, 1e16)).plan(volume, labels)


def test_an_unreachable_target_is_refused_rather_than_ignored() -> None:
    volume, labels = scene()
    with pytest.raises(MedProtectError, match="below one stored level"):
        Protector(profile=untrained(3), target_psnr=200.0).protect(volume, labels)


@pytest.mark.parametrize(
    "options",
    [
        *({"bound": bound} for bound in (0.0, 33 / 255)),
        *({"window": window} for window in ((3, 1), (1, 2, 3), 5, ("a", "b"), (-1e308, 1e308))),
        *({"seed": seed} for seed in (-1, 2**63, 1.5)),
        {"target_psnr": 0.0},
        {"target_psnr": "50"},
        {"bound": "4/255"},
        {"method": "nosuch"},
        {"modality": "ct"},
    ],
)
def test_bad_options_are_wrong_usage(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Protector(**options)  # type: ignore[arg-type]


def test_a_window_may_be_an_array_and_a_seed_a_number_of_numpy() -> None:
    volume, labels = scene()
    one, other = (
        Protector(profile=untrained(3), window=window, seed=seed).protect(volume, labels)
        for window, seed in (((0, 250), 7), (np.array([0, 250]), np.int64(7)))
    )
    assert np.array_equal(one.volume.array, other.volume.array)


def test_values_whose_squares_no_float_holds_are_refused() -> None:
    volume, labels = scene("float64")
    volume.array[0, 0, 0] = -1e200
    with pytest.raises(MedProtectError, match=r"its values reach 1e\+200"):
        Protector(profile=untrained(3)).protect(volume, labels)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_named(value: float) -> None:
    volume, labels = scene("float64")
    volume.array[0, 0, :2] = value
    with pytest.raises(MedProtectError, match=r"volume: 2 of 24,640 voxels are infinite or not a number"):
        Protector(profile=untrained(3)).protect(volume, labels)


def case_of(what: str) -> tuple[object, object]:
    """An image and labels of which one is no such thing."""
    volume, labels = scene()
    array, grid = volume.array, volume.geometry
    return {
        "array": lambda: (array, labels),
        "no labels": lambda: (volume, None),
        "label array": lambda: (volume, labels.layers[0]),
        "tensor": lambda: (Volume(torch.tensor(array), grid), labels),  # type: ignore[arg-type]
        "label tensor": lambda: (volume, LabelMap.from_array(torch.tensor(array), grid)),  # type: ignore[arg-type]
        "no voxels": lambda: (Volume(array[:0], Geometry((44, 40, 0))), labels),
        "bool": lambda: (Volume(array > 200, grid), labels),
        "complex": lambda: (Volume(array.astype(complex), grid), labels),
        "float16": lambda: (Volume(array.astype("float16"), grid), labels),
        "fractions": lambda: (volume, LabelMap.from_array(labels.layers[0] * 0.3, grid)),
        "negative": lambda: (volume, LabelMap.from_array(labels.layers[0].astype(int) - 1, grid)),
        "infinite": lambda: (volume, LabelMap.from_array(labels.layers[0] * np.inf, grid)),
        "texts": lambda: (volume, LabelMap.from_array(labels.layers[0].astype(str), grid)),
    }[what]()


@pytest.mark.filterwarnings("error", "ignore:invalid value encountered in multiply")
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("array", "the image is a ndarray: give a Volume"),
        ("no labels", "the labels are a NoneType: give a LabelMap"),
        ("label array", "the labels are a ndarray"),
        ("tensor", "a Tensor where a NumPy array is needed"),
        ("label tensor", "a Tensor where a NumPy array is needed"),
        ("no voxels", r"of shape \(0, 40, 44\) \(k, j, i\) has no voxels"),
        ("bool", "stored as bool"),
        ("complex", "stored as complex128"),
        ("float16", "stored as float16"),
        ("fractions", "not whole numbers"),
        ("negative", "negative values"),
        ("infinite", "not whole numbers"),
        ("texts", "stored as <U"),
    ],
)
def test_what_is_no_image_and_no_label_map_is_one_line(what: str, said: str) -> None:
    with pytest.raises(MedProtectError, match=said):
        Protector(profile=untrained(3)).protect(*case_of(what))  # type: ignore[arg-type]


def test_labels_may_be_a_mask_or_whole_floats() -> None:
    labels = scene()[1]
    for array in (labels.layers[0] > 0, labels.layers[0].astype(float)):
        again = LabelMap.from_array(array, labels.geometry)
        assert again.layers[0].dtype == np.uint8
        assert np.array_equal(again.layers[0], array)


def test_a_profile_of_another_method_than_the_given_one_is_refused(tmp_path: Path) -> None:
    untrained(3).save(tmp_path / "p.medprotect")
    with pytest.raises(UsageError, match=r"the profile .* is of method umed"):
        Protector.from_profile(tmp_path / "p.medprotect", method="weave")
    assert Protector.from_profile(tmp_path / "p.medprotect", method="umed").method_name == "umed"


def test_files_want_a_protector_and_a_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the protector is a str"):
        protect_file("a.nii", "b.nii", tmp_path / "out", "umed")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the key is a str"):
        protect_file("a.nii", "b.nii", tmp_path / "out", Protector(), key="site.key")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the key is a str"):
        restore_file("a.nii", tmp_path, "site.key", tmp_path / "b.nii")  # type: ignore[arg-type]


def test_the_example_for_arrays_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "np.load" in block]
    volume, labels = scene()
    monkeypatch.chdir(tmp_path)
    np.save("ct.npy", volume.array)
    np.save("ct_labels.npy", (labels.layers[0] > 0) * np.uint8(5))
    exec(code, {})
    assert np.count_nonzero(np.load("ct_protected.npy") != volume.array)


def test_labels_must_fit_their_grid() -> None:
    with pytest.raises(MedProtectError, match=r"a layer of shape \(3, 4, 5\) does not fit a grid of shape \(3, 4, 6\)"):
        LabelMap.from_array(np.ones((3, 4, 5), np.uint8), Geometry((6, 4, 3)))


def test_segments_are_chosen_by_one_name_or_value_or_by_several() -> None:
    array = np.zeros((1, 2, 3), np.uint8)
    array[0, 0] = 1, 2, 12
    labels = LabelMap.from_array(array, Geometry((3, 2, 1)), {12: "tumour"})
    for wanted, values in (("12", [12]), ("tumour", [12]), (1, [1]), ([2, "1"], [2, 1]), ((), [1, 2, 12]), (None, [1, 2, 12])):
        assert [segment.value for segment in labels.select(wanted).segments] == values, wanted
    with pytest.raises(MedProtectError, match="no segment '0'"):
        labels.select(0)
    with pytest.raises(MedProtectError, match=r"no segment 'Tumor'\. Did you mean 'tumour'\? Segments in the file: 1, 2, tumour \(12\)"):
        labels.select("Tumor")
    many = LabelMap.from_array(np.arange(41, dtype=np.uint8).reshape(1, 1, 41), Geometry((41, 1, 1)))
    with pytest.raises(MedProtectError, match=r"no segment 'x'\. Segments in the file: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 30 more\."):
        many.select("x")


def test_components_of_all_channels_add_up_where_one_channel_is_flat() -> None:
    volume, labels = scene("uint8", (1, 40, 44, 3), photograph=True)
    volume.array[..., 0] = 120
    protection = Protector(profile=untrained(2)).protect(volume, labels)
    whole = protection.regions.on_grid(protection.counts / 255, volume.geometry.shape)
    assert np.abs(whole[..., 1]).max() > 0
    assert np.allclose(sum(protection.components.values()), whole, atol=1e-6)


def test_too_little_memory_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(UMed, "perturb_channels", full)
    with pytest.raises(MemoryError):
        Protector(profile=untrained(3)).protect(*scene())


def test_a_volume_profile_refuses_a_picture() -> None:
    volume, labels = scene(dtype="uint8", shape=(1, 40, 44))
    with pytest.raises(MedProtectError, match="single picture"):
        Protector(profile=untrained(3)).protect(volume, labels)


def test_tensors_of_another_network_are_refused() -> None:
    profile = untrained(3)
    broken = Profile("umed", dict(profile.settings) | {"channels": [8, 16]}, profile.tensors, BOUND, 0)
    with pytest.raises(MedProtectError, match="do not fit"):
        Protector(profile=broken).protect(*scene())
