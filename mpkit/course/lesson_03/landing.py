"""One weight, one update: where the new weight lands on a format's number line, and where a hundred of them lead.

Everything here is exact arithmetic on single numbers. A weight is a value of the format, an update is a float32 value,
and their sum is rounded once: float64 holds it well enough that rounding it again gives the same result as rounding
the exact sum (53 bits are more than twice 24 plus 2; Figueroa 1995, "When is double rounding innocuous?").
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import torch

from mpkit import FP32, FloatFormat
from mpkit.course.arithmetic.scalar import gap, nearest, neighbours
from mpkit.formats import require_format

Keeper = Literal["nearest", "stochastic", "Kahan", "FP32 master"]
KEEPERS: tuple[Keeper, ...] = get_args(Keeper)


@dataclass(frozen=True)
class Landing:
    """One update of one weight.

    Attributes:
        fmt: the format that the weight is stored in.
        weight: its value before, one of the format's.
        update: what is added; a float32 value other than 0.
        gap: distance from the weight to the next value on the update's side.
        target: weight + update, as float64: where the weight should go.
        low, high: the format's values around the target.
        nearest: the one that rounding to nearest takes.
        probability: of landing on the one further along (0 to 1) under stochastic rounding.
        borders: the ends of the stretch that is rounded back to the weight.
    """

    fmt: FloatFormat
    weight: float
    update: float
    gap: float
    target: float
    low: float
    high: float
    nearest: float
    probability: float
    borders: tuple[float, float]

    @property
    def share(self) -> float:
        """Size of the update as a multiple of the gap; below 1/2 it vanishes under rounding to nearest."""
        return abs(self.update) / self.gap

    @property
    def is_tie(self) -> bool:
        """Whether the target lies exactly in the middle between two values of the format."""
        return self.low != self.high and self.target - self.low == self.high - self.target

    @property
    def flushed(self) -> bool:
        """Whether the update on its own, rounded to the format, would be 0."""
        return nearest(self.update, self.fmt) == 0

    @property
    def rest(self) -> float:
        """What rounding to nearest leaves over, rounded to the format: all that Kahan's second number can hold."""
        return nearest(self.target - self.nearest, self.fmt) if math.isfinite(self.nearest) else 0.0


def land(weight: float, update: float, fmt: FloatFormat) -> Landing:
    """Add `update` to `weight` and see where it lands in `fmt`.

    The weight is rounded to `fmt` first, for that is how it is stored; the update is taken as float32, in which
    optimizers compute.

    Raises:
        TypeError: `fmt` is not a FloatFormat.
        ValueError: the weight is not finite in `fmt`, or the update is 0 or not finite in float32.
    """
    require_format(fmt)
    stored, exact = nearest(weight, fmt), torch.tensor(update, dtype=torch.float32).item()
    if not math.isfinite(stored) or abs(weight) > fmt.max:
        raise ValueError(f"weight={weight!r} is beyond {fmt.name}, which ends at {fmt.max:.6g}; use a smaller one.")
    if exact == 0 or not math.isfinite(exact):
        raise ValueError(f"update={update!r} is not a number other than 0 that float32 can hold; use one such as 1e-4.")
    target = stored + exact
    low, high = neighbours(target, fmt)
    further, width = (high, high - low) if exact > 0 else (low, high - low)
    chance = 0.0  # so it stays beyond the format's end, or if the update is too small even for float64
    if target != stored and not math.isinf(width):
        chance = 1 - abs(further - target) / width if width else 1.0
    borders = (stored - gap(stored, fmt, up=False) / 2, stored + gap(stored, fmt, up=True) / 2)
    return Landing(
        fmt, stored, exact, gap(stored, fmt, exact > 0), target, low, high, nearest(target, fmt), chance, borders
    )


@dataclass(frozen=True)
class Trail:
    """The same update again and again.

    Attributes:
        stored: the weight in the format, before the first update and after each.
        progress: how far the stored weight has come; 1 is where exact arithmetic would be.
        waiting: the same for what is kept beside it in the end, Kahan's rest or FP32 master minus weight.
    """

    stored: tuple[float, ...]
    progress: float
    waiting: float


def repeat(start: Landing, keeper: Keeper, times: int = 100) -> Trail:
    """Apply the update of `start` `times` times, the way `keeper` does it.

    The random numbers of "stochastic" are the same in every call, so that a picture changes only with its settings, and
    others for each weight, update and format, so that no direction is favoured.

    Raises:
        ValueError: unknown keeper.
    """
    if keeper not in KEEPERS:
        raise ValueError(f"keeper={keeper!r} is unknown; use one of {', '.join(KEEPERS)}.")
    pairs = list(islice(_walk(start, keeper), times))
    stored = (start.weight, *(weight for weight, _ in pairs))
    whole = times * start.update
    return Trail(stored, (stored[-1] - start.weight) / whole, pairs[-1][1] / whole)


def _walk(start: Landing, keeper: Keeper) -> Iterator[tuple[float, float]]:
    """The stored weight and what is kept beside it, after each update; the arithmetic of `mpkit.optim`."""
    fmt, weight, rest = start.fmt, start.weight, 0.0
    dice = random.Random(f"lot {weight.hex()} {start.update.hex()} {fmt.name}")  # a text: the same on every machine
    while True:
        if keeper == "nearest":
            weight = nearest(weight + start.update, fmt)
        elif keeper == "stochastic":
            weight = _by_lot(weight + start.update, fmt, dice.random())
        else:  # a master is the weight and all of the rest, Kahan keeps of the rest what the format can hold
            total = nearest(nearest(weight + rest, FP32) + start.update, FP32)
            weight = nearest(total, fmt)
            rest = total - weight if math.isfinite(weight) else 0.0
            rest = nearest(rest, fmt) if keeper == "Kahan" else rest
        yield weight, rest


def _by_lot(x: float, fmt: FloatFormat, draw: float) -> float:
    """One of the neighbours of `x`, the upper one if `draw` (0 to 1) is below its chance."""
    if not math.isfinite(x):
        return x
    low, high = neighbours(x, fmt)
    return nearest(high if draw * (high - low) < x - low else low, fmt)
