"""The rules of the libraries: published traces, real classes where they install, and statistics against plain numpy."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

import mpkit
from mpkit import LossScaler
from mpkit.histogram import ExponentHistogram
from mpkit.scaling import (
    PRESETS,
    ArticleRule,
    DynamicScale,
    GradientStats,
    HistogramScale,
    LibraryScale,
    LogMaxScale,
    ScaleExhausted,
    ScaleRule,
    ScaleState,
    preset,
)

OVERFLOWS = [1, 0, 1, 0, 1, 1, 1, 0, 1]


def dynamic(name: str) -> DynamicScale:
    rule = preset(name)
    assert isinstance(rule, DynamicScale)
    return rule


def scales(rule: ScaleRule, flags: list[int], seen: GradientStats | None = None) -> list[float]:
    state, found = rule.init(), []
    for flag in flags:
        state = rule.update(state, bool(flag), seen)
        found.append(state.scale)
    return found


# --- golden traces: ../research tables 1.1 and 1.2 -------------------------------------------------------------------

APEX_KERNEL = LibraryScale(init_scale=1024.0, hysteresis=2, refill="clean step")
TABLE_1_1 = [
    ("torch", dynamic("torch"), [512, 512, 256, 256, 128, 64, 32, 32, 16]),
    ("megatron", dynamic("megatron"), [1024, 1024, 512, 512, 256, 128, 64, 64, 32]),
    ("deepspeed", dynamic("deepspeed"), [1024, 1024, 512, 512, 256, 128, 64, 64, 32]),
    ("apex kernel", APEX_KERNEL, [1024, 1024, 1024, 1024, 1024, 512, 256, 256, 256]),
    ("deepspeed, consecutive", replace(dynamic("deepspeed"), refill="clean step"), [1024] * 5 + [512, 256, 256, 256]),
    ("paddle, every 2", replace(dynamic("paddle"), hysteresis=2), [1024] * 5 + [512] * 4),
]


@pytest.mark.parametrize(("name", "rule", "wanted"), TABLE_1_1, ids=[row[0] for row in TABLE_1_1])
def test_hysteresis_is_three_different_things(name: str, rule: DynamicScale, wanted: list[float]) -> None:
    assert scales(replace(rule, init_scale=1024.0), OVERFLOWS) == wanted


def growths(rule: DynamicScale, steps: int) -> list[int]:
    """Steps, counted from 1, after which the scale has grown."""
    path = [rule.init().scale, *scales(rule, [0] * steps)]
    return [step for step in range(1, steps + 1) if path[step] > path[step - 1]]


@pytest.mark.parametrize("name", ["torch", "jmp", "keras", "mindspore", "apex-amp", "megatron", "fairseq", "paddle"])
def test_first_growth_comes_after_the_window(name: str) -> None:
    rule = replace(dynamic(name), init_scale=2.0**7, growth_interval=1000)
    assert growths(rule, 2500) == [1000, 2000]


def test_deepspeed_grows_one_step_later() -> None:
    rule = replace(dynamic("deepspeed"), growth_interval=1000)
    assert growths(rule, 2500) == [1001, 2001]
    after = scales(rule, [1, 1, *[0] * 1001])
    assert after[-2:] == [2.0**15, 2.0**16]


def deepspeed_by_the_letter(flags: list[int], window: int) -> list[float]:
    """DeepSpeed's own bookkeeping, from the fact sheet: iteration numbers instead of a tracker."""
    scale, last, patience, out = 2.0**16, -1, 2, []
    for i, flag in enumerate(flags):
        if flag:
            if patience == 1:
                scale = max(scale / 2, 1.0)
            else:
                patience -= 1
            last = i
        else:
            stable = i - last - 1
            if stable > 0 and stable % window == 0:
                patience, scale = 2, scale * 2
        out.append(scale)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_deepspeed_equals_its_bookkeeping(seed: int) -> None:
    rng = random.Random(seed)
    flags = [int(rng.random() < 0.15) for _ in range(100)]  # short: its scale may leave float32 later
    for window in (1, 3, 10):
        rule = replace(dynamic("deepspeed"), growth_interval=window)
        assert scales(rule, flags) == deepspeed_by_the_letter(flags, window)


