from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from MedProtectLib.errors import MedProtectError
from MedProtectLib.quantise import energy_budget, on_binary_grid, quantise

WISHES = arrays(np.float64, st.integers(1, 300), elements=st.floats(-9, 9))


@given(wish=WISHES, ceiling=st.integers(1, 8), seed=st.integers(0, 99))
def test_without_budget_the_wish_is_rounded_within_the_ceiling(wish: np.ndarray, ceiling: int, seed: int) -> None:
    if not wish.any():
        return
    counts = quantise(wish, np.full(len(wish), float(ceiling)), seed)
    assert np.abs(counts).max() <= ceiling
    assert np.all(counts * np.sign(wish) >= 0)
    assert np.all(np.abs(np.abs(counts) - np.minimum(np.abs(wish), ceiling)) <= 1)
    assert np.count_nonzero(counts) >= min(-(-len(wish) // 2), np.count_nonzero(wish))


@given(wish=WISHES, budget=st.floats(1, 500), seed=st.integers(0, 99))
def test_the_budget_is_used_but_never_passed(wish: np.ndarray, budget: float, seed: int) -> None:
    if not wish.any():
        return
    ceiling = np.full(len(wish), 8.0)
    counts = quantise(wish, ceiling, seed, budget)
    energy = np.sum(counts.astype(float) ** 2)
    full = np.sum(quantise(wish, ceiling, seed).astype(float) ** 2)
    assert energy <= budget + 1e-9
    largest_step = 2 * 9 - 1
    assert energy >= min(0.99 * budget, full) - largest_step or np.count_nonzero(counts) <= len(wish) // 2


def test_half_of_the_voxels_change_when_the_budget_allows_it() -> None:
    wish = np.concatenate([np.full(10, 6.0), np.full(90, 0.3)])
    counts = quantise(wish, np.full(100, 6.0), 0, budget=60.0)
    assert np.count_nonzero(counts) >= 50
    assert np.sum(counts**2) <= 60


def test_a_budget_below_half_buys_single_levels_largest_wish_first() -> None:
    wish = np.arange(1.0, 101.0) / 50
    counts = quantise(wish, np.full(100, 2.0), 0, budget=10.0)
    assert np.array_equal(np.flatnonzero(counts), np.arange(90, 100))
    assert counts.max() == 1


def test_saturated_wishes_reach_any_target_closely() -> None:
    wish = np.where(np.arange(100_000) % 2, 6.27, -6.27)
    for budget in (60_000.0, 1_000_000.0, 2_500_000.0):
        energy = np.sum(quantise(wish, np.full(len(wish), 6.0), 0, budget).astype(float) ** 2)
        assert 0.99 * budget <= energy <= budget


def test_changes_of_more_levels_than_32_bits_hold() -> None:
    wish = np.array([3e9, -1.5e10, 40.0, 0.0])
    counts = quantise(wish, np.full(4, 1.2e10), 0)
    assert counts.dtype == np.int64
    assert np.allclose(counts, [3e9, -1.2e10, 40, 0], rtol=1e-6)
    assert quantise(wish, np.full(4, 2.0**31 - 1), 0).dtype == np.int32


def test_ties_are_broken_by_the_seed_and_by_nothing_else() -> None:
    wish, ceiling = np.full(1000, 3.0), np.full(1000, 3.0)
    first, again, other = (quantise(wish, ceiling, seed, 5000.0) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("ceiling", "budget"), [(0.0, None), (5.0, 0.5)])
def test_nothing_to_write_is_refused(ceiling: float, budget: float | None) -> None:
    with pytest.raises(MedProtectError, match="below one stored level"):
        quantise(np.ones(10), np.full(10, ceiling), 0, budget)


def test_a_method_that_leaves_everything_as_it_is_is_told_apart_from_a_small_bound() -> None:
    with pytest.raises(MedProtectError, match="too small for it"):
        quantise(np.zeros(10), np.full(10, 8.0), 0)


def test_energy_budget_is_the_psnr_formula() -> None:
    budget = energy_budget(50.1, values=1000, width_in_levels=400.0)
    assert -20 * np.log10(np.sqrt(budget / 1000) / 400.0) == pytest.approx(50.1)


def test_binary_grid_hides_the_last_bits() -> None:
    value = np.array([0.0123456789])
    assert on_binary_grid(value + 1e-10)[0] == on_binary_grid(value)[0]
    assert abs(on_binary_grid(value)[0] - value[0]) < 2.0**-20
