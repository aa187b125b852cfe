"""The parts of the methods against their formulas, written naively, in float64."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.gradient_noise import descend, frozen, mean_gradient, projected_step
from MedProtectLib.fitting.surrogates import surrogate_for
from MedProtectLib.methods.ar import AR, answer, answers_of, autoregress, draw_fields, products, search_weights, usable
from MedProtectLib.methods.base import CLASSIFICATION, IMAGE, Case, Purpose
from MedProtectLib.methods.gradient import TILE, Scene
from MedProtectLib.methods.lsp import LSP
from MedProtectLib.methods.pattern import PatternMethod
from MedProtectLib.methods.salm import SALM, top_fraction
from MedProtectLib.methods.tap import TAP, shifted, starts
from MedProtectLib.methods.voxshield import VoxShield, inter_slice_term
from MedProtectLib.methods.weave import Weave
from MedProtectLib.progress import ignore
from MedProtectLib.regions import Box, Regions

FINE = 0.5


def box(*shape: int) -> Box:
    k, j, i = (slice(0, n) for n in shape)
    return k, j, i


def naive_autoregression(start: np.ndarray, weights: np.ndarray) -> np.ndarray:
    field = start.copy()
    for j in range(2, field.shape[0]):
        for i in range(2, field.shape[1]):
            field[j, i] = sum(weights[a, b] * field[j + a - 2, i + b - 2] for a in range(3) for b in range(3) if (a, b) != (2, 2))
    return field


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return search_weights(4, np.random.default_rng(1))


@pytest.mark.parametrize("shape", [(3, 36, 41), (1, 200, 130), (2, 3, 60), (1, 14, 14)])
def test_the_recursion_by_tiles_is_the_recursion_by_voxels(weights: np.ndarray, shape: tuple[int, ...]) -> None:
    starts = np.random.default_rng(2).standard_normal(shape)
    for each in weights:
        for fast, start in zip(autoregress(starts, each), starts, strict=True):
            slow = naive_autoregression(start, each)
            assert np.abs(fast - slow).max() <= 1e-10 * max(1.0, np.abs(slow).max())


def test_a_filter_is_blind_to_its_own_process_alone(weights: np.ndarray) -> None:
    for n, own in enumerate(weights):
        assert own[2, 2] == 0
        assert own.sum() == pytest.approx(1)
        fields = draw_fields(8, own, np.random.default_rng(n))
        fields -= fields.mean(axis=(1, 2), keepdims=True)
        assert answer(fields, own) < 1e-10
        assert all(answer(fields, other) > 0.1 for m, other in enumerate(weights) if m != n)


def test_answers_from_products_are_the_answers(weights: np.ndarray) -> None:
    fields = [draw_fields(4, own, np.random.default_rng(n)) for n, own in enumerate(weights)]
    expected = np.array([[answer(field, other) for other in weights] for field in fields])
    found = answers_of(weights, np.stack([products(field) for field in fields]))
    others = ~np.eye(len(weights), dtype=bool)
    assert found[others] == pytest.approx(expected[others], rel=1e-9)
    assert found[~others].max() < 1e-6


@pytest.mark.parametrize(("name", "in_plane"), [("lsp", (slice(6, 9), slice(20, 24))), ("ar", (slice(0, 40), slice(0, 36)))])
def test_a_class_is_drawn_on_its_own_box_where_places_decide(
    name: str, in_plane: tuple[slice, slice], monkeypatch: pytest.MonkeyPatch
) -> None:
    method_of: type[PatternMethod] = {"lsp": LSP, "ar": AR}[name]
    purpose = Purpose(2, classes=(1, 2))
    method = method_of(purpose, {}, method_of.draw_fixed(purpose, {}, np.random.default_rng(0)))
    classes = np.ones((3, 40, 36), np.uint8)
    classes[1:2, 6:9, 20:24] = 2
    whole = box(*classes.shape)
    case = Case(np.zeros(classes.shape, np.float32), classes, Regions(whole, classes > 0, classes > 9), whole)
    drawn: list[Box] = []
    pattern = method.pattern

    def noted(number: int, channel: int, part: Box, seed: list[int]) -> np.ndarray:
        drawn.append(part)
        return pattern(number, channel, part, seed)

    monkeypatch.setattr(method, "pattern", noted)
    method.perturb(case, 1.0)
    assert drawn == [whole, (slice(1, 2), *in_plane)]


def test_processes_that_explode_vanish_or_are_not_finite_are_not_usable() -> None:
    good = np.random.default_rng(0).standard_normal((32, 32))
    bad = [good * np.nan, np.where(good > 3, np.inf, good), good * 1e200, good * 1e3, good * 0, good * 1e-6]
    assert usable(np.stack([good, *bad])).tolist() == [True] + [False] * len(bad)


def test_an_unstable_process_in_a_profile_is_refused_rather_than_written() -> None:
    weights = np.zeros((2, 1, 3, 3))
    weights[:, :, 2, 1] = 3.0
    with pytest.raises(MedProtectError, match="not stable"):
        AR(Purpose(2, classes=(1,)), {}, weights).pattern(0, 0, box(1, 40, 40), [1])


@pytest.mark.parametrize("dimension", [2, 3])
def test_block_patterns_are_separated_by_a_linear_classifier(dimension: int) -> None:
    """Least squares on raw voxels, fitted on one half of the images and scored on the other."""
    purpose = Purpose(dimension, CLASSIFICATION, IMAGE, classes=("a", "b", "c", "d"))
    fixed = LSP.draw_fixed(purpose, {}, np.random.default_rng(0))
    method = LSP(purpose, {"class_sep": 10.0, "block": 4.0}, fixed)
    shape = (1, 32, 32) if dimension == 2 else (8, 16, 16)
    truth = np.arange(200) % 4
    patterns = np.stack([method.pattern(int(y), 0, box(*shape), [n, int(y)]).ravel() for n, y in enumerate(truth)])
    assert len(np.unique(patterns.round(9), axis=0)) == len(patterns), "every image has a pattern of its own"
    images = patterns + np.random.default_rng(1).normal(0, 0.3, patterns.shape)
    halves = slice(0, 100), slice(100, 200)
    coefficients = np.linalg.lstsq(images[halves[0]], np.eye(4)[truth[halves[0]]], rcond=None)[0]
    told = (images[halves[1]] @ coefficients).argmax(axis=1)
    assert np.mean(told == truth[halves[1]]) > 0.99


def test_block_patterns_begin_at_the_volume_not_at_the_region() -> None:
    method = LSP(Purpose(3, classes=(1,)), {}, LSP.draw_fixed(Purpose(3, classes=(1,)), {}, np.random.default_rng(0)))
    whole = method.pattern(1, 0, box(10, 40, 40), [5])
    part = method.pattern(1, 0, (slice(3, 7), slice(13, 22), slice(7, 27)), [5])
    assert np.array_equal(part, whole[3:7, 13:22, 7:27])


def test_a_projected_step_by_hand() -> None:
    delta = torch.tensor([0.0, 0.5, -0.9, 1.0, 0.2], dtype=torch.float64)
    gradient = torch.tensor([2.0, -3.0, 0.1, -5.0, 0.0], dtype=torch.float64)
    limit = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.1], dtype=torch.float64)
    expected = torch.tensor([-0.25, 0.75, -1.0, 1.0, 0.1], dtype=torch.float64)
    assert torch.equal(projected_step(delta, gradient, 0.25, limit), expected)


def test_descent_on_a_linear_loss_by_hand() -> None:
    """L = w . (x + delta): the gradient is w, so that 3 steps of 0.1 go to -0.3 sign(w), or to the limit."""
    weights = torch.tensor([1.0, -2.0, 3.0, 4.0], dtype=torch.float64).reshape(1, 1, 2, 2)
    network = torch.nn.Identity()
    image = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    limit = torch.tensor([0.4, 0.4, 0.2, 0.0], dtype=torch.float64).reshape(1, 1, 2, 2)
    delta = descend([network], lambda told, _: (weights * told).sum(), image, weights, limit, steps=3, step=0.1)
    assert torch.allclose(delta.flatten(), torch.tensor([-0.3, 0.3, -0.2, 0.0], dtype=torch.float64), atol=1e-15)


def test_descent_goes_on_from_its_start() -> None:
    image, limit = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    start = torch.tensor([0.2, -0.4, 0.0, 0.35], dtype=torch.float64).reshape(1, 1, 2, 2)
    delta = descend([torch.nn.Identity()], lambda told, _: told.sum(), image, image, limit, steps=2, step=0.1, start=start)
    assert torch.allclose(delta.flatten(), torch.tensor([0.0, -0.4, -0.2, 0.15], dtype=torch.float64), atol=1e-15)


def test_the_best_restart_is_kept() -> None:
    """On a loss with many valleys more starts never end higher; all starts keep the limit, the first one is zero."""
    generator = torch.Generator().manual_seed(1)
    image, slope = torch.rand(1, 1, 2, 3, generator=generator), 200 * torch.rand(1, 1, 2, 3, generator=generator)
    touched = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 0.0]).reshape(1, 1, 2, 3)

    def made(restarts: float) -> tuple[torch.Tensor, float]:
        method = TAP(Purpose(2, classes=(1,)), {"steps": 5.0, "step": 0.05, "restarts": restarts})
        method.loss = lambda told, _: torch.sin(slope * told).sum()
        noise = method.noise_on([torch.nn.Identity()], image, torch.zeros(1, 1, 2, 3, dtype=torch.int64), touched, 0.1)
        return noise, float(torch.sin(slope * (image + noise).clamp(0, 1)).sum())

    one, few, many = made(1), made(4), made(16)
    assert one[1] >= few[1] >= many[1]
    assert one[1] > many[1] + 0.1
    assert torch.equal(many[0], made(16)[0])
    assert all((noise.abs() <= 0.1 * touched + 1e-7).all() for noise, _ in (one, few, many))
    assert torch.equal(next(starts(image, 0.1 * touched, 3)), torch.zeros_like(image))


def test_the_gradient_of_an_ensemble_is_the_mean() -> None:
    image = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    networks = [torch.nn.Conv2d(1, 1, 1, bias=False).double() for _ in range(3)]
    found = mean_gradient(networks, lambda told, _: told.sum(), image, torch.zeros_like(image), image)
    mean = sum(float(n.weight.detach()) for n in networks) / 3
    assert torch.allclose(found, torch.full_like(found, mean))


def test_targets_are_shifted_and_never_the_truth() -> None:
    classes = torch.arange(6)
    assert shifted(classes, 1, 6).tolist() == [1, 2, 3, 4, 5, 0]
    assert shifted(classes, 3, 6).tolist() == [3, 4, 5, 0, 1, 2]
    assert not (shifted(classes, 6, 6) == classes).any()
    assert shifted(torch.tensor([0, 1]), 5 // 2, 2).tolist() == [1, 0]


def test_the_top_fraction_holds_the_largest() -> None:
    size = np.arange(20.0).reshape(4, 5)
    allowed = size != 19
    chosen = top_fraction(size, allowed, 3 / 19)
    assert sorted(size[chosen].tolist()) == [16, 17, 18]
    assert np.array_equal(top_fraction(size, allowed, 1.0), allowed)
    assert top_fraction(size, allowed, 1e-6).sum() == 1
    assert not top_fraction(size, np.zeros_like(allowed), 0.5).any()


@pytest.mark.parametrize("dimension", [2, 3])
def test_voxels_of_narrow_tiles_rank_as_in_one_tile(dimension: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two voxels more than a tile: the loss of a strip would be a mean over few voxels, and its gradients many times larger."""
    salm = SALM(Purpose(dimension, classes=(1,)), {})
    torch.manual_seed(0)
    salm.networks = [frozen(surrogate_for(salm.purpose))]
    shape = (1, 34, 34) if dimension == 2 else (18, 18, 20)
    classes = np.ones(shape, np.uint8)
    classes[:, 10:20, 10:20] = 0
    scene = Scene(np.random.default_rng(0).random((1, *shape), np.float32), classes, np.ones(shape, bool))
    whole = salm.gradient_size(scene, ignore)
    monkeypatch.setitem(TILE, dimension, (1, 32, 32) if dimension == 2 else (16, 16, 16))
    in_tiles = salm.gradient_size(scene, ignore)
    assert np.array_equal(top_fraction(whole, scene.touched, 0.2), top_fraction(in_tiles, scene.touched, 0.2))


