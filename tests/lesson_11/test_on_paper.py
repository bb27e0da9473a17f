"""Scaling on paper: formulas against lots that do not share them, and the rule itself over a million steps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mpkit import DynamicScale
from mpkit.course.lesson_11.on_paper import balance, costs, settled_scale, simulate_scale, some_rank

MILLION = 1_000_000


@pytest.mark.parametrize(("p", "ranks"), [(1e-3, 8), (1e-4, 64), (1e-5, 1024), (1e-4, 10_000), (1e-6, 10_000)])
def test_some_rank_by_lot(p: float, ranks: int) -> None:
    """A million steps; at each, how many of the ranks overflow."""
    found = (np.random.default_rng(0).binomial(ranks, p, MILLION) > 0).mean()
    expected = some_rank(p, ranks)
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected / MILLION))
    assert expected < ranks * p


def test_some_rank_at_its_ends() -> None:
    assert some_rank(0, 100) == 0
    assert some_rank(1, 3) == 1
    assert some_rank(0.5, 2) == pytest.approx(0.75)
    assert some_rank(1e-18, 10_000) == pytest.approx(1e-14)


@pytest.mark.parametrize("interval", [50, 2000])
def test_at_balance_rises_are_as_frequent_as_falls(interval: int) -> None:
    bad = np.random.default_rng(1).random(10 * MILLION if interval == 2000 else MILLION) < balance(interval)
    places = np.flatnonzero(bad)
    gaps = np.diff(np.concatenate([[-1], places, [len(bad)]])) - 1
    falls, rises = len(places), int((gaps // interval).sum())
    assert rises == pytest.approx(falls, rel=0.06)


@pytest.mark.parametrize(("ranks", "tail", "interval"), [(64, 2, 2000), (8, 4, 100)])
def test_the_lot_is_the_librarys_rule_step_by_step(ranks: int, tail: int, interval: int) -> None:
    """A million steps of `DynamicScale`; each rank draws its largest gradient."""
    rule = DynamicScale(init_scale=1.0, growth_interval=interval, min_scale=None)
    state, skips, area, first = rule.init(), 0, 0.0, MILLION // 10
    lot = np.random.default_rng(2)
    for block in range(10):
        largest = (lot.random((MILLION // 10, ranks)) ** (-1 / tail)).max(1)
        for step, value in enumerate(largest.tolist(), start=block * MILLION // 10):
            found = value * state.scale >= 1
            if step >= first:
                skips, area = skips + found, area + math.log2(state.scale)
            state = rule.update(state, found)
    runs = [simulate_scale(ranks, tail, interval, seed=seed) for seed in range(5)]
    assert skips / (MILLION - first) == pytest.approx(np.mean([run.skipped for run in runs]), rel=0.1)
    assert area / (MILLION - first) == pytest.approx(np.mean([run.log2_scale for run in runs]), abs=0.15)


@pytest.mark.parametrize("tail", [2, 4, 8])
def test_more_ranks_lower_the_scale_and_cost_no_steps(tail: int) -> None:
    """By 1,250 times the ranks the scale falls by log2(1250) / tail; skips stay below one in an interval."""
    few, many = ([simulate_scale(ranks, tail, seed=seed) for seed in range(5)] for ranks in (8, 10_000))
    fallen = np.mean([run.log2_scale for run in few]) - np.mean([run.log2_scale for run in many])
    assert fallen == pytest.approx(math.log2(1250) / tail, abs=0.35)
    assert math.log2(settled_scale(8, tail) / settled_scale(10_000, tail)) == pytest.approx(
        math.log2(1250) / tail, abs=0.01
    )
    for run in few + many:
        assert 0.6 / 2000 < run.skipped <= 1 / 2000 * 1.02


def test_the_calculated_scale_is_within_half_a_power_of_two() -> None:
    for ranks in (8, 64, 1024, 10_000):
        drawn = np.mean([simulate_scale(ranks, 4, seed=seed).log2_scale for seed in range(5)])
        assert drawn == pytest.approx(math.log2(settled_scale(ranks, 4)), abs=0.6)


def test_bad_data_drive_the_scale_to_its_floor() -> None:
    assert simulate_scale(10_000, 4, bad_data=1e-6).log2_scale < -59
    kept = simulate_scale(10_000, 4, 50, bad_data=1e-6)
    assert kept.log2_scale > -10
    assert kept.skipped > some_rank(1e-6, 10_000)
    assert balance(69) > some_rank(1e-6, 10_000) > balance(70)


def test_costs_by_hand() -> None:
    eight = costs(8, 1e9)
    assert eight.flag == pytest.approx(6 * 5e-6)
    assert eight.gradients == pytest.approx(6 * 5e-6 + 2 * 2e9 * 7 / 8 / 50e9)
    assert eight.share == eight.flag / eight.gradients
    assert costs(2, 0).flag == costs(2, 0).gradients == pytest.approx(1e-5)
    assert costs(10_000, 25e6).flag == pytest.approx(28 * 5e-6)
