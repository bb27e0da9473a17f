"""Faults that lesson 00 must notice: in rounding, and in what a number stores."""

from __future__ import annotations

from typing import Any

import torch
from harness.fault import Fault, Patch, collector, swap

from mpkit import casting
from mpkit.formats import FORMATS, FP16, FloatFormat

FAULTS: dict[str, Fault] = {}
fault = collector(FAULTS)
UNSEEN: set[str] = set()
UNPAINTED: list[tuple[Any, str]] = []

CAST = casting.cast


@fault
def cast_cuts_off_instead_of_rounding(patch: Patch) -> None:
    swap(patch, CAST, lambda x, fmt, *a, **k: CAST(x, fmt, "zero"))


@fault
def fp16_has_the_bits_of_bf16(patch: Patch) -> None:
    broken = FloatFormat("FP16", 8, 7, dtype=torch.bfloat16)
    patch.setitem(FORMATS, "FP16", broken)
    swap(patch, FP16, broken)


@fault
def ties_go_up(patch: Patch) -> None:
    def cast(x: torch.Tensor, fmt: FloatFormat, *rest: Any, **more: Any) -> torch.Tensor:
        near, up = CAST(x, fmt, *rest, **more), CAST(x, fmt, "up")
        return torch.where((x - near == up - x) & (not rest and not more), up, near)

    swap(patch, CAST, cast)


@fault
def subnormals_are_lost(patch: Patch) -> None:
    swap(patch, CAST, lambda x, fmt, *a, **k: torch.where(x.abs() < fmt.smallest_normal, 0.0, CAST(x, fmt, *a, **k)))
