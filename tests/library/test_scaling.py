"""The scaling rules, against torch's own update kernel, a float32 oracle and hand-computed traces."""

from __future__ import annotations

import dataclasses
import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from mpkit.scaling import (
    PRESETS,
    DynamicScale,
    LibraryScale,
    NoScaling,
    ScaleRule,
    ScaleState,
    StaticScale,
    as_float32,
    preset,
)

OVERFLOWS = [1, 0, 1, 0, 1, 1, 1, 0, 1]


def trace(rule: ScaleRule, flags: list[int]) -> list[float]:
    state, scales = rule.init(), []
    for flag in flags:
        state = rule.update(state, bool(flag))
        scales.append(state.scale)
    return scales


def on_device(state: ScaleState) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(state.scale), torch.tensor(state.growth_tracker, dtype=torch.int32)


def random_rule(rng: random.Random) -> DynamicScale:
    low = rng.choice([None, 1.0, 2.0**-20, 0.3])
    high = rng.choice([None, 2.0**24, 2.0**127, 1e30])
    init = rng.choice([2.0**16, 1.0, 1000.0, 3.7, 2.0**20])
    return DynamicScale(
        init_scale=init,
        growth_factor=rng.choice([2.0, 1.5, 1.0001, 16.0, 1e30]),
        backoff_factor=rng.choice([0.5, 0.3, 0.99, 1e-9]),
        growth_interval=rng.choice([1, 2, 3, 7]),
        min_scale=low,
        max_scale=high,
    )


def test_trace_by_hand() -> None:
    """The published table: start 1024, window long, no hysteresis."""
    rule = DynamicScale(init_scale=1024.0)
    assert trace(rule, OVERFLOWS) == [512, 512, 256, 256, 128, 64, 32, 32, 16]


def test_growth_comes_after_exactly_the_interval_and_an_overflow_starts_the_count_again() -> None:
    rule = DynamicScale(init_scale=4.0, growth_interval=3)
    assert trace(rule, [0, 0, 0, 0, 0, 1, 0, 0, 0]) == [4, 4, 8, 8, 8, 4, 4, 4, 8]


def test_first_growth_of_the_default_is_at_clean_step_2000() -> None:
    scales = trace(DynamicScale(), [0] * 4000)
    assert scales.index(2.0**17) == 1999
    assert scales.index(2.0**18) == 3999


def test_with_an_exact_interval_a_tracker_beyond_it_never_grows() -> None:
    rule = LibraryScale(init_scale=4.0, growth_interval=3, exact_interval=True)
    assert rule.update(ScaleState(4.0, 25), False) == ScaleState(4.0, 26)
    scale, tracker = on_device(ScaleState(4.0, 25))
    rule.update_tensors(scale, tracker, torch.tensor(0.0))
    assert (scale.item(), tracker.item()) == (4.0, 26)


def test_floor_and_cap_hold_the_scale() -> None:
    rule = DynamicScale(init_scale=4.0, growth_interval=1, min_scale=3.0, max_scale=6.0)
    assert trace(rule, [0, 0, 1, 1, 1, 0]) == [6.0, 6.0, 3.0, 3.0, 3.0, 6.0]


def test_growth_past_float32_is_refused_and_the_count_starts_again() -> None:
    rule = DynamicScale(init_scale=2.0**127, growth_interval=1)
    assert rule.update(rule.init(), False) == ScaleState(2.0**127, 0)


def test_without_a_floor_the_scale_reaches_two_to_the_minus_128_in_144_steps_and_zero_in_166() -> None:
    scales = trace(preset("torch"), [1] * 170)
    assert scales[143] == 2.0**-128
    assert scales.index(0.0) == 165
    assert trace(DynamicScale(), [1] * 170)[-1] == 1.0


def test_as_float32_equals_numpy() -> None:
    rng = random.Random(0)
    values = [rng.uniform(1, 2) * 2.0 ** rng.randint(-160, 130) for _ in range(2000)]
    with np.errstate(over="ignore"):
        for value in [*values, 0.0, math.inf, 2.0**-150, 2.0**128 - 2.0**103, 3.4028235677973364e38]:
            assert as_float32(value) == float(np.float32(value))


@pytest.mark.parametrize("seed", range(40))
def test_update_tensors_equals_update(seed: int) -> None:
    rng = random.Random(seed)
    rule: ScaleRule = random_rule(rng) if seed % 10 else rng.choice([NoScaling(), StaticScale(0.1)])
    state = rule.init()
    scale, tracker = on_device(state)
    bad_share = rng.choice([0.02, 0.3, 0.9])
    for _ in range(200):
        found = rng.random() < bad_share
        state = rule.update(state, found)
        rule.update_tensors(scale, tracker, torch.tensor(float(found)))
        assert (scale.item(), tracker.item()) == (state.scale, state.growth_tracker)
        assert scale.dtype == torch.float32
        assert tracker.dtype == torch.int32


@pytest.mark.parametrize("seed", range(40))
def test_the_torch_preset_equals_torchs_kernel(seed: int) -> None:
    rng = random.Random(seed)
    rule = dataclasses.replace(random_rule(rng), min_scale=None, max_scale=None)
    state = rule.init()
    scale, tracker = on_device(state)
    for _ in range(300):
        found = rng.random() < 0.3
        state = rule.update(state, found)
        flag = torch.tensor(float(found))
        torch._amp_update_scale_(scale, tracker, flag, rule.growth_factor, rule.backoff_factor, rule.growth_interval)
        assert (state.scale, state.growth_tracker) == (scale.item(), tracker.item())