def modulo_rule(flags: list[int], init: float, window: int, floor: float) -> list[float]:
    """fp16_utils and OpenSeq2Seq count from the last overflow, modulo the window."""
    scale, last, out = init, -1, []
    for i, flag in enumerate(flags):
        if flag:
            scale, last = max(scale / 2, floor), i
        elif (i - last) % window == 0:
            scale *= 2
        out.append(scale)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_a_tracker_and_a_modulo_decide_alike(seed: int) -> None:
    rng = random.Random(seed)
    flags = [int(rng.random() < 0.3) for _ in range(90)]  # short: its scale may leave float32 later
    for window in (1, 3, 7):
        rule = replace(dynamic("apex-fp16_utils"), growth_interval=window)
        assert scales(rule, flags) == modulo_rule(flags, 2.0**32, window, 1.0)


# --- limits and quirks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "least"), [("torch", 0.0), ("keras", 0.0), ("apex-amp", 0.0), ("paddle", 0.0),
                                            ("mpkit", 1.0), ("jmp", 1.0), ("tf-legacy", 1.0), ("mindspore", 1.0),
                                            ("apex-fp16_utils", 1.0), ("megatron", 1.0),
                                            ("openseq2seq-backoff", 1.0)])  # fmt: skip
def test_where_two_hundred_overflows_end(name: str, least: float) -> None:
    assert scales(dynamic(name), [1] * 200)[-1] == least


def test_deepspeed_and_fairseq_give_up_at_their_floor() -> None:
    state = ScaleState(2.0)
    rule = replace(dynamic("deepspeed"), hysteresis=1)
    state = rule.update(state, True)
    assert state.scale == 1.0
    with pytest.raises(ScaleExhausted, match=r"the scale is 1, its floor is 1, and the gradients still overflow. "
                                             r"Either the loss or an activation is Inf"):  # fmt: skip
        rule.update(state, True)
    state = dynamic("fairseq").update(ScaleState(2.0**-12), True)
    assert state.scale == 2.0**-13  # 1.2e-4; the next half would be below the floor of 1e-4
    with pytest.raises(ScaleExhausted, match=r"its floor is 0.0001"):
        dynamic("fairseq").update(state, True)


@pytest.mark.parametrize(("name", "end"), [("keras", math.inf), ("megatron", math.inf), ("torch-fsdp", math.inf),
                                          ("torch", 2.0**127), ("jmp", 2.0**127), ("apex-amp", 2.0**24),
                                          ("openseq2seq-backoff", 2.0**14)])  # fmt: skip
def test_where_growth_without_end_ends(name: str, end: float) -> None:
    assert scales(replace(dynamic(name), growth_interval=1), [0] * 140)[-1] == end


def test_an_infinite_scale_never_comes_back() -> None:
    assert dynamic("keras").update(ScaleState(math.inf), True).scale == math.inf


@pytest.mark.parametrize("seed", range(3))
def test_torch_fsdp_equals_the_real_class(seed: int) -> None:
    rng = random.Random(seed)
    real: Any = object.__new__(ShardedGradScaler)  # its constructor wants a process group; the update does not
    real._growth_factor, real._backoff_factor, real._growth_interval = 2.0, 0.5, 3
    real._scale, real._growth_tracker = torch.tensor(2.0**120), torch.tensor(0, dtype=torch.int32)
    rule = replace(dynamic("torch-fsdp"), init_scale=2.0**120, growth_interval=3)
    state = rule.init()
    for _ in range(120):
        found = rng.random() < 0.05
        real._amp_update_scale_cpu_(torch.tensor([float(found)]))
        state = rule.update(state, found)
        assert (state.scale, state.growth_tracker) == (real._scale.item(), real._growth_tracker.item())


