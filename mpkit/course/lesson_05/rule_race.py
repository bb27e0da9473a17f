"""Run scaling rules over a history of gradients, without training: every rule sees the same gradients."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

import numpy as np

from mpkit import FP16, DynamicScale, FloatFormat
from mpkit.course.recorded.history import BINS, GradientHistory
from mpkit.histogram import LOWEST
from mpkit.scaling import GradientStats, LibraryScale, ScaleExhausted, ScaleRule, ScaleState


@dataclass(frozen=True, eq=False)
class Lap:
    """What one rule did on a history.

    `scales` (steps,): the scale that each step used. `overflowed` (steps,): it was too large for the largest gradient.
    `skipped` (steps,): the same, for rules that skip; popart applies such a step. `flushed` (steps,): share (0 to 1) of
    the non-zero gradients that became zero, NaN where that was not measured. `gave_up`: the step at which the rule
    raised ScaleExhausted; all steps from there on count as skipped. None if it never did. `loss`: mean training loss of
    the last ten steps, if it trained.
    """

    rule: ScaleRule
    scales: np.ndarray
    overflowed: np.ndarray
    skipped: np.ndarray
    flushed: np.ndarray
    gave_up: int | None = None
    loss: float | None = None

    @cached_property
    def lost_steps(self) -> int:
        """Steps that did not change the weights."""
        return int(self.skipped.sum())

    @cached_property
    def spoiled_steps(self) -> int:
        """Steps that were taken although the largest gradient overflowed: Inf goes into those weights."""
        return int((self.overflowed & ~self.skipped).sum())

    @cached_property
    def mean_flushed(self) -> float:
        """Mean share (0 to 1) of flushed values over the steps that were taken and measured.

        1 if none was taken, NaN if none of those was measured.
        """
        taken = self.flushed[~self.skipped]
        measured = taken[~np.isnan(taken)]
        return float(measured.mean()) if measured.size else math.nan if taken.size else 1.0


def race(rule: ScaleRule, history: GradientHistory, fmt: FloatFormat = FP16) -> Lap:
    """Let `rule` choose the scale at every step of `history`.

    The history does not react: its gradients are those of an FP32 run that took every step. In real training a skipped
    step leaves the weights, and so the next gradients, as they were.
    """
    if not isinstance(rule, ScaleRule):
        raise TypeError(f"a rule such as mpkit.scaling.preset('torch') is asked for, but {rule!r} came.")
    seen = _seen(history) if rule.reads else [None] * len(history)
    limits = fmt.overflow_at / np.maximum(history.largest, 1e-300)
    scales, overflows = np.empty(len(history)), limits.tolist()
    overflowed, state, gave_up, step = np.zeros(len(history), dtype=bool), rule.init(), None, 0
    while step < len(history):
        scales[step] = scale = state.scale
        if found_inf := scale >= overflows[step]:
            overflowed[step] = True
        elif count := _quiet(rule, state, limits[step:]):
            scales[step : step + count] = scale
            state, step = _after_quiet(rule, state, count), step + count
            continue
        try:
            state = rule.update(state, found_inf, seen[step])
        except ScaleExhausted:
            gave_up = step
            scales[step:], overflowed[step:] = scale, True
            break
        step += 1
    skipped = overflowed if rule.skips else np.zeros_like(overflowed)
    if gave_up is not None:
        skipped = overflowed.copy()
    return Lap(rule, scales, overflowed, skipped, history.flushed(scales, fmt), gave_up)


def _quiet(rule: ScaleRule, state: ScaleState, limits: np.ndarray) -> int:
    """How many steps a dynamic rule would only count from here on: until the next growth, or overflow.

    They are most of a race, so that is faster than to ask the rule. 0 for another rule.
    """
    if type(rule) not in (DynamicScale, LibraryScale):
        return 0
    clean = limits[: max(rule.growth_interval - 1 - state.growth_tracker, 0)] > state.scale  # type: ignore[attr-defined]
    return len(clean) if clean.all() else int(clean.argmin())


def _after_quiet(rule: ScaleRule, state: ScaleState, count: int) -> ScaleState:
    if type(state) is ScaleState:
        return ScaleState(state.scale, state.growth_tracker + count)
    # The first clean step may give a library's rule its patience back; the others change nothing but the count.
    return replace(rule.update(state, False), growth_tracker=state.growth_tracker + count)


class _Seen(GradientStats):
    """A recorded step. Its share is read from sums, in a hundredth of the time that a histogram takes to be asked."""

    def __init__(self, amax: float, norm: float, from_bin: np.ndarray) -> None:
        super().__init__(amax, norm)
        object.__setattr__(self, "_from_bin", from_bin)

    def share_from(self, limit: float) -> float:
        """As for any `GradientStats`."""
        sums: np.ndarray = self._from_bin  # type: ignore[attr-defined]
        place = min(max(math.ceil(math.log2(limit)) - LOWEST, 0), len(sums) - 1)
        return int(sums[place]) / max(int(sums[0]), 1)


@lru_cache(maxsize=8)
def _seen(history: GradientHistory) -> list[GradientStats]:
    """What a rule that reads gradients is shown, step by step."""
    from_bin = np.zeros((len(history), BINS + 1), dtype=np.int64)  # how many values lie in a bin and above; the last: 0
    from_bin[:, :BINS] = history.counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    return [_Seen(*step) for step in zip(history.amax.tolist(), history.norm.tolist(), from_bin, strict=True)]


def sweep(
    history: GradientHistory, inits: Iterable[float], intervals: Sequence[int], **options: Any
) -> Iterator[tuple[tuple[float, int], Lap]]:
    """Race DynamicScale(init_scale, growth_interval, **options) for every pair of the two; yields each pair's lap."""
    for init, interval in product(inits, intervals):
        rule = DynamicScale(init_scale=init, growth_interval=interval, **options)
        yield (init, interval), race(rule, history)
