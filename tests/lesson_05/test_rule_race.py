"""Histories of gradients and races on them, against real casts, real gradients and a walk step by step."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mpkit
from mpkit.course.lesson_05 import rule_race
from mpkit.course.lesson_05.rule_race import race, sweep
from mpkit.course.lesson_05.scaler_race_words import headline
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP
from mpkit.course.record.gradients import record
from mpkit.course.recorded.history import BINS, FOLDER, GradientHistory, recorded, synthetic
from mpkit.course.runs.recipes import RECIPES, falling_weight
from mpkit.course.runs.snapshots import layer_gradients
from mpkit.formats import FP16
from mpkit.policy.policy import Policy
from mpkit.scaling import DynamicScale, HistogramScale, StaticScale, preset


@pytest.fixture(scope="module")
def drifting() -> GradientHistory:
    return synthetic(steps=300)


def constant(steps: int, values: list[float]) -> GradientHistory:
    x = torch.tensor(values)
    counts = mpkit.ExponentHistogram.of(x).counts.numpy()
    largest = np.full(steps, float(x.abs().max()))
    return GradientHistory("constant", "by hand", np.tile(counts, (steps, 1)), largest, largest, np.full(steps, 1.0))


def test_flushed_equals_a_real_cast_at_whole_binades() -> None:
    x = torch.exp2(torch.empty(4000).uniform_(-60, 10, generator=torch.Generator().manual_seed(0)))
    history = constant(1, x.tolist())
    for k in (-10, 0, 7, 24, 40):
        really = (mpkit.cast(x * 2.0**k, mpkit.FP16) == 0).float().mean().item()
        assert history.flushed(np.array([2.0**k]))[0] == pytest.approx(really, abs=1e-6)
    halfway = history.flushed(np.array([2.0**7.5]))[0]
    assert history.flushed(np.array([2.0**8]))[0] < halfway < history.flushed(np.array([2.0**7]))[0]
    assert history.flushed(np.array([0.0]))[0] == 1.0


def test_the_window_is_where_five_percent_are_lost_and_where_the_largest_overflows(drifting: GradientHistory) -> None:
    low, high = drifting.window()
    assert drifting.flushed(2.0**low) == pytest.approx(0.05, abs=1e-6)
    for step in (0, 100, 299):
        g = drifting.largest[step]
        below, at = 2.0 ** (high[step] - 1e-9), 2.0 ** (high[step] + 1e-9)
        assert g * below < mpkit.FP16.overflow_at <= g * at * (1 + 1e-12)
    assert low[-1] - low[0] == pytest.approx(20, abs=3)  # as far as the gradients drift


def test_a_lap_is_the_rule_step_by_step(drifting: GradientHistory) -> None:
    rule = replace(preset("megatron"), growth_interval=20)
    lap, state = race(rule, drifting), rule.init()
    for step in range(len(drifting)):
        assert lap.scales[step] == state.scale
        inf = bool(torch.tensor(drifting.largest[step] * state.scale).half().isinf())
        assert lap.overflowed[step] == inf == lap.skipped[step]
        state = rule.update(state, inf)
    assert lap.lost_steps == int(lap.skipped.sum()) > 10
    assert lap.mean_flushed == pytest.approx(lap.flushed[~lap.skipped].mean())


def test_constant_gradients_by_hand() -> None:
    history = constant(10, [1.0, 2.0**-30])
    assert race(StaticScale(2.0**15), history).lost_steps == 0
    assert race(StaticScale(2.0**16), history).lost_steps == 10  # 65536 is Inf
    assert race(StaticScale(2.0**16), history).mean_flushed == 1.0  # no step was taken
    assert race(StaticScale(2.0**3), history).mean_flushed == 0.5
    lap = race(DynamicScale(init_scale=2.0**18), history)
    assert lap.scales.tolist() == [2.0**18, 2.0**17, 2.0**16, *[2.0**15] * 7]
    assert lap.lost_steps == 3


def test_a_smaller_growth_factor_loses_fewer_steps_as_the_quiz_says() -> None:
    history = constant(4000, [2.0**-3])
    lost = [race(DynamicScale(growth_interval=50, growth_factor=by), history).lost_steps for by in (2.0, 1.5, 1.1)]
    assert lost[0] > lost[1] > lost[2] > 0


def test_popart_skips_nothing_and_deepspeed_gives_up() -> None:
    history = constant(40, [2.0**10])
    lap = race(HistogramScale(init_scale=2.0**10), history)
    assert lap.overflowed.sum() > 0
    assert lap.lost_steps == 0
    hopeless = constant(40, [2.0**30])
    lap = race(replace(preset("deepspeed"), init_scale=4.0), hopeless)
    # one overflow is forgiven, two halve the scale to its floor, the fourth gives up
    assert (lap.gave_up, lap.lost_steps, lap.scales[-1]) == (3, 40, 1.0)
    with pytest.raises(TypeError, match=r"a rule such as mpkit.scaling.preset\('torch'\) is asked"):
        race("torch", hopeless)  # type: ignore[arg-type]


def test_a_sweep_is_one_lap_a_pair(drifting: GradientHistory) -> None:
    laps = dict(sweep(drifting, [1.0, 2.0**40], [10, 200], backoff_factor=0.25))
    assert set(laps) == {(1.0, 10), (1.0, 200), (2.0**40, 10), (2.0**40, 200)}
    one = race(DynamicScale(init_scale=2.0**40, growth_interval=10, backoff_factor=0.25), drifting)
    assert np.array_equal(laps[2.0**40, 10].scales, one.scales)


# --- recorded histories ---


def test_every_recipe_is_recorded_with_its_recipe_and_small() -> None:
    assert set(recorded()) == set(RECIPES)
    for name in RECIPES:
        history, about = GradientHistory.load(name), json.loads((FOLDER / f"{name}.json").read_text())
        assert len(history) == about["steps"] == RECIPES[name].steps
        assert about["recipe"] == history.recipe == f"{RECIPES[name].about}; {len(history)} steps in FP32, seed 0"
        assert about["command"] == f"python -m mpkit record {name}"
        assert (FOLDER / f"{name}.npz").stat().st_size < 200_000
        assert np.isfinite(history.norm).all()
        assert (history.amax <= history.largest).all()


def test_a_trace_is_what_the_real_run_had() -> None:
    """The first step of the classifier, measured here in another way."""
    history = GradientHistory.load("classifier")
    net = MLP(seeds=[0])
    layers = layer_gradients(net, *digits().classification().batch(0), Policy())
    every = np.abs(np.concatenate([layer.all.numpy() for layer in layers]))
    weights = np.concatenate([layer.weight.numpy() for layer in layers])
    assert history.largest[0] == pytest.approx(every.max(), rel=1e-4)
    assert history.norm[0] == pytest.approx(float(np.linalg.norm(weights)), rel=1e-4)
    assert history.counts[0].sum() == pytest.approx((every > 0).sum(), rel=1e-3)


def test_the_falling_weight_falls_from_a_hundred_to_a_hundred_millionth() -> None:
    assert falling_weight(0) == 100.0
    assert falling_weight(419) == pytest.approx(1e-8)
    history = GradientHistory.load("falling-loss")
    assert math.log2(history.norm[0] / history.norm[-1]) == pytest.approx(math.log2(1e10), abs=5)


def test_saving_and_loading_changes_nothing(tmp_path: Path, drifting: GradientHistory) -> None:
    drifting.save(tmp_path)
    again = GradientHistory.load("synthetic", tmp_path)
    for name in ("counts", "largest", "amax", "norm"):
        assert np.array_equal(getattr(again, name), getattr(drifting, name))
    assert again.counts.shape == (300, BINS)
    with pytest.raises(ValueError, match=r"there is no history 'x'; known: synthetic. To record: python"):
        GradientHistory.load("x", tmp_path)
    with pytest.raises(ValueError, match=r"at least 10 steps and a spread above 0 are asked for; 5 and 4.0 came"):
        synthetic(steps=5)


def test_the_command_records_and_lists(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mpkit", "record"]
    listed = subprocess.run([*command, "--list"], capture_output=True, text=True, timeout=120, check=True)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(RECIPES)
    subprocess.run([*command, "falling-loss", "--out", str(tmp_path)], capture_output=True, timeout=120, check=True)
    again, stored = GradientHistory.load("falling-loss", tmp_path), GradientHistory.load("falling-loss")
    assert again.norm == pytest.approx(stored.norm, rel=0.02)  # another machine rounds differently
    assert again.counts.sum() == pytest.approx(stored.counts.sum(), rel=0.01)
    wrong = subprocess.run([*command, "nothing"], capture_output=True, text=True, timeout=120)
    assert wrong.returncode == 2
    assert "there is no recipe nothing; use classifier, autoencoder, bad-start, falling-loss" in wrong.stderr
    with pytest.raises(ValueError, match="there is no recipe 'nothing'; use one of classifier"):
        record("nothing")


@pytest.mark.parametrize("lost", [0.0, 1.0, -0.1, float("nan")])
def test_a_window_without_a_share_is_refused(lost: float) -> None:
    with pytest.raises(ValueError, match=r"use a share between 0 and 1, such as 0\.05"):
        synthetic(10).window(lost=lost)


def test_a_step_that_is_taken_with_inf_is_no_good_step() -> None:
    history = synthetic(200, drift=(-4.0, -4.0), bump=12.0)
    lap, skips = race(preset("popart"), history), race(preset("torch"), history)
    with_inf = lap.scales >= FP16.overflow_at / history.largest
    assert lap.spoiled_steps == with_inf.sum() > 0
    assert lap.lost_steps == 0
    assert skips.spoiled_steps == 0
    title = headline({"popart": lap})
    assert title == f"popart ends in the window; popart takes {lap.spoiled_steps} steps with Inf"


@pytest.mark.parametrize("seed", range(30))
def test_quiet_steps_are_counted_and_not_walked_with_the_same_result(seed: int) -> None:
    """A subclass takes every step through `update`, as other rules do."""

    class Walked(DynamicScale):
        pass

    rng = np.random.default_rng(seed)
    history = synthetic(200, drift=(float(rng.uniform(-10, 0)), float(rng.uniform(-30, -5))), values=200, seed=seed)
    options = {
        "init_scale": 2.0 ** int(rng.integers(0, 41)), "growth_interval": int(rng.choice([1, 2, 3, 10, 50, 2000])),
        "growth_factor": float(rng.choice([2.0, 1.5])), "backoff_factor": float(rng.choice([0.5, 0.75])),
        "min_scale": rng.choice([None, 1.0]), "max_scale": rng.choice([None, 2.0**41]),
    }  # fmt: skip
    fast, slow = race(DynamicScale(**options), history), race(Walked(**options), history)
    assert np.array_equal(fast.scales, slow.scales)
    assert np.array_equal(fast.overflowed, slow.overflowed)
    assert np.array_equal(fast.skipped, slow.skipped)


@pytest.mark.parametrize("name", ["apex-amp", "deepspeed", "fairseq", "megatron", "keras", "paddle"])
@pytest.mark.parametrize("interval", [1, 3, 30, 2000])
def test_quiet_steps_of_a_library_s_rule_are_those_of_its_update(name: str, interval: int) -> None:
    """Patience that comes back with a clean step, growth that comes late: the count alone is not the whole state."""
    history = synthetic(200, drift=(-4.0, -24.0), values=200)
    rule = replace(preset(name), growth_interval=interval)
    walked = type("Walked", (type(rule),), {})(**{field.name: getattr(rule, field.name) for field in fields(rule)})
    fast, slow = race(rule, history), race(walked, history)
    assert np.array_equal(fast.scales, slow.scales)
    assert np.array_equal(fast.overflowed, slow.overflowed)
    assert fast.gave_up == slow.gave_up


def test_popart_is_told_the_shares_of_the_recorded_histograms(drifting: GradientHistory) -> None:
    for step in (0, 150, 299):
        for limit in (2.0**-140, 2.0**-30, 1.5 * 2.0**-20, 2.0**-4, 1.0, 2.0**127, 2.0**140):
            recorded = drifting.seen[step].share_from(limit)
            assert rule_race._seen(drifting)[step].share_from(limit) == recorded, (step, limit)
    assert 0 < rule_race._seen(drifting)[0].share_from(2.0**-4) < 1
