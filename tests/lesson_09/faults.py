"""Faults that lesson 09 must notice: in formats, in scales and who shares them, in histories, in what is trained."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch
from harness.fault import Fault, Patch, collector, swap
from torch import Tensor

from mpkit.course.lesson_09 import delayed_race, granularity
from mpkit.formats import E4M3, FloatFormat
from mpkit.policy.policy import PRESETS, Policy
from mpkit.scaled import blocks
from mpkit.scaled.delayed import DelayedAmax
from mpkit.scaled.integers import IntFormat
from mpkit.scaled.report import report
from mpkit.scaled.scales import scale_of

quantize = sys.modules["mpkit.scaled.quantize"]  # as an attribute of mpkit.scaled it is the function
FAULTS: dict[str, Fault] = {}
fault = collector(FAULTS)
UNSEEN: set[str] = set()
UNPAINTED = [(granularity, "GranularityFigure"), (delayed_race, "DelayedRaceFigure")]


@fault
def the_floor_is_rounded_up(patch: Patch) -> None:
    def up(amax: Tensor, largest: float, rule: Any) -> Tensor:
        return scale_of(amax, largest, "up" if rule == "floor" else rule)

    swap(patch, scale_of, up)


@fault
def up_is_rounded_down(patch: Patch) -> None:
    def down(amax: Tensor, largest: float, rule: Any) -> Tensor:
        return scale_of(amax, largest, "floor" if rule == "up" else rule)

    swap(patch, scale_of, down)


@fault
def the_scale_ignores_the_block(patch: Patch) -> None:
    honest = blocks.largest_magnitudes
    swap(patch, honest, lambda grid: honest(grid).amax().expand_as(honest(grid)))


@fault
def rows_are_columns(patch: Patch) -> None:
    honest = blocks.as_blocks

    def turned(x: Tensor, block: Any) -> Tensor:
        return honest(x, block[::-1] if None in block else block)

    swap(patch, honest, turned)


@fault
def stochastic_is_nearest(patch: Patch) -> None:
    honest = quantize._round

    def nearest(quotients: Tensor, fmt: Any, rounding: Any) -> Tensor:
        return honest(quotients, fmt, "nearest" if rounding == "stochastic" else rounding)

    patch.setattr(quantize, "_round", nearest)


@fault
def integers_do_not_saturate(patch: Patch) -> None:
    patch.setattr(IntFormat, "max", property(lambda self: 2.0**self.bits - 1))


@fault
def e2m1_has_an_infinity(patch: Patch) -> None:
    honest = FloatFormat.max.fget  # type: ignore[attr-defined]
    patch.setattr(FloatFormat, "max", property(lambda self: 3.0 if self.name == "E2M1" else honest(self)))


@fault
def e4m3_ends_at_240(patch: Patch) -> None:
    honest = FloatFormat.max.fget  # type: ignore[attr-defined]
    patch.setattr(FloatFormat, "max", property(lambda self: 240.0 if self == E4M3 else honest(self)))


@fault
def the_history_forgets_nothing(patch: Patch) -> None:
    patch.setattr(DelayedAmax, "amax", property(lambda self: torch.stack(self.seen).amax(0) if self.seen else None))
    honest = DelayedAmax.update

    def update(self: DelayedAmax, amax: Tensor) -> DelayedAmax:
        return honest(self, torch.maximum(amax.detach(), self.amax) if self.seen else amax)

    patch.setattr(DelayedAmax, "update", update)


@fault
def the_history_knows_the_present(patch: Patch) -> None:
    swap(patch, report, lambda x, fmt, amax=None: report(x, fmt))


@fault
def the_history_takes_the_mean(patch: Patch) -> None:
    patch.setattr(DelayedAmax, "amax", property(lambda self: torch.stack(self.seen).mean(0) if self.seen else None))


@fault
def cut_off_counts_rounding(patch: Patch) -> None:
    patch.setattr(FloatFormat, "overflow_at", FloatFormat.max)


@fault
def a_recipe_is_not_applied(patch: Patch) -> None:
    patch.setitem(PRESETS, "fp8-mixed", Policy())


@fault
def gradients_are_not_rounded(patch: Patch) -> None:
    policy = PRESETS["fp8-mixed"]
    assert policy.linear is not None
    patch.setitem(PRESETS, "fp8-mixed", replace(policy, linear=replace(policy.linear, grad=None)))


@fault
def rounding_blocks_the_gradient(patch: Patch) -> None:
    def blocked(ctx: Any, *grads: Tensor) -> Any:
        return torch.zeros_like(grads[0]), None, None, None

    patch.setattr(quantize._StraightThrough, "backward", staticmethod(blocked))
