"""Every regime runs, and each does what it says to an image or a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from audit_samples import nodule_slices, nodules, pictures
from MedProtectLib.audit import attackers, defences, lattice, restorer
from MedProtectLib.audit.attackers import regions_mask
from MedProtectLib.audit.augmentation import cutout, heavy, nnunet_like
from MedProtectLib.audit.batches import Batch
from MedProtectLib.audit.data import AuditData, Sample, load_dataset
from MedProtectLib.audit.regimes import Knowledge
from MedProtectLib.audit.registry import REGIMES, regime_of
from MedProtectLib.audit.training import train_victim
from MedProtectLib.errors import UsageError
from MedProtectLib.fitting.fit import CaseInMemory, FitOptions, fit_in
from MedProtectLib.methods.base import CONTEXT, Case
from MedProtectLib.progress import Progress
from MedProtectLib.protector import DEFAULT_BOUND, Protector
from MedProtectLib.regions import grown
from MedProtectLib.window import choose_windows
from samples import SAMPLES

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::FutureWarning")

RNG = np.random.default_rng(7)
SMOOTH = np.broadcast_to(np.linspace(0.2, 0.8, 32, dtype=np.float32), (1, 32, 32)).copy()
NOISE = RNG.choice([-8 / 255, 8 / 255], SMOOTH.shape).astype(np.float32)
Image = np.ndarray


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restorer, "STEPS", 4)


def few(data: AuditData, count: int = 8) -> AuditData:
    return replace(data, cases={split: cases[:count] for split, cases in data.cases.items()})


def knowledge(data: AuditData, released: list[Sample] | None = None, public: AuditData | None = None) -> Knowledge:
    return Knowledge(data, released or data.samples("train"), public, data.setting.victim, 0)


@pytest.mark.parametrize("name", REGIMES)
def test_every_regime_trains_a_victim_in_2d(name: str) -> None:
    data = few(nodule_slices())
    data = replace(data, setting=replace(data.setting, batch=2, width=4, steps=2))
    trained = train_victim(data, data.samples("train"), regime_of(name), public=few(nodules(), 2))
    assert np.isfinite(trained.loss)


@pytest.mark.parametrize(
    "name",
    [
        "augmented",
        "heavy",
        "jpeg50",
        "bilateral",
        "half_size",
        "cutout",
        "ueraser",
        "learn_from_pairs",
        "subtract_public",
        "subtract_weave",
    ],
)
def test_regimes_train_a_victim_in_3d(name: str) -> None:
    data = few(nodules(), 2)
    assert np.isfinite(train_victim(data, data.samples("train"), regime_of(name), steps=1).loss)


@pytest.mark.parametrize("name", ["augmented", "heavy", "cutout", "mixup", "adversarial2", "ueraser", "jpeg50", "snap_levels"])
def test_regimes_train_a_classifier(name: str) -> None:
    data = pictures()
    assert np.isfinite(train_victim(data, data.samples("train"), regime_of(name), steps=1).loss)


@pytest.mark.parametrize(
    ("purify", "noise_left"),
    [
        (lambda image: defences.gaussian(image, 1.0), 0.35),
        (lambda image: defences.gaussian(image, 2.0), 0.2),
        (lambda image: defences.median(image, 3), 0.75),
        (defences.half_size, 0.6),
        (lambda image: defences.jpeg(image, 10), 0.7),
    ],
)
def test_filters_take_noise_away_and_keep_the_image(purify: Callable[[Image], Image], noise_left: float) -> None:
    assert purify(SMOOTH) == pytest.approx(SMOOTH, abs=0.05)
    left = purify(SMOOTH + NOISE) - purify(SMOOTH)
    assert left.dtype == np.float32
    assert left.std() < noise_left * NOISE.std()


@pytest.mark.parametrize("shape", [(1, 1, 20, 20), (1, 3, 20, 1)])
def test_thin_volumes_are_halved_and_restored(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    assert defences.half_size(image).shape == shape
    monkeypatch.setattr(restorer, "STEPS", 1)

    def draw(rng: np.random.Generator) -> tuple[Image, Image]:
        patch = restorer.cut_around(image, rng.integers(image.shape[1:]), 8)
        return patch, patch

    restore = restorer.fit_restorer(draw, 3, 1, 1, 0, 8 / 255, "learn")
    assert restore(image).shape == shape


def test_jpeg_loses_more_at_lower_quality() -> None:
    lost = [np.abs(defences.jpeg(SMOOTH + NOISE, quality) - SMOOTH - NOISE).mean() for quality in (75, 50, 10)]
    assert 0 < lost[0] < lost[1] < lost[2]


def test_bilateral_keeps_an_edge_that_a_blur_loses() -> None:
    edge = np.zeros((1, 16, 16), np.float32)
    edge[..., 8:] = 1.0
    assert np.abs(defences.bilateral(edge) - edge).max() < 0.05 < np.abs(defences.gaussian(edge, 1.0) - edge).max()


def test_bit_depth_has_sixteen_levels() -> None:
    assert len(np.unique(defences.bit_depth(np.linspace(-0.2, 1.2, 500, dtype=np.float32)[None], 4))) == 16


def test_a_restorer_learns_what_to_take_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restorer, "STEPS", 60)

    def draw(rng: np.random.Generator) -> tuple[Image, Image]:
        ramp = np.broadcast_to(np.linspace(*rng.uniform(0, 1, 2), 24, dtype=np.float32), (1, 24, 24))
        noise = rng.choice([-8 / 255, 8 / 255], ramp.shape).astype(np.float32)
        return ramp + noise, noise

    restore = restorer.fit_restorer(draw, 2, 1, 1, 0, 8 / 255, "learn")
    assert np.abs(restore(SMOOTH + NOISE) - NOISE).mean() < 0.5 * np.abs(NOISE).mean()


def test_denoiser_takes_noise_from_other_images_than_it_was_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little of it: the texture of these images is stronger than the noise, pixel by pixel."""
    monkeypatch.setattr(restorer, "STEPS", 40)
    data = few(nodule_slices())
    image = data.samples("test")[0].image
    noise = RNG.choice([-8 / 255, 8 / 255], image.shape).astype(np.float32)
    restored = defences.denoiser(knowledge(data, public=data))(image + noise)
    assert np.abs(restored - image).mean() < 0.97 * np.abs(noise).mean()


