"""Run scaling rules over a history of gradients, without training: every rule sees the same gradients."""

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpkit import FP16, DynamicScale, FloatFormat
from mpkit.course.recorded.history import GradientHistory
from mpkit.scaling import ScaleExhausted, ScaleRule, ScaleState


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

    @property
    def lost_steps(self) -> int:
        """Steps that did not change the weights."""
        return int(self.skipped.sum())

    @property
    def spoiled_steps(self) -> int:
        """Steps that were taken although the largest gradient overflowed: Inf goes into those weights."""
        return int((self.overflowed & ~self.skipped).sum())

    @property
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
    seen = history.seen if rule.reads else [None] * len(history)
    limits = fmt.overflow_at / np.maximum(history.largest, 1e-300)
    scales, overflowed = np.empty(len(history)), np.zeros(len(history), dtype=bool)
    state, gave_up, quiet = rule.init(), None, _Quiet(rule, limits)
    step = 0
    while step < len(history):
        scales[step] = scale = state.scale
        if (count := quiet.steps(state, step)) > 0:
            scales[step : step + count] = scale
            state, step = ScaleState(scale, state.growth_tracker + count), step + count
            continue
        overflowed[step] = scale >= limits[step]
        try:
            state = rule.update(state, bool(overflowed[step]), seen[step])
        except ScaleExhausted:
            gave_up = step
            scales[step:], overflowed[step:] = scale, True
            break
        step += 1
    skipped = overflowed if rule.skips else np.zeros_like(overflowed)
    if gave_up is not None:
        skipped = overflowed.copy()
    return Lap(rule, scales, overflowed, skipped, history.flushed(scales, fmt), gave_up)


class _Quiet:
    """How many steps a `DynamicScale` would only count from here on. They are most of a race, so that is faster."""

    def __init__(self, rule: ScaleRule, limits: np.ndarray) -> None:
        self.rule = rule if type(rule) is DynamicScale else None
        self.limits = limits
        self._overflows: dict[float, list[int]] = {}  # steps at which a scale is too large

    def steps(self, state: ScaleState, step: int) -> int:
        """Steps until the next overflow or growth, not counting it; 0 for another rule."""
        if self.rule is None:
            return 0
        if state.scale not in self._overflows:
            self._overflows[state.scale] = np.flatnonzero(state.scale >= self.limits).tolist()
        found = self._overflows[state.scale]
        place = bisect_left(found, step)
        overflow = found[place] if place < len(found) else len(self.limits)
        return min(overflow - step, len(self.limits) - step, self.rule.growth_interval - 1 - state.growth_tracker)


def sweep(
    history: GradientHistory, inits: list[float], intervals: list[int], **options: Any
) -> dict[tuple[float, int], Lap]:
    """Race DynamicScale(init_scale, growth_interval, **options) for every pair of the two lists."""
    return {
        (init, interval): race(DynamicScale(init_scale=init, growth_interval=interval, **options), history)
        for init in inits
        for interval in intervals
    }