def test_lowering_the_interval_stops_torchs_growth_and_not_mpkits() -> None:
    beyond = ScaleState(4.0, 25)
    theirs = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)
    theirs.scale(torch.ones(()))
    theirs._growth_tracker.fill_(25)
    theirs.set_growth_interval(3)
    flag = torch.zeros(())
    torch._amp_update_scale_(theirs._scale, theirs._growth_tracker, flag, 2.0, 0.5, theirs.get_growth_interval())
    for name, wanted in (("torch", (4.0, 26)), ("mpkit", (8.0, 0))):
        rule = replace(dynamic(name), init_scale=4.0, growth_interval=3)
        state = rule.update(beyond, False)
        assert (state.scale, state.growth_tracker) == wanted
        scale, tracker = torch.tensor(4.0), torch.tensor(25, dtype=torch.int32)
        rule.update_tensors(scale, tracker, flag)
        assert (scale.item(), tracker.item()) == wanted
    assert (theirs._scale.item(), theirs._growth_tracker.item()) == (4.0, 26)


@pytest.mark.parametrize(("options", "text"), [
    ({"hysteresis": 0}, r"hysteresis must be from 1 to 2\*\*31 - 1, got 0. Try 1, which shrinks at every overflow."),
    ({"refill": "often"}, r"refill must be one of 'growth', 'clean step', 'shrink', got 'often'."),
    ({"at_floor": "crash"}, r"at_floor must be one of 'stay', 'stop', 'stop before', got 'crash'."),
    ({"late_growth": 2}, r"late_growth must be 0 or 1, got 2. Try 0."),
    ({"at_floor": "stop", "min_scale": None}, r"at_floor='stop' needs a floor, got min_scale=None. Pass"),
])  # fmt: skip
def test_new_options_that_make_no_sense(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        LibraryScale(**options)


def test_a_floor_that_float32_rounds_up_still_ends_the_training() -> None:
    rule = LibraryScale(init_scale=1.0, min_scale=0.1, at_floor="stop")  # float32(0.1) is above 0.1
    with pytest.raises(ScaleExhausted):
        scales(rule, [1] * 6)


def test_the_simple_rule_has_six_fields_and_the_libraries_rule_with_them_is_the_same() -> None:
    assert [field.name for field in fields(DynamicScale)] == [
        "check_unscaled", "init_scale", "growth_factor", "backoff_factor", "growth_interval", "min_scale", "max_scale",
    ]  # fmt: skip
    flags = random.Random(3).choices([0, 1], weights=[5, 1], k=500)
    for options in ({}, {"growth_interval": 3}, {"growth_interval": 2, "min_scale": None, "max_scale": 2.0**18}):
        assert scales(LibraryScale(**options), flags) == scales(DynamicScale(**options), flags)


def on_device(state: ScaleState) -> tuple[torch.Tensor, ...]:
    """Scale, tracker, and patience if the state has it."""
    scale, *counts = dataclasses.astuple(state)
    return torch.tensor(scale), *(torch.tensor(count, dtype=torch.int32) for count in counts)


def numbers(tensors: Iterable[torch.Tensor]) -> tuple[float, ...]:
    return tuple(tensor.item() for tensor in tensors)


@pytest.mark.parametrize("name", [
    "mpkit", "torch", "torch-fsdp", "apex-amp", "megatron", "keras", "paddle", "jmp", "tf-legacy", "mindspore",
    "openseq2seq-backoff",
])  # fmt: skip
def test_these_presets_never_wait_for_the_host(name: str) -> None:
    """A CUDA graph can hold their update."""
    rule = dynamic(name)
    assert rule.on_device
    flags = [0] * 2100 + [1, 1, 0, 1, 1, 1]
    state = rule.init()
    scale, tracker, *more = tensors = on_device(state)
    for flag in flags:
        state = rule.update(state, bool(flag))
        rule.update_tensors(scale, tracker, torch.tensor(float(flag)), *more)
        assert numbers(tensors) == dataclasses.astuple(state)


@pytest.mark.parametrize("seed", range(60))
def test_what_libraries_do_differently_is_the_same_on_the_device(seed: int) -> None:
    rng = random.Random(seed)
    rule = LibraryScale(
        init_scale=rng.choice([2.0**16, 2.0**10, 2.0**120]), growth_factor=rng.choice([2.0, 1.7, 2.0**20]),
        backoff_factor=rng.choice([0.5, 0.3]), growth_interval=rng.randint(1, 5),
        min_scale=rng.choice([None, 1.0, 4.0]), max_scale=rng.choice([None, 2.0**125]), hysteresis=rng.randint(1, 4),
        refill=rng.choice(["growth", "clean step", "shrink"]), late_growth=rng.randint(0, 1),
        exact_interval=rng.random() < 0.5, grow_to_inf=rng.random() < 0.5,
    )  # fmt: skip
    state, share = rule.init(), rng.choice([0.02, 0.3, 0.6, 0.9])
    scale, tracker, *more = tensors = on_device(state)
    for _ in range(200):
        found = rng.random() < share
        state = rule.update(state, found)
        rule.update_tensors(scale, tracker, torch.tensor(float(found)), *more)
        assert numbers(tensors) == dataclasses.astuple(state)
    assert [tensor.dtype for tensor in tensors[1:]] == [torch.int32] * (1 + len(more))


def test_a_scaler_remembers_patience_in_a_checkpoint() -> None:
    """Two overflows shrink; one is behind us when the state is saved, so the next shrinks."""
    p = torch.nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([p], lr=1.0)

    def overflow(scaler: LossScaler) -> float:
        sgd.zero_grad()
        scaler.scale((p * math.inf).sum()).backward()
        scaler.step(sgd)
        scaler.update()
        return scaler.get_scale()

    first, second = (LossScaler(LibraryScale(init_scale=8.0, hysteresis=2)) for _ in range(2))
    assert overflow(first) == 8.0
    state = first.state_dict()
    assert state["hysteresis_tracker"] == 1
    second.load_state_dict(state)
    assert overflow(second) == overflow(first) == 4.0
    second.load_state_dict(state)
    assert overflow(second) == 4.0, "also where the tensors are there already"


# --- the article -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["unscaled", "scaled"])
@pytest.mark.parametrize("largest", [0.001, 0.3, 1.5, 1.84, 40.0])
def test_where_the_article_settles(norm: Any, largest: float) -> None:
    rng = random.Random(0)
    rule, state = ArticleRule(norm=norm), ArticleRule().init()
    path = []
    for step in range(300):
        g = largest if step == 100 else largest * rng.random()
        state = rule.update(state, False, GradientStats(g, g))
        path.append(state.scale)
    bound = 1 / (2 * largest) if norm == "unscaled" else 1 / math.sqrt(2 * largest)
    if norm == "unscaled":  # one halving a step: the largest norm may come once, but smaller ones follow
        assert state.scale <= 2 * bound
    assert all(b <= a for a, b in itertools.pairwise(path))
    steady = rule.init()
    for _ in range(60):
        steady = rule.update(steady, False, GradientStats(largest, largest))
    assert steady.scale == 2.0 ** math.floor(math.log2(bound))


def test_the_article_by_hand() -> None:
    rule, state = ArticleRule(init_scale=8.0), ScaleState(8.0)
    assert rule.update(state, False, GradientStats(0.0, 1 / 16)).scale == 8.0  # not greater than 1/(2s)
    assert rule.update(state, False, GradientStats(0.0, 1 / 16 + 1e-9)).scale == 4.0
    assert rule.update(state, True, None).scale == 4.0
    with pytest.raises(ValueError, match=r"a gradient norm must be at least 0, got nan in a step with found_inf=False. "
                                         r"Pass found_inf=True"):  # fmt: skip
        rule.update(state, False, GradientStats(1.0, math.nan))
    with pytest.raises(TypeError, match=r"ArticleRule looks at the gradients \(norm\); pass update"):
        rule.update(state, False)
    with pytest.raises(ValueError, match="norm must be 'unscaled' or 'scaled', got 'both'"):
        ArticleRule(norm="both")  # type: ignore[arg-type]


# --- statistics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("log_max", "counts"), [(16.0, 65536.0), (4.0, 16.0)])
def test_logmax_equals_weighted_averages(log_max: float, counts: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(-8.0, 2.0, 300)
    rule = LogMaxScale(min_scale=2.0**-120, max_scale=2.0**60, log_max=log_max)
    state = rule.init()
    for n, value in enumerate(x, 1):
        found_inf = n % 50 == 0
        state = rule.update(state, found_inf, GradientStats(2.0**value, 1.0))
    x[49::50] = counts

    def average(values: np.ndarray, beta: float) -> float:
        weights = beta ** np.arange(len(values))[::-1]
        return float((weights * values).sum() / weights.sum())

    sigma = math.sqrt(average(x * x, 0.999) - average(x, 0.999) ** 2)
    wanted = 2 ** min(max(16 - (average(x, 0.99) + 3.09 * sigma), -120), 60)
    assert state.scale == pytest.approx(wanted, rel=1e-5)


def test_one_overflow_holds_logmax_at_its_floor_and_with_log_max_4_it_does_not() -> None:
    """After 100 clean steps with gradients up to 2^-8: steps until the scale leaves its floor again."""
    waits = {}
    for log_max in (16.0, 4.0):
        rule, small = LogMaxScale(log_max=log_max), GradientStats(2.0**-8, 1.0)
        state = rule.init()
        for step in range(20_101):
            state = rule.update(state, step == 100, small)
            if step > 100 and state.scale > rule.min_scale:
                waits[log_max] = step - 100
                break
    assert waits == {16.0: 11_168, 4.0: 1}


def test_logmax_limits_zero_and_nonsense() -> None:
    rule = LogMaxScale()
    assert rule.update(rule.init(), False, GradientStats(2.0**-20, 1.0)).scale == 2.0**14
    assert rule.update(rule.init(), False, GradientStats(2.0**20, 1.0)).scale == 1.0
    assert rule.update(rule.init(), False, GradientStats(0.0, 0.0)) == rule.init()
    with pytest.raises(ValueError, match="a largest gradient must be at least 0, got nan"):
        rule.update(rule.init(), False, GradientStats(math.nan, 1.0))
    with pytest.raises(TypeError, match="LogMaxScale continues from a LogMaxState"):
        rule.update(ScaleState(1.0), False, GradientStats(1.0, 1.0))
    with pytest.raises(ValueError, match="LogMaxScale needs min_scale <= init_scale <= max_scale"):
        LogMaxScale(init_scale=0.5)
    text = r"log_max must be between -127 and 128: 2\*\*log_max is a float32, got 128.0. Try 16.0."
    with pytest.raises(ValueError, match=text):
        LogMaxScale(log_max=128.0)
    assert LogMaxScale(log_max=127.0).update(rule.init(), True).scale == 1.0


def test_popart_doubles_until_a_value_enters_the_upper_end_and_then_swings() -> None:
    seen = GradientStats.of([torch.tensor([1.0, 0.001])], histogram=True)
    path = scales(HistogramScale(), [0] * 20, seen)
    assert path[:14] == [2.0**k for k in range(1, 14)] + [2.0**12]
    assert set(path[12:]) == {2.0**13, 2.0**12}
    assert scales(HistogramScale(period=3), [0] * 6, seen) == [1, 1, 2, 2, 2, 4]
    with pytest.raises(ValueError, match="the histogram is missing"):
        HistogramScale().update(ScaleState(1.0), False, GradientStats(1.0, 1.0))


def test_gradient_stats_equal_numpy() -> None:
    parts = [torch.randn(7, 3) * 4, torch.randn(5), torch.zeros(2)]
    flat = np.concatenate([p.numpy().ravel() for p in parts])
    seen = GradientStats.of(parts, histogram=True)
    assert seen.amax == np.abs(flat).max()
    assert seen.norm == pytest.approx(float(np.linalg.norm(flat)), rel=1e-6)
    both = GradientStats.of(parts[:1], True).with_more(GradientStats.of(parts[1:], True))
    assert (both.amax, both.norm) == (seen.amax, pytest.approx(seen.norm, rel=1e-6))
    for limit in (0.5, 1.0, 2.0):
        assert seen.share_from(limit) == pytest.approx((np.abs(flat) >= limit).sum() / (flat != 0).sum())
    assert both.histogram is not None
    assert torch.equal(both.histogram.counts, ExponentHistogram.of(torch.cat([p.flatten() for p in parts])).counts)
    assert GradientStats.of([]) == GradientStats(0.0, 0.0)


# --- in a training step ----------------------------------------------------------------------------------------------


def one_run(rule: ScaleRule, gradients: list[float], fused: bool, stop: int | None = None) -> list[float]:
    """Scales of a run whose unscaled gradients are given; saved and loaded into a new scaler at `stop`."""
    p = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.Adam([p], lr=0.0, fused=fused)
    scaler, found = mpkit.LossScaler(rule), []
    for step, gradient in enumerate(gradients):
        if step == stop:
            saved, scaler = scaler.state_dict(), mpkit.LossScaler(rule)
            scaler.load_state_dict(saved)
        optimizer.zero_grad()
        scaler.scale((p * gradient).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        found.append(scaler.get_scale())
    return found


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_scaler_drives_every_preset_and_resumes_it(name: str, fused: bool) -> None:
    rule, rng = preset(name), random.Random(1)
    if isinstance(rule, DynamicScale):
        rule = replace(rule, growth_interval=3)
    gradients = [rng.choice([1e-3, 0.5, 2.0, math.inf]) for _ in range(16)]
    state, wanted = rule.init(), []
    for g in gradients:
        seen = GradientStats.of([torch.full((4,), g)], histogram=True) if rule.reads else None
        state = rule.update(state, not math.isfinite(g), *([seen] if rule.reads else []))
        wanted.append(state.scale)
    assert one_run(rule, gradients, fused) == pytest.approx(wanted, rel=1e-5)
    assert one_run(rule, gradients, fused, stop=7) == one_run(rule, gradients, fused)


def test_two_optimizers_are_measured_together() -> None:
    a, b = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    both = [torch.optim.SGD([p], lr=0.0) for p in (a, b)]
    scaler = mpkit.LossScaler(ArticleRule(init_scale=1.0))
    scaler.scale(0.4 * a.sum() + 0.4 * b.sum()).backward()  # each norm is below 1/2, both together 0.57
    for optimizer in both:
        scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 0.5


def test_the_right_hysteresis_is_resumed() -> None:
    rule = replace(dynamic("megatron"), init_scale=8.0)
    assert one_run(rule, [math.inf, 1.0, math.inf, math.inf], False, stop=1) == [8.0, 8.0, 4.0, 2.0]


def test_every_preset_is_documented_by_a_distinct_rule() -> None:
    assert {
        "torch",
        "torch-fsdp",
        "apex-amp",
        "apex-fp16_utils",
        "deepspeed",
        "fairseq",
        "megatron",
        "jmp",
        "keras",
        "tf-legacy",
        "openseq2seq-backoff",
        "openseq2seq-logmax",
        "popart",
        "paddle",
        "mindspore",
    } <= set(PRESETS)


def test_after_a_rule_gave_up_the_next_iteration_is_clean() -> None:
    p = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=1.0)
    scaler = mpkit.LossScaler(LibraryScale(init_scale=1.0, at_floor="stop"))
    for gradient in (math.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale((p * gradient).sum()).backward()
        scaler.unscale_(optimizer)
        stepped = scaler.step(optimizer).stepped
        if gradient == math.inf:
            with pytest.raises(ScaleExhausted):
                scaler.update()
    assert stepped
    assert (p.item(), scaler.get_scale()) == (-1.0, 1.0)


@pytest.mark.parametrize("name", ["torch", "torch-fsdp", "apex-amp", "megatron", "keras", "paddle"])
def test_libraries_that_compare_with_equals_never_grow_past_their_interval(name: str) -> None:
    rule = preset(name)
    start = rule.init()
    late = replace(start, growth_tracker=rule.growth_interval + 5, scale=4.0)  # type: ignore[attr-defined]
    assert rule.update(late, False).scale == 4.0
    due = replace(late, growth_tracker=rule.growth_interval - 1)  # type: ignore[attr-defined]
    assert rule.update(due, False).scale == 8.0
