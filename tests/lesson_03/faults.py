"""Faults that lesson 03 must notice: in rounding, in the three keepers, in counting, in the number line."""

from __future__ import annotations

import math
from typing import Any

from harness.fault import Fault, Patch, collector, swap
from torch import Tensor

from mpkit import casting, optim
from mpkit.course.arithmetic import scalar as grid
from mpkit.course.lesson_03 import landing, number_line
from mpkit.formats import FloatFormat
from mpkit.optim import keeper as weight_keeper

FAULTS: dict[str, Fault] = {}
fault = collector(FAULTS)
UNSEEN: set[str] = set()
UNPAINTED = [(number_line, "NumberLineFigure")]
cast = casting.cast


def cast_as(patch: Patch, asked: str, done: str) -> None:
    """Whoever asks for one rounding gets another."""

    def other(x: Tensor, fmt: FloatFormat, rounding: str = "nearest", *rest: Any, **settings: Any) -> Tensor:
        return cast(x, fmt, done if rounding == asked else rounding, *rest, **settings)  # type: ignore[arg-type]

    swap(patch, cast, other)


# --- rounding --------------------------------------------------------------------------------------------------------


@fault
def nearest_cuts_off(patch: Patch) -> None:
    cast_as(patch, "nearest", "zero")


@fault
def stochastic_is_nearest(patch: Patch) -> None:
    cast_as(patch, "stochastic", "nearest")


# --- the keepers -----------------------------------------------------------------------------------------------------


@fault
def master_weights_restart_from_the_copy(patch: Patch) -> None:
    patch.setattr(optim.MasterWeights, "_read", weight_keeper.WeightKeeper._read)


@fault
def master_weights_never_reach_the_model(patch: Patch) -> None:
    def write(_: Any, slot: weight_keeper.Slot, weight: Tensor) -> None:
        assert slot.extra is not None
        slot.extra.copy_(weight)

    patch.setattr(optim.MasterWeights, "_write", write)


@fault
def kahan_forgets_the_rest(patch: Patch) -> None:
    patch.setattr(optim.Kahan, "_read", weight_keeper.WeightKeeper._read)


@fault
def lost_updates_are_not_counted(patch: Patch) -> None:
    patch.setattr(weight_keeper.UpdateCount, "lost_share", property(lambda self: 0.0))


# --- the number line -------------------------------------------------------------------------------------------------


@fault
def ties_go_away_from_zero(patch: Patch) -> None:
    honest = grid.nearest

    def nearest(x: float, fmt: FloatFormat) -> float:
        tie = math.isfinite(x) and (abs(x) / fmt.spacing(x)) % 1 == 0.5
        return math.copysign(math.ceil(abs(x) / fmt.spacing(x)) * fmt.spacing(x), x) if tie else honest(x, fmt)

    swap(patch, honest, nearest)


@fault
def the_grid_is_the_same_everywhere(patch: Patch) -> None:
    patch.setattr(FloatFormat, "spacing", lambda self, x: self.epsilon)


@fault
def chance_does_not_depend_on_the_distance(patch: Patch) -> None:
    swap(patch, landing._by_lot, lambda x, fmt, draw: grid.neighbours(x, fmt)[draw < 0.5])