def test_augmentations_move_image_and_target_together() -> None:
    target = torch.zeros(1, 32, 32)
    target[:, 6:14, 8:24] = 1
    for build in (nnunet_like, heavy):
        transform = build(2)
        agreed = []
        for seed in range(12):
            transform.set_random_state(seed)
            out = transform({"image": 10 * target.clone(), "target": target.clone()})
            inside = torch.as_tensor(out["image"])[torch.as_tensor(out["target"]) > 0.5].mean()
            outside = torch.as_tensor(out["image"])[torch.as_tensor(out["target"]) < 0.5].mean()
            agreed.append(float(inside - outside))
        assert min(agreed) > 3.0


def test_heavy_interpolates_every_patch_and_nnunet_like_only_some() -> None:
    board = torch.from_numpy(np.indices((32, 32)).sum(0) % 2 * 2.0 - 1.0).float()[None]
    kept = {}
    for build in (nnunet_like, heavy):
        transform = build(2)
        energies = []
        for seed in range(60):
            transform.set_random_state(seed)
            out = torch.as_tensor(transform({"image": board.clone(), "target": torch.zeros_like(board)})["image"])
            energies.append(float(out.abs().median()))
        kept[build] = float(np.mean(np.array(energies) > 0.7))
    assert kept[heavy] < 0.1
    assert 0.3 < kept[nnunet_like] < 0.8


def test_cutout_blanks_a_quarter_of_image_and_target() -> None:
    out = cutout(2)({"image": torch.ones(1, 32, 32), "target": torch.ones(1, 32, 32)})
    assert float(torch.as_tensor(out["image"]).mean()) == pytest.approx(0.75)
    assert torch.equal(torch.as_tensor(out["image"]), torch.as_tensor(out["target"]))