def test_update_tensors_changes_the_tensors_it_was_given() -> None:
    scale, tracker = on_device(ScaleState(8.0, 3))
    before = (scale.data_ptr(), tracker.data_ptr())
    DynamicScale(init_scale=8.0).update_tensors(scale, tracker, torch.tensor(1.0))
    assert (scale.item(), tracker.item()) == (4.0, 0)
    assert (scale.data_ptr(), tracker.data_ptr()) == before


def test_a_new_rule_needs_only_init_and_update() -> None:
    @dataclass(frozen=True)
    class Sawtooth(ScaleRule):
        def init(self) -> ScaleState:
            return ScaleState(8.0)

        def update(self, state: ScaleState, found_inf: bool) -> ScaleState:
            return ScaleState(1.0 if found_inf else state.scale * 3, state.growth_tracker + 1)

    rule = Sawtooth()
    scale, tracker = on_device(rule.init())
    for found, wanted in [(0.0, (24.0, 1)), (1.0, (1.0, 2)), (0.0, (3.0, 3))]:
        rule.update_tensors(scale, tracker, torch.tensor(found))
        assert (scale.item(), tracker.item()) == wanted
    assert rule.floor is None
    assert rule.state_dict() == {"name": "Sawtooth", "check_unscaled": True}


@pytest.mark.parametrize(("rule", "scale"), [(NoScaling(), 1.0), (StaticScale(100), 100.0)])
def test_constant_rules_never_change_and_still_skip(rule: ScaleRule, scale: float) -> None:
    assert trace(rule, OVERFLOWS) == [scale] * len(OVERFLOWS)
    assert rule.skips
    assert rule.floor == scale


def test_rules_and_states_are_frozen_and_comparable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DynamicScale().init_scale = 1.0  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        ScaleState(1.0).scale = 2.0  # type: ignore[misc]
    assert DynamicScale() == DynamicScale(65536.0)
    assert DynamicScale() != DynamicScale(growth_interval=1000)


@pytest.mark.parametrize("bad", [0, 0.0, -1, math.inf, math.nan, 1e39, 1e-46, "big", None, True])
def test_a_scale_that_is_no_positive_float32_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"init_scale must be a positive number that float32 can hold .* got .* Try 2"):
        DynamicScale(init_scale=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^scale must be a positive number that float32 can hold"):
        StaticScale(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("edge", [1e-45, 2.0**-149, 3.4028234663852886e38])
def test_the_edges_of_float32_are_accepted(edge: float) -> None:
    assert 0.0 < StaticScale(edge).init().scale < math.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"growth_factor": 1.0}, r"growth_factor must be a finite number above 1, got 1.0. Try 2.0."),
        ({"growth_factor": math.nan}, r"growth_factor must be a finite number above 1, got nan"),
        ({"growth_factor": math.inf}, r"growth_factor must be a finite number above 1, got inf"),
        ({"backoff_factor": 1.0}, r"backoff_factor must be above 0 and below 1, got 1.0. Try 0.5."),
        ({"backoff_factor": 0.0}, r"backoff_factor must be above 0 and below 1, got 0.0"),
        ({"backoff_factor": -0.5}, r"backoff_factor must be above 0 and below 1, got -0.5"),
        ({"growth_interval": 0}, r"growth_interval must be from 1 to 2\*\*31 - 1, got 0. Try 2000."),
        ({"growth_interval": 2**31}, r"growth_interval must be from 1 to 2\*\*31 - 1, got 2147483648"),
        ({"growth_interval": True}, r"growth_interval must be from 1 to 2\*\*31 - 1, got True"),
        ({"growth_interval": 2.0}, r"growth_interval must be a whole number, got 2.0. Try 2000."),
        ({"min_scale": 0.0}, r"min_scale must be a positive number .*, got 0.0. Try None for no limit."),
        ({"max_scale": math.inf}, r"max_scale must be a positive number .*, got inf. Try None for no limit."),
        ({"min_scale": 8.0, "max_scale": 4.0}, r"needs min_scale <= init_scale <= max_scale, got 8.0, 65536.0 and 4.0"),
        ({"init_scale": 0.5}, r"needs min_scale <= init_scale <= max_scale, got 1.0, 0.5 and None. Move one"),
        ({"max_scale": 4.0}, r"needs min_scale <= init_scale <= max_scale, got 1.0, 65536.0 and 4.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicScale(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", [DynamicScale, NoScaling, LibraryScale, *(type(rule) for rule in PRESETS.values())])
@pytest.mark.parametrize("given", ["no", 1, None])
def test_a_switch_is_true_or_false(rule: Any, given: object) -> None:
    with pytest.raises(ValueError, match=rf"check_unscaled must be True or False, got {given!r}. Pass one of them,"):
        rule(check_unscaled=given)
    for name in ("exact_interval", "grow_to_inf"):
        with pytest.raises(ValueError, match=f"{name} must be True or False, got {given!r}"):
            LibraryScale(**{name: given})  # type: ignore[arg-type]


def test_presets() -> None:
    assert preset("mpkit") == DynamicScale()
    assert preset("none") == NoScaling()
    ours, theirs = preset("torch"), torch.amp.GradScaler("cpu")
    assert isinstance(ours, DynamicScale)
    assert ours.init_scale == theirs.get_scale()
    assert ours.growth_factor == theirs.get_growth_factor()
    assert ours.backoff_factor == theirs.get_backoff_factor()
    assert ours.growth_interval == theirs.get_growth_interval()
    assert (ours.min_scale, ours.max_scale, ours.check_unscaled) == (None, None, False)
    with pytest.raises(ValueError, match=r"preset 'apex' is unknown. Known presets: .*mpkit, none.*torch"):
        preset("apex")
    assert all(isinstance(rule, ScaleRule) for rule in PRESETS.values())
