"""Run scaling rules over a history of gradients, without training: every rule sees the same gradients."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpkit import FP16, DynamicScale, FloatFormat
from mpkit.course.recorded.history import GradientHistory
from mpkit.scaling import ScaleExhausted, ScaleRule


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
    limits = (fmt.overflow_at / np.maximum(history.largest, 1e-300)).tolist()
    scales, overflowed = np.empty(len(history)), np.zeros(len(history), dtype=bool)
    state, gave_up = rule.init(), None
    for step, limit in enumerate(limits):
        scales[step] = scale = state.scale
        if scale >= limit:
            overflowed[step] = True
        try:
            state = rule.update(state, scale >= limit, seen[step])
        except ScaleExhausted:
            gave_up = step
            scales[step:], overflowed[step:] = scale, True
            break
    skipped = overflowed if rule.skips else np.zeros_like(overflowed)
    if gave_up is not None:
        skipped = overflowed.copy()
    return Lap(rule, scales, overflowed, skipped, history.flushed(scales, fmt), gave_up)


def sweep(
    history: GradientHistory, inits: list[float], intervals: list[int], **options: Any
) -> dict[tuple[float, int], Lap]:
    """Race DynamicScale(init_scale, growth_interval, **options) for every pair of the two lists."""
    return {
        (init, interval): race(DynamicScale(init_scale=init, growth_interval=interval, **options), history)
        for init in inits
        for interval in intervals
    }