def test_the_inter_slice_term_follows_its_formula() -> None:
    delta = np.random.default_rng(0).standard_normal((2, 1, 4, 6, 5))
    expected = []
    for case in delta[:, 0]:
        spectra = [np.abs(np.fft.fft2(s)) / np.sqrt(s.size) for s in case]
        expected += [np.sqrt(np.mean((b - a) ** 2)) for a, b in pairwise(spectra)]
    assert float(inter_slice_term(torch.from_numpy(delta))) == pytest.approx(-np.mean(expected), abs=1e-9)


def test_the_weight_of_the_published_inter_slice_term_can_be_given() -> None:
    """On 160 x 160 slices at 4/255 the published term, 2-norms of FFTs that are not normalised, is 402 times as large as ours."""
    epsilon, delta = 4 / 255, np.random.default_rng(0).standard_normal((3, 160, 160))
    published = [np.linalg.norm(b - a) for a, b in pairwise(np.abs(np.fft.fft2(epsilon * delta)))]
    ratio = -np.mean(published) / float(inter_slice_term(torch.from_numpy(delta)[None, None]))
    assert ratio == pytest.approx(epsilon * 160**2)
    assert VoxShield.checked_parameters({"lambda_z": 0.2 * ratio})["lambda_z"] == pytest.approx(80.3, abs=0.1)


