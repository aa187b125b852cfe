"""Victims, their training and their scores."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from audit_samples import nodule_slices, nodules, pictures
from MedProtectLib.audit.batches import Normalisation, Preparation, draw
from MedProtectLib.audit.data import Sample
from MedProtectLib.audit.registry import regime_of
from MedProtectLib.audit.scoring import constant_score, score_predictions
from MedProtectLib.audit.settings import setting_names, setting_of
from MedProtectLib.audit.training import fresh_victim, score, train_victim
from MedProtectLib.audit.victims import VICTIMS, Shape
from MedProtectLib.errors import MedProtectError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::FutureWarning")

SEGMENTING = [name for name, victim in VICTIMS.items() if victim.task == "segmentation"]


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("name", VICTIMS)
def test_victim_gives_logits_of_the_right_shape_and_learns_in_every_layer(name: str, dimension: int) -> None:
    size = (32,) * dimension if name in SEGMENTING else (16,) * dimension
    network = VICTIMS[name].build(Shape(dimension, 2, 3, size, 4)).train()
    logits = network(torch.randn(2, 2, *size))
    assert logits.shape == ((2, 3, *size) if name in SEGMENTING else (2, 3))
    logits.square().mean().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None and "cross_attn" not in n]  # which MONAI's transformer never uses
    assert not still, f"no gradient reaches {still}"


def test_victims_of_the_other_task_and_unknown_ones_are_refused() -> None:
    for name in ("resnet18", "nosuch"):
        with pytest.raises(UsageError, match="no victim"):
            fresh_victim(nodules(), name, 0)


def test_a_training_that_diverged_gives_no_score() -> None:
    data = pictures()
    spoiled = [Sample(sample.case, sample.image * np.nan) for sample in data.samples("train")]
    with pytest.raises(MedProtectError, match="the training of victim 'resnet18' diverged after 1 steps"):
        train_victim(data, spoiled, victim="resnet18", steps=2)


def test_a_ct_without_labels_has_no_foreground() -> None:
    data = nodules()
    bare = [Sample(replace(sample.case, target=np.zeros_like(sample.case.target)), sample.image) for sample in data.samples("train")]
    with pytest.raises(MedProtectError, match="none of the cases that a victim would train on has a label"):
        Normalisation.of(data, bare)


def test_guessing_is_worth_more_where_a_class_is_absent() -> None:
    data = pictures()
    samples = data.samples("val")
    assert constant_score(samples, data) == 0.5
    assert constant_score([sample for sample in samples if int(sample.target) == 0], data) == 1.0


def test_settings_fit_their_victims() -> None:
    for name in setting_names():
        setting = setting_of(name)
        assert setting.victim in VICTIMS
        if VICTIMS[setting.victim].task == "segmentation":
            assert all(edge % 16 == 0 for edge in setting.size), f"{name}: the networks halve an edge four times"
    with pytest.raises(UsageError, match="unknown setting"):
        setting_of("nosuch")


def test_a_victim_fails_after_training_on_a_class_pattern_and_succeeds_on_clean_data() -> None:
    data = nodule_slices()
    clean = data.samples("train")

    def marked(sample: Sample) -> np.ndarray:
        pattern = (np.indices(sample.image.shape[1:]) // 2).sum(0) % 2 * 2 - 1
        return sample.image + np.float32(1.0) * pattern * (sample.target > 0)

    scores = {}
    for name, samples in {"clean": clean, "marked": data.samples("train", {s.case.name: marked(s) for s in clean})}.items():
        trained = train_victim(data, samples, seed=0)
        scores[name] = score(trained.last, data.samples("test"), data, distances=False).mean
    assert scores["clean"] > 0.45
    assert scores["marked"] < 0.3


def test_training_repeats_with_its_seed_and_keeps_the_best_look() -> None:
    data = nodules()
    a, b, c = (train_victim(data, data.samples("train"), regime_of("augmented"), seed=seed) for seed in (1, 1, 2))
    assert a.curve == b.curve
    assert a.loss == b.loss != c.loss
    assert [step for step, _ in a.curve] == [1, 2, 3, 4]
    validation = data.samples("val")
    assert score(a.best, validation, data, distances=False).mean == pytest.approx(max(value for _, value in a.curve), abs=1e-6)
    assert score(a.last, validation, data, distances=False).mean == pytest.approx(a.curve[-1][1], abs=1e-6)


def test_classification_is_learned_and_scored() -> None:
    data = pictures()
    trained = train_victim(data, data.samples("train"), victim="densenet", seed=0)
    found = score(trained.last, data.samples("test"), data)
    assert found.accuracy == found.balanced == found.mean == 1.0
    assert constant_score(data.samples("test"), data) == 0.5


def test_predictions_lie_on_the_native_grid() -> None:
    data = nodules()
    for resized in (True, False):
        changed = replace(data, setting=replace(data.setting, resized=resized))
        trained = train_victim(changed, changed.samples("train"), steps=1)
        for sample in changed.samples("test"):
            assert trained.last(sample).shape == sample.target.shape


def test_patches_hold_image_and_target_of_the_same_place() -> None:
    data = nodules()
    samples = [Sample(case, np.where(case.target > 0, 1.0, 0.0).astype(np.float32)[None]) for case in data.cases["train"]]
    preparation = Preparation(data.setting, Normalisation(((0.0, 1.0),)))
    batch = draw([preparation(sample) for sample in samples], data.setting, 0, 0, None)
    assert batch.images.shape == (2, 1, 16, 32, 32)
    assert torch.equal(batch.images > 0.5, batch.targets > 0)


def test_ct_is_normalised_by_the_foreground_of_the_training_cases() -> None:
    data = nodules()
    train = data.samples("train")
    inside = np.concatenate([s.image[0][s.target > 0] for s in train]).clip(0, 1)
    z, (unit,) = Normalisation.of(data, train)(train[0].image)
    assert data.ct
    assert unit == pytest.approx(1 / inside.std(), rel=1e-5)
    assert z.min() >= (0 - inside.mean()) * unit - 1e-5
    own, _ = Normalisation()(train[0].image)
    assert (own.mean(), own.std()) == pytest.approx((0, 1), abs=1e-4)


@pytest.mark.parametrize("ct", [False, True])
def test_every_channel_is_normalised_by_its_own_mean_and_deviation(ct: bool, rng: np.random.Generator) -> None:
    data = replace(nodules(), ct=ct, channels=2)
    first = data.cases["train"][0]
    shape = first.target.shape
    image = np.stack([rng.uniform(0.4, 0.6, shape), rng.uniform(0.0, 0.2, shape)]).astype(np.float32)
    sample = Sample(first, image)
    seen = np.ones(shape, bool) if not ct else first.target > 0
    z, units = Normalisation.of(data, [sample])(image)
    for channel, own, unit in zip(z, image, units, strict=True):
        assert (channel[seen].mean(), channel[seen].std()) == pytest.approx((0, 1), abs=1e-3)
        assert unit == pytest.approx(1 / own[seen].std(), rel=1e-5)
    prepared = Preparation(data.setting, Normalisation.of(data, [sample]))(sample)
    batch = draw([prepared], data.setting, 0, 0, None)
    assert batch.units.shape == (2, 2, 1, 1, 1)
    assert batch.units[1].flatten().tolist() == pytest.approx(list(units), rel=1e-6)


def test_one_channel_is_normalised_as_ever() -> None:
    """Rows that are published were trained so, to the bit."""
    for data in (nodules(), nodule_slices()):
        train = data.samples("train")
        for sample in train[:3]:
            own, (unit,) = Normalisation()(sample.image)
            as_ever = 1.0 / float(sample.image.std())
            assert unit == as_ever
            assert np.array_equal(own, ((sample.image - float(sample.image.mean())) * as_ever).astype(np.float32))
        inside = np.concatenate([s.image[:, s.target > 0].clip(0.0, 1.0).ravel() for s in train])
        assert Normalisation.of(replace(data, ct=True), train).foreground == ((float(inside.mean()), float(inside.std())),)


def squares(*corners: tuple[int, int]) -> np.ndarray:
    out = np.zeros((24, 24), np.int64)
    for j, i in corners:
        out[j : j + 4, i : i + 4] = 1
    return out


def test_scores_against_numbers_worked_out_by_hand() -> None:
    data = nodule_slices()
    case = data.cases["test"][0]
    spacing = case.volume.geometry.spacing_kji[1:]
    geometry = replace(case.volume.geometry, size=(24, 24, 1))
    volume = replace(case.volume, array=np.zeros((1, 24, 24), np.int16), geometry=geometry)
    image = np.zeros((1, 24, 24), np.float32)
    full, empty = (Sample(replace(case, volume=volume, target=t[None]), image) for t in (squares((4, 4)), squares()))
    told = [squares((4, 6)), squares(), squares((0, 0)), squares()]
    found = score_predictions(told, [full, full, empty, empty], data)
    diagonal = math.dist((0, 0), (24 * spacing[0], 24 * spacing[1]))
    assert found.dsc[:, 0] == pytest.approx([0.5, 0, 0, math.nan], nan_ok=True)
    assert found.iou[:, 0] == pytest.approx([8 / 24, 0, 0, math.nan], nan_ok=True)
    assert found.hd95[:, 0] == pytest.approx([2 * spacing[1], diagonal, diagonal, math.nan], nan_ok=True, rel=1e-5)
    assert found.mean == pytest.approx(0.5 / 3)
    everywhere = 2 * (16 / 576) / (1 + 16 / 576)
    assert constant_score([full, empty], data) == pytest.approx(everywhere)