@pytest.mark.parametrize("name", ["augmented", "heavy", "cutout"])
@pytest.mark.parametrize("dimension", [2, 3])
def test_an_augmentation_leaves_its_input_alone(name: str, dimension: int, rng: np.random.Generator) -> None:
    image = torch.from_numpy(rng.normal(size=(1, *(16,) * dimension)).astype(np.float32))
    target = (image > 0).float()
    kept = image.clone(), target.clone()
    build = regime_of(name).augment
    assert build is not None
    transform = build(dimension)
    for seed in range(20):
        transform.set_random_state(seed)
        transform({"image": image, "target": target})
    assert torch.equal(image, kept[0])
    assert torch.equal(target, kept[1])


class Linear(nn.Module):
    """Logits that are plus and minus the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([-images, images], 1)


def step_batch(value: float = 0.5) -> Batch:
    return Batch(torch.full((2, 1, 4, 4), value), torch.ones(2, 1, 4, 4, dtype=torch.long), torch.full((2, 1, 1, 1), 10.0))


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, targets[:, 0])


def test_adversarial_training_meets_the_largest_loss_within_its_bound() -> None:
    batch = step_batch()
    loss = defences.adversarial(4 / 255)(Linear(), batch, cross_entropy, np.random.default_rng(0))
    worst = cross_entropy(Linear()(batch.images - 4 / 255 * 10), batch.targets)
    assert float(loss) == pytest.approx(float(worst), rel=1e-5)


def drawn(seed: int) -> tuple[float, np.ndarray]:
    """The share and the partners that mixup draws with a seed."""
    rng = np.random.default_rng(seed)
    return float(rng.beta(defences.MIXUP_ALPHA, defences.MIXUP_ALPHA)), rng.permutation(2)


def test_mixup_weighs_two_losses() -> None:
    batch = Batch(
        torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)]), torch.zeros(2, 1, 4, 4, dtype=torch.long), torch.ones(2, 1, 1, 1)
    )
    batch = batch._replace(images=torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)]))
    seen: list[torch.Tensor] = []

    def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(logits[:, 1].amax(dim=(1, 2)))
        return torch.tensor(float(len(seen)))

    seed = next(n for n in range(20) if drawn(n)[1][0] == 1)
    share, _ = drawn(seed)
    loss = defences.mixup(Linear(), batch, loss_of, np.random.default_rng(seed))
    assert float(loss) == pytest.approx(share * 1 + (1 - share) * 2)
    assert seen[0].tolist() == pytest.approx([1 - share, share])


def test_ueraser_takes_the_worst_of_its_draws() -> None:
    batch = step_batch()
    batch = batch._replace(images=torch.randn(2, 1, 16, 16), targets=torch.ones(2, 1, 16, 16, dtype=torch.long))
    many = [float(defences.ueraser(Linear(), batch, cross_entropy, np.random.default_rng(n))) for n in range(4)]
    transform = defences.ueraser_like(2)
    single = []
    for n in range(20):
        transform.set_random_state(n)
        drawn = defences.augmented(batch, transform)
        single.append(float(cross_entropy(Linear()(drawn.images), drawn.targets)))
    assert min(many) > np.median(single)


def test_warm_start_brings_weights_trained_on_public_data() -> None:
    data = few(nodule_slices(), 4)
    data = replace(data, setting=replace(data.setting, steps=2, batch=2, width=4))
    network = defences.train_victim(data, data.samples("train"), steps=1).network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    defences.warm_start(network, knowledge(data, public=few(nodules(), 2)))
    assert any(not torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("regime", "stage", "count"), [("warm_start", "train on public data", 3), ("denoiser", "train the denoiser", 5)])
def test_what_is_trained_before_the_victim_shows_its_own_progress(
    regime: str, stage: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restorer, "STEPS", 5)
    data = few(nodule_slices(), 4)
    data = replace(data, setting=replace(data.setting, batch=2, width=4))
    told: list[Progress] = []
    train_victim(data, data.samples("train"), regime_of(regime), steps=3, public=few(nodules(), 2), report=told.append)
    assert [(p.stage, p.done, p.total) for p in told] == [
        *((stage, done, count) for done in range(1, count + 1)),
        *((f"train {data.setting.victim}", done, 3) for done in range(1, 4)),
    ]


def test_regimes_that_need_public_data_say_so() -> None:
    data = few(nodule_slices(), 4)
    with pytest.raises(UsageError, match="--public"):
        train_victim(data, data.samples("train"), regime_of("denoiser"), steps=1)
    with pytest.raises(UsageError, match="do not fit"):
        train_victim(data, data.samples("train"), regime_of("warm_start"), steps=1, public=pictures())


def test_names_are_joined_and_refused() -> None:
    joined = regime_of("jpeg10+blur_regions+cutout+augmented")
    assert len(joined.purify) == len(joined.attack) == 1
    assert joined.augment is not None
    with pytest.raises(UsageError, match="unknown regime 'nosuch'"):
        regime_of("jpeg10+nosuch")
    with pytest.raises(UsageError, match="cannot be used together"):
        regime_of("mixup+ueraser")


def outside_is_kept(attack: Callable[[Sample], Image], sample: Sample) -> Image:
    """The attacked image, after seeing that nothing changed outside the regions."""
    out = attack(sample)
    assert out.shape == sample.image.shape
    assert out.dtype == np.float32
    assert np.array_equal(out[:, ~regions_mask(sample)], sample.image[:, ~regions_mask(sample)])
    return out


def with_board(sample: Sample, epsilon: float = 8 / 255) -> Sample:
    board = np.indices(sample.image.shape[1:]).sum(0) % 2 * 2 - 1
    return Sample(sample.case, (sample.image + epsilon * board * regions_mask(sample)).astype(np.float32))


def test_blurring_and_filling_the_regions_takes_a_checkerboard_away() -> None:
    data = few(nodule_slices(), 4)
    sample = data.samples("train")[0]
    for build in (attackers.blur_regions, attackers.inpaint_regions):
        attack = build(knowledge(data))
        left = outside_is_kept(attack, with_board(sample)) - attack(sample)
        assert np.abs(left).mean() < 0.25 * np.abs(with_board(sample).image - sample.image).mean()
    regions = attackers.regions_of(sample)
    interior = regions.on_grid(regions.interior, sample.case.volume.geometry.shape)[0]
    filled = outside_is_kept(attackers.inpaint_contour(knowledge(data)), sample)
    assert np.array_equal(filled[:, interior], sample.image[:, interior])


def test_snapping_undoes_values_beside_the_grid() -> None:
    data = few(nodule_slices(), 4)
    sample = data.samples("train")[0]
    grid = Sample(sample.case, (np.rint(sample.image * 10) / 10).astype(np.float32))
    attack = attackers.snap_levels(knowledge(data))
    assert outside_is_kept(attack, with_board(grid, 0.02)) == pytest.approx(grid.image, abs=0.11)
    known = np.unique(grid.image[:, ~regions_mask(grid)])
    assert np.isin(attack(with_board(grid, 0.02)), known).all()


@pytest.mark.parametrize(("bound", "target"), [(4 / 255, None), (4 / 255, 50.1), (8 / 255, 50.1)])
def test_subtracting_the_public_profile_takes_most_of_it_away(bound: float, target: float | None) -> None:
    data = few(nodules())
    own = Protector("umed", bound=bound, target_psnr=target)
    clean = data.samples("train")
    released = [Sample(s.case, s.case.image_of(own.protect(s.case.volume, s.case.labels).volume)) for s in clean]
    attack = attackers.subtract_public(knowledge(data, released))
    left = sum(np.square(attack(sample) - original.image).sum() for sample, original in zip(released, clean, strict=True))
    assert left < 0.5 * sum(np.square(sample.image - original.image).sum() for sample, original in zip(released, clean, strict=True))


def test_subtracting_the_public_profile_leaves_clean_images_nearly_alone() -> None:
    data = few(load_dataset(SAMPLES / "hippocampus"), 3)
    attack, (profile, method) = attackers.subtract_public(knowledge(data)), Protector("umed").fitted(3)
    for sample in data.samples("train"):
        at_bound = DEFAULT_BOUND * attackers.pattern_of(sample, profile, method)
        assert np.square(attack(sample) - sample.image).sum() < 0.01 * np.square(at_bound).sum()


@pytest.mark.parametrize(("dimension", "most_left"), [(2, 0.5), (3, 0.2)])
def test_whoever_knows_weave_finds_its_lattice_and_takes_it_away(dimension: int, most_left: float) -> None:
    """Our own method, with a lattice that the attacker was not told. In a slice of a nodule few coarse knots tell how loud they are."""
    data = few(nodule_slices() if dimension == 2 else nodules())
    training, bound = data.cases["train"], 8 / 255
    cases = [CaseInMemory(case.volume, case.labels) for case in training]
    options = FitOptions("weave", dimension, bound, seed=5)
    own = Protector(profile=fit_in(Path("unused"), cases, options, "test"), bound=bound)
    released = [Sample(case, case.image_of(own.protect(case.volume, case.labels).volume).astype(np.float32)) for case in training]
    attack = lattice.subtract_weave(knowledge(data, released))
    left, written = 0.0, 0.0
    for clean, sample in zip(data.samples("train"), released, strict=True):
        left += np.abs(outside_is_kept(attack, sample) - clean.image).sum()
        written += np.abs(sample.image - clean.image).sum()
    assert left < most_left * written


def test_a_fixed_perturbation_is_learned_from_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restorer, "STEPS", 80)
    data = few(nodule_slices())
    clean = data.samples("train")
    released = [with_board(sample) for sample in clean]
    attack = attackers.learn_from_pairs(knowledge(data, released))
    unseen = outside_is_kept(attack, released[-1])
    assert np.abs(unseen - clean[-1].image).mean() < 0.5 * np.abs(released[-1].image - clean[-1].image).mean()
    unchanged = attackers.learn_from_pairs(knowledge(data, clean))
    assert unchanged(clean[0]) is clean[0].image


def test_what_leaks_holds_a_change(caplog: pytest.LogCaptureFixture) -> None:
    data = few(nodule_slices(), 12)
    bare = [replace(case, target=np.zeros_like(case.target)) if n < 6 else case for n, case in enumerate(data.cases["train"])]
    data = replace(data, cases={**data.cases, "train": bare})
    clean = data.samples("train")
    released = [with_board(sample) if n % 2 else sample for n, sample in enumerate(clean)]
    pairs = knowledge(data, released).leaked(5)
    assert [sample.case.name for _, sample in pairs] == [clean[n].case.name for n in (7, 9, 11)]
    assert all(original.image is not sample.image for original, sample in pairs)
    attack = attackers.learn_from_pairs(knowledge(data, released))
    assert np.any(attack(released[7]) != released[7].image)
    assert "only 3 of 12 released images differ from their originals" in caplog.text
    assert knowledge(data, clean).leaked(5) == []


def test_tool_and_attacker_see_the_same_case() -> None:
    """``pattern_of`` rebuilds what the tool gives its method; on the original it is the same to rounding."""
    case = few(nodules(), 2).cases["train"][1]
    profile, method = Protector("umed").fitted(3)
    sample = Sample(case, case.image_of(case.volume))
    regions = attackers.regions_of(sample)
    (tool,) = choose_windows(case.volume, regions, profile.modality, profile.window)
    context = grown(regions.box, (CONTEXT,) * 3, case.volume.geometry.shape)
    image = tool.normalise(case.volume.in_units(case.volume.array[context]))
    parts = method.perturb(Case(image, case.labels.classes()[context], regions, context), DEFAULT_BOUND)
    added = regions.on_grid(np.sum([p.values for p in parts.values()], axis=0), case.volume.geometry.shape)
    drawn = DEFAULT_BOUND * attackers.pattern_of(sample, profile, method)
    assert drawn[0] == pytest.approx(added * tool.width / case.windows[0].width, abs=1e-4)
