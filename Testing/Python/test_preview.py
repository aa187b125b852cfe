"""A slab's preview is what protecting the whole volume makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedProtectLib import MedProtectError, Protector, read_labels, read_volume
from MedProtectLib.methods import METHODS, method_class
from MedProtectLib.preview import Preview, slab_of

ONE_GRID_STEP = 2.0**-20


@pytest.fixture(scope="module")
def case(ct):
    image, labels = ct
    return read_volume(image), read_labels(labels).select(["liver"])


@pytest.fixture(scope="module")
def whole(case):
    return Protector().protect(*case)


@pytest.fixture(scope="module")
def preview(case):
    return Preview(Protector(), *case)


@pytest.mark.parametrize(("centre", "thickness"), [(0, 1), (10, 1), (15, 3), (29, 9)])
def test_slab_is_the_finished_volume(preview, whole, centre, thickness):
    slab = preview.slab(centre, thickness)
    assert slab.slices.start <= centre < slab.slices.stop <= slab.slices.start + thickness
    original, protected = (v.array[slab.slices].astype(int) for v in (whole.original, whole.volume))
    assert np.array_equal(slab.original.array, original)
    if slab.components is None:
        assert np.array_equal(original, protected)
        return
    different = slab.protected.array.astype(int) - protected
    assert np.abs(different).max() <= 1
    assert np.count_nonzero(different) <= 0.01 * np.count_nonzero(protected != original)
    for name, component in slab.components.items():
        assert component.shape == original.shape
        assert np.abs(component - whole.components[name][slab.slices]).max() <= 1.001 / whole.window.width
    assert slab.statistics.changed_outside_regions == 0


def test_the_unquantised_pattern_is_the_same(preview, whole, case):
    """Down to the grid that keeps the last bits of float arithmetic out of the file."""
    plan = preview.plan
    cut = preview._parts(preview_regions(preview, slice(12, 15)))
    full = preview._perturb(plan.regions, None)
    k = slice(12 - plan.regions.box[0].start, 15 - plan.regions.box[0].start)
    for name in plan.method.component_names:
        assert np.abs(cut[0][name].values - full[0][name].values[k]).max() <= ONE_GRID_STEP
        assert np.abs(cut[0][name].values).max() > 0


def preview_regions(preview, slices):
    from MedProtectLib.preview import regions_of

    return regions_of(preview.plan.regions, slices)


def test_what_is_decided_for_the_whole_is_the_same(preview, whole):
    assert preview.plan.window == whole.window
    assert preview.plan.bound == whole.bound
    assert preview.plan.warnings == whole.warnings
    assert np.array_equal(preview.plan.regions.touched, whole.regions.touched)


def test_a_psnr_target_is_estimated(case):
    whole = Protector(target_psnr=52.0).protect(*case)
    preview = Preview(Protector(target_psnr=52.0), *case)
    for centre in (8, 15, 22):
        slab = preview.slab(centre)
        finished = np.sum((whole.volume.array[centre].astype(float) - whole.original.array[centre]) ** 2)
        estimated = np.sum((slab.protected.array.astype(float) - slab.original.array) ** 2)
        assert 10 * abs(np.log10(estimated / finished)) < 1.5


def test_slab_keeps_its_place_in_space(case):
    volume, _labels = case
    slab = slab_of(volume, slice(7, 9))
    expected = volume.geometry.index_to_physical() @ (3, 4, 7, 1)
    assert np.allclose(slab.geometry.index_to_physical() @ (3, 4, 0, 1), expected)
    assert slab.array.base is not None


def test_slices_without_regions_and_outside(case):
    volume, labels = case
    only = labels.layers[0].copy()
    only[:20] = 0
    preview = Preview(Protector(), volume, replace(labels, layers=(only,)))
    assert preview.slices.start == 17
    empty = preview.slab(3)
    assert empty.statistics is None
    assert np.array_equal(empty.protected.array, volume.array[3:4])
    for outside in (-1, 30):
        with pytest.raises(MedProtectError, match="the slices go from 0 to 29"):
            preview.slab(outside)


def test_a_slice_that_the_method_leaves_as_it_is_shows_the_original(case):
    """Weave writes into the segment alone: the slices of the contour band above it stay, as in the finished volume."""
    volume, labels = case
    layer = labels.layers[0].copy()
    layer[:20] = 0
    preview = Preview(Protector("weave"), volume, replace(labels, layers=(layer,)))
    band = preview.slab(17)
    assert band.components is None
    assert np.array_equal(band.protected.array, volume.array[17:18])
    assert preview.slab(20).statistics.changed_voxels > 0


def test_a_slice_by_slice_method_needs_no_neighbours():
    from MedProtectLib.profile import Profile, shipped_profile

    flat = Profile.load(shipped_profile("umed", 2))
    method = method_class("umed").restore(flat.settings, flat.tensors)
    assert method.halo == (0, 1)


def test_the_declared_halo_is_enough_and_needed(preview, monkeypatch):
    """With half the halo the pattern differs, so the test above would notice one that is too small."""
    method, regions = preview.plan.method, preview_regions(preview, slice(12, 13))
    declared = method.halo
    assert declared.slices % declared.alignment == 0
    enough = preview._parts(regions)[0]["contour"].values
    monkeypatch.setattr(type(method), "halo", declared._replace(slices=declared.alignment))
    assert np.abs(preview._parts(regions)[0]["contour"].values - enough).max() > ONE_GRID_STEP


@pytest.mark.parametrize("name", [n for n in METHODS if not method_class(n).learns])
def test_methods_that_draw_for_the_case_are_cut_from_the_whole(name, case):
    try:
        whole = Protector(name).protect(*case)
    except MedProtectError as error:
        pytest.skip(str(error))
    slab = Preview(Protector(name), *case).slab(14, 3)
    different = slab.protected.array.astype(int) - whole.volume.array[slab.slices]
    assert np.abs(different).max() <= 1
