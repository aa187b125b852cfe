"""Noise that is kept on disk between the visits of a fit: it belongs to its case, and a checkpoint is never overwritten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from MedProtectLib import read_labels, read_volume
from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.fit import CaseInMemory
from MedProtectLib.fitting.kept_noise import LEVELS, KeptNoise
from MedProtectLib.fitting.patches import PatchSource, Place, prepare
from MedProtectLib.methods.base import Purpose
from MedProtectLib.progress import ignore
from samples import SAMPLES

BOUND = 8 / 255


@pytest.fixture(scope="module", params=[2, 3])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PatchSource:
    """Two real cases, prepared; a patch is larger than a case along one axis."""
    folder, dimension = tmp_path_factory.mktemp("prepared"), int(request.param)
    names = sorted(p.name for p in (SAMPLES / "hippocampus" / "imagesTr").glob("*.nii.gz"))[:2]
    data = SAMPLES / "hippocampus"
    cases = [CaseInMemory(read_volume(data / "imagesTr" / n), read_labels(data / "labelsTr" / n), n) for n in names]
    prepare(cases, folder / "work", Purpose(dimension, classes=(1, 2)), True, None, None, None, ignore)
    return PatchSource(folder / "work", dimension, (80, 16, 16)[3 - dimension :] if dimension == 3 else (80, 16), 3, seed=5)


def noise_like(source: PatchSource, places: list[Place], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return BOUND * (2 * torch.rand(len(places), source.channels, *source.patch, generator=generator) - 1)


def inside(source: PatchSource, place: Place) -> np.ndarray:
    """Where a patch lies in its case, 0 or 1."""
    mask = np.zeros((source.channels, *source.patch), np.float32)
    mask[place.target] = 1
    return mask


def test_a_patch_is_where_its_place_says(source: PatchSource) -> None:
    batch, places = source.draw_located(3)
    assert torch.equal(batch.image, source.draw(3).image)
    for image, place in zip(batch.image.numpy(), places, strict=True):
        case = np.load(source.files[place.file])[: source.channels]
        assert np.array_equal(image[place.target], case[place.source].clip(0, 1))
        assert not image[inside(source, place) == 0].any()


def test_noise_goes_back_to_its_patch_of_its_case_alone(source: PatchSource, tmp_path: Path) -> None:
    kept = KeptNoise(tmp_path / "noise", source, BOUND)
    _, places = source.draw_located(0)
    assert not kept.read(places).any()
    expected = [np.zeros((source.channels, *np.load(file, mmap_mode="r").shape[1:]), np.float32) for file in source.files]
    for step in range(4):
        _, places = source.draw_located(step)
        noise = noise_like(source, places, step)
        kept.write(places, noise)
        for patch, place in zip(kept.stored(noise).numpy(), places, strict=True):
            expected[place.file][place.source] = patch[place.target]
    assert len({place.file for step in range(4) for place in source.draw_located(step)[1]}) == 2
    for step in range(6):
        _, places = source.draw_located(step)
        for patch, place in zip(kept.read(places).numpy(), places, strict=True):
            assert np.allclose(patch[place.target], expected[place.file][place.source], atol=1e-9)
            assert not patch[inside(source, place) == 0].any()


def test_what_is_stored_is_within_half_a_level_and_the_bound(source: PatchSource, tmp_path: Path) -> None:
    kept = KeptNoise(tmp_path / "noise", source, BOUND)
    _, places = source.draw_located(0)
    noise = noise_like(source, places, 1)
    noise.flatten()[:2] = torch.tensor([BOUND, -BOUND])
    stored = kept.stored(noise)
    assert (stored - noise).abs().max() <= 0.5 * BOUND / LEVELS * (1 + 1e-5)
    assert stored.abs().max() == pytest.approx(BOUND)
    assert torch.equal(stored, kept.stored(stored)), "storing twice changes nothing"
    kept.write(places, noise)
    voxels = {np.load(source.files[place.file], mmap_mode="r")[: source.channels].size for place in places}
    assert {file.stat().st_size for file in (tmp_path / "noise").iterdir()} == voxels, "one byte a voxel, one file a case"


def test_a_fit_that_dies_goes_on_from_the_noise_of_its_checkpoint(source: PatchSource, tmp_path: Path) -> None:
    """Whatever is written after a checkpoint, in one visit or in many, the checkpoint's noise is there again."""
    kept = KeptNoise(tmp_path / "noise", source, BOUND)
    everywhere = source.draw_located(0)[1] + source.draw_located(1)[1]
    for checkpoint in range(3):
        kept.write(everywhere, noise_like(source, everywhere, checkpoint))
        state, at_checkpoint = kept.state_dict(), kept.read(everywhere)
        for visits in range(3):
            dying = KeptNoise(tmp_path / "noise", source, BOUND)
            dying.load_state_dict(state)
            for visit in range(visits):
                dying.write(everywhere[visit:], noise_like(source, everywhere[visit:], 100 + visit))
            resumed = KeptNoise(tmp_path / "noise", source, BOUND)
            resumed.load_state_dict(state)
            assert torch.equal(resumed.read(everywhere), at_checkpoint)
        kept.settle()
    assert len(list((tmp_path / "noise").iterdir())) <= 2 * len(source.files)


def test_missing_noise_of_a_checkpoint_is_refused(source: PatchSource, tmp_path: Path) -> None:
    kept = KeptNoise(tmp_path / "noise", source, BOUND)
    _, places = source.draw_located(0)
    kept.write(places, noise_like(source, places, 0))
    with pytest.raises(MedProtectError, match="as many processes as before"):
        KeptNoise(tmp_path / "noise_1", source, BOUND).load_state_dict(kept.state_dict())
