"""Faults that lesson 02 must notice: in rounding, in adding up, in the table of operations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from harness.fault import Fault, Patch, collector, swap
from torch import Tensor

import mpkit
from mpkit import casting, rounding
from mpkit.course.arithmetic import accumulate
from mpkit.course.lesson_02 import cast_effect, cast_explorer, stalling_sum
from mpkit.course.lesson_02.cast_effect import CastEffect
from mpkit.formats import FloatFormat
from mpkit.policy import operations

FAULTS: dict[str, Fault] = {}
fault = collector(FAULTS)
UNSEEN: set[str] = set()
UNPAINTED = [(cast_explorer, "CastExplorerFigure"), (stalling_sum, "StallingSumFigure")]

CAST, EFFECT, SPACING = casting.cast, cast_effect.effect, FloatFormat.spacing


@fault
def nearest_cuts_off(patch: Patch) -> None:
    swap(patch, CAST, lambda x, fmt, rounding="nearest", *rest, **more: CAST(
        x, fmt, "zero" if rounding == "nearest" else rounding, *rest, **more))  # fmt: skip


@fault
def ties_go_up(patch: Patch) -> None:
    def cast(x: Tensor, fmt: FloatFormat, rounding: str = "nearest", *rest: object, **more: object) -> Tensor:
        near = CAST(x, fmt, rounding, *rest, **more)  # type: ignore[arg-type]
        up = CAST(x, fmt, "up")
        return torch.where((x - near == up - x) & (rounding == "nearest"), up, near)

    swap(patch, CAST, cast)


@fault
def stochastic_rounding_is_always_up(patch: Patch) -> None:
    patch.setattr(rounding, "_random_bits", lambda count, *_: torch.full((count,), -(2**15), dtype=torch.int16))


@fault
def a_spacing_is_counted_twice(patch: Patch) -> None:
    patch.setattr(FloatFormat, "spacing", lambda self, x: 2 * SPACING(self, x))


@fault
def subnormals_are_counted_as_flushed(patch: Patch) -> None:
    def effect(*given: Any) -> CastEffect:
        found = EFFECT(*given)
        return replace(found, flushed=found.flushed + found.subnormal)

    swap(patch, EFFECT, effect)


@fault
def the_accumulator_is_secretly_fp32(patch: Patch) -> None:
    patch.setattr(accumulate, "_sequential", lambda terms, fmt: mpkit.cast(terms.double().sum(-1), fmt))


@fault
def kahan_forgets_what_was_lost(patch: Patch) -> None:
    patch.setattr(accumulate, "_kahan_chain", accumulate._chain)


@fault
def pairs_drop_a_last_term_without_partner(patch: Patch) -> None:
    honest = accumulate._pairs
    patch.setattr(accumulate, "_pairs", lambda terms, fmt: honest(terms[..., : terms.shape[-1] // 2 * 2], fmt))


@fault
def relu_is_on_the_fp32_list(patch: Patch) -> None:
    swap(patch, operations.WIDE, operations.WIDE | {"relu"})