def test_the_inter_slice_term_has_a_gradient_where_slices_agree() -> None:
    delta = torch.zeros(1, 1, 3, 8, 8, requires_grad=True)
    inter_slice_term(delta).backward()
    assert torch.isfinite(delta.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("dimension", [2, 3])
def test_knots_follow_their_formula_and_begin_at_the_volume(dimension: int) -> None:
    purpose, chosen = Purpose(dimension, classes=(1, 2)), {"period": 8.0, "edge": 3.0, "fine": FINE}
    weave = Weave(purpose, chosen, Weave.draw_fixed(purpose, chosen, np.random.default_rng(7)))
    axes = (1, 2) if dimension == 2 else (0, 1, 2)
    for number in (1, 2):
        origin = [int(value) for value in weave.fixed[number, 0]]
        whole = weave.pattern(number, 0, box(4, 20, 24), [])
        for k, j, i in np.ndindex(whole.shape):
            fine = k, (j - origin[0]) % 8, (i - origin[1]) % 8
            coarse = k, (j - origin[0] - 4) % 16, (i - origin[1] - 4) % 16
            expected = FINE * (-1) ** sum(fine[axis] for axis in axes) if max(fine[1:]) < 3 else 0
            if max(coarse[1:]) < 4:
                assert expected == 0, "knots must not overlap"
                expected = (-1) ** sum(coarse[axis] // 2 for axis in axes)
            assert whole[k, j, i] == expected
        part: Box = (slice(1, 3), slice(5, 20), slice(3, 17))
        assert np.array_equal(weave.pattern(number, 0, part, []), whole[part])
    assert not weave.pattern(0, 0, box(2, 20, 20), []).any()


@pytest.mark.parametrize(
    ("dimension", "choices"), [(2, [(1, 2), (1,), (2,)]), (3, [(0, 1, 2), (0, 1), (0, 2), (1, 2), (1,), (2,)])], ids=["2D", "3D"]
)
def test_classes_of_whole_images_differ_in_the_axes_along_which_they_alternate(dimension: int, choices: list[tuple[int, ...]]) -> None:
    names = tuple(map(str, range(len(choices) + 1)))
    purpose = Purpose(dimension, "classification", classes=names)
    weave = Weave(purpose, {}, np.zeros((len(names), 1, 2), np.float32))
    places = np.indices((3, 9, 10))
    for number, axes in enumerate([*choices, choices[0]]):
        assert np.array_equal(weave.pattern(number, 0, box(3, 9, 10), []), (-1.0) ** places[list(axes)].sum(axis=0))


@pytest.mark.parametrize("number", range(3))
def test_a_chequered_image_keeps_its_mean(number: int) -> None:
    purpose = Purpose(2, "classification", classes=("a", "b", "c"))
    weave = Weave(purpose, {}, Weave.draw_fixed(purpose, Weave.checked_parameters({}), np.random.default_rng(1)))
    drawn = weave.pattern(number, 0, box(1, 27, 29), [])
    cut = weave.cut_out(drawn, np.ones(drawn.shape, bool))
    assert abs(cut.sum()) < 1e-9
    assert 0.9 < np.abs(cut).max() <= 1


def test_a_knot_is_the_same_in_a_mirror() -> None:
    purpose, chosen = Purpose(2, classes=(1,)), {"period": 8.0, "edge": 3.0, "fine": FINE}
    weave = Weave(purpose, chosen, np.zeros((2, 1, 2), np.float32))
    knot = weave.pattern(1, 0, box(1, 3, 3), [])[0]
    assert np.array_equal(knot / FINE, [[1, -1, 1], [-1, 1, -1], [1, -1, 1]])
    assert np.array_equal(knot, knot[::-1])
    assert np.array_equal(knot, knot.T)


def test_halving_keeps_the_coarse_knots_and_no_others() -> None:
    purpose, chosen = Purpose(2, classes=(1,)), {"period": 8.0, "edge": 3.0, "fine": FINE}
    for seed in range(8):
        weave = Weave(purpose, chosen, Weave.draw_fixed(purpose, chosen, np.random.default_rng(seed)))
        halved = weave.pattern(1, 0, box(1, 32, 32), [])[0].reshape(16, 2, 16, 2).mean(axis=(1, 3))
        assert np.count_nonzero(np.abs(halved) == 1) == 4 * 4
        assert np.abs(halved[np.abs(halved) < 1]).max() <= 0.5


@pytest.mark.parametrize(("dimension", "number"), [(2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 5), (3, 6)])
def test_a_class_keeps_its_mean_in_every_slice(dimension: int, number: int) -> None:
    purpose, chosen = Purpose(dimension, classes=tuple(range(1, 7))), {"period": 8.0, "edge": 3.0, "fine": FINE}
    weave = Weave(purpose, chosen, Weave.draw_fixed(purpose, chosen, np.random.default_rng(3)))
    drawn = weave.pattern(number, 0, box(5, 40, 41), [])
    here = np.random.default_rng(0).random(drawn.shape) < np.linspace(0.2, 1.0, 41)
    cut = weave.cut_out(drawn, here)
    assert np.abs(cut.sum(axis=(1, 2))).max() < 1e-9
    assert np.abs(cut).max() == 1, "only the louder sign is turned down"
    assert np.array_equal(np.sign(cut), np.sign(drawn) * here)


def test_a_slice_with_one_sign_alone_is_left_as_it_is() -> None:
    purpose, chosen = Purpose(2, classes=(1,)), {"period": 8.0, "edge": 3.0, "fine": FINE}
    weave = Weave(purpose, chosen, np.zeros((2, 1, 2), np.float32))
    here = np.zeros((1, 8, 8), bool)
    here[0, 0, 0] = True
    assert not weave.cut_out(weave.pattern(1, 0, box(1, 8, 8), []), here).any()


def test_knots_with_nothing_between_them_go_all_the_way() -> None:
    purpose, chosen = Purpose(2, classes=(1,)), {"period": 4.0, "edge": 3.0, "fine": FINE}
    weave = Weave(purpose, chosen, np.zeros((2, 1, 2), np.float32))
    assert set(np.unique(weave.pattern(1, 0, box(1, 8, 8), []))) == {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("period", range(2, 12))
def test_an_origin_lies_within_the_period(period: int) -> None:
    purpose, chosen = Purpose(2, classes=(1,)), {"period": float(period), "edge": 2.0, "fine": FINE}
    fixed = np.concatenate([Weave.draw_fixed(purpose, chosen, np.random.default_rng(seed)) for seed in range(20)])
    assert fixed.min() >= 0
    assert fixed.max() < period


@pytest.mark.parametrize("origin", [-1.0, 8.0, 1e30])
def test_a_profile_whose_knots_begin_outside_their_period_is_refused(origin: float) -> None:
    purpose, chosen = Purpose(2, classes=(1,)), {"period": 8.0, "edge": 3.0, "fine": FINE}
    with pytest.raises(ValueError, match="outside their period"):
        Weave(purpose, chosen, np.full((2, 1, 2), origin, np.float32))
