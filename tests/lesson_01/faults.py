"""Faults that lesson 01 must notice: in the limits of formats, in their bits, in rounding, in the panel."""

from __future__ import annotations

import math
from typing import Any

import torch
from harness.fault import Fault, Patch, collector, swap

from mpkit import casting
from mpkit.course.lesson_01 import bits
from mpkit.formats import FORMATS, FP16, TF32, FloatFormat

FAULTS: dict[str, Fault] = {}
fault = collector(FAULTS)
UNSEEN: set[str] = set()
UNPAINTED: list[tuple[Any, str]] = []

CAST, NEIGHBOUR = casting.cast, bits._neighbour


@fault
def the_smallest_number_is_the_smallest_normal(patch: Patch) -> None:
    patch.setattr(FloatFormat, "smallest_subnormal", property(lambda self: self.smallest_normal))


@fault
def cast_has_no_subnormals(patch: Patch) -> None:
    swap(patch, CAST, lambda x, fmt, *a, **k: torch.where(x.abs() < fmt.smallest_normal, 0.0, CAST(x, fmt, *a, **k)))


@fault
def cast_cuts_off_instead_of_rounding(patch: Patch) -> None:
    swap(patch, CAST, lambda x, fmt, *a, **k: CAST(x, fmt, "zero"))


@fault
def e4m3_has_inf_like_the_others(patch: Patch) -> None:
    swap(patch, CAST, lambda x, fmt, *a, **k: CAST(x, fmt, *a, **{"overflow": "inf", **k}))


@fault
def the_spacing_keeps_shrinking_below_the_smallest_normal(patch: Patch) -> None:
    patch.setattr(FloatFormat, "spacing", lambda self, x: 2.0 ** (math.frexp(x)[1] - 1 - self.mantissa_bits))


@fault
def the_next_number_is_two_steps_away(patch: Patch) -> None:
    swap(patch, NEIGHBOUR, lambda fmt, code, value, step: NEIGHBOUR(fmt, code, value, 2 * step))


@fault
def tf32_has_the_bits_of_bf16(patch: Patch) -> None:
    """Under its own name, so that only the numbers tell."""
    _replace(patch, TF32, FloatFormat("TF32", 8, 7))


@fault
def fp16_has_the_bits_of_bf16(patch: Patch) -> None:
    _replace(patch, FP16, FloatFormat("FP16", 8, 7, dtype=torch.bfloat16))


def _replace(patch: Patch, original: FloatFormat, broken: FloatFormat) -> None:
    patch.setitem(FORMATS, original.name, broken)
    swap(patch, original, broken)
