"""What a scaled format does beside an outlier: the numbers of the granularity panel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mpkit.rounding import Rounding
from mpkit.scaled import ScaledFormat, report, scaled_cast
from mpkit.scaled.blocks import as_blocks, from_blocks

DRAWS = 64  # of stochastic rounding, for its mean


@dataclass(frozen=True, eq=False)
class Effect:
    """A matrix before and after. "The others" are all columns but those of the outlier.

    Attributes:
        error: of the others, length of the error divided by their length.
        spread_error: the same divided by the length of what sets the others apart, their distance from their mean.
        flushed: share of the others that becomes 0.
        saturated: share of all values that are cut off; `groups_saturated`: of the groups in which one is.
        peak: by what share the largest magnitude of a group changes, mean over the groups; below 0 it shrinks.
        levels: how many different values the others of a group have afterwards, mean over the groups.
        members: how many others a group has.
        bits: bits per value, scales included.
    """

    before: Tensor
    after: Tensor
    error: float
    spread_error: float
    flushed: float
    saturated: float
    groups_saturated: float
    peak: float
    levels: float
    members: float
    bits: float


def effect(x: Tensor, fmt: ScaledFormat, outlier: Sequence[int] = (), rounding: Rounding = "nearest") -> Effect:
    """Cast `x` and count. Stochastic rounding draws from a seed of its own."""
    return about(x, cast_repeatably(x, fmt, rounding), fmt, outlier)


def about(x: Tensor, after: Tensor, fmt: ScaledFormat, outlier: Sequence[int] = ()) -> Effect:
    """The numbers of one cast that was made: `after` is what became of `x` in `fmt`."""
    others = torch.ones(x.shape[1], dtype=torch.bool)
    others[[column for column in outlier if column < x.shape[1]]] = False
    kept, found, whole = x[:, others].double(), after[:, others].double(), report(x, fmt)
    off, apart = float((found - kept).norm()), float((kept - kept.mean()).norm())
    levels, members = _levels(torch.where(others, after, torch.nan), fmt)
    return Effect(
        before=x,
        after=after,
        error=off / float(kept.norm()),
        spread_error=off / apart if apart > 1e-9 * float(kept.norm()) else float("nan"),
        flushed=float(((found == 0) & (kept != 0)).double().mean()),
        saturated=whole.saturated,
        groups_saturated=whole.blocks_saturated,
        peak=_peak(x, after, fmt),
        levels=levels,
        members=members,
        bits=whole.bits,
    )


def mean_of_draws(x: Tensor, fmt: ScaledFormat) -> Tensor:
    """The mean of many stochastic casts. Copies of `x` below each other have its scales, however they are grouped."""
    if fmt.block[0] is not None and x.shape[0] % fmt.block[0]:
        raise ValueError(f"{x.shape[0]} rows do not fit blocks of {fmt.block[0]}; their copies would share scales.")
    return cast_repeatably(x.repeat(DRAWS, 1), fmt, "stochastic").view(DRAWS, *x.shape).mean(0)


def cast_repeatably(x: Tensor, fmt: ScaledFormat, rounding: Rounding) -> Tensor:
    """`scaled_cast`; torch's own random numbers stay where they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return scaled_cast(x, fmt, rounding)


def _levels(after: Tensor, fmt: ScaledFormat) -> tuple[float, float]:
    """Different values a group, and values a group, without NaN; groups that have none are left out."""
    ordered = np.sort(_groups(after, fmt).numpy(), axis=1)  # NaN goes last
    members = (~np.isnan(ordered)).sum(1)
    different = 1 + (np.diff(ordered, axis=1) > 0).sum(1)
    return float(different[members > 0].mean()), float(members[members > 0].mean())


def peaks(one: Effect, fmt: ScaledFormat) -> Tensor:
    """The matrix's shape, filled with the share by which the largest magnitude of each group changes."""
    blocks = as_blocks(one.before, fmt.block)
    change = _peaks(one.before, one.after, fmt).float().view(blocks.shape[0], 1, blocks.shape[2], 1)
    return from_blocks(change.expand_as(blocks), one.before)


def _peak(x: Tensor, after: Tensor, fmt: ScaledFormat) -> float:
    return float(_peaks(x, after, fmt).nanmean())


def _peaks(x: Tensor, after: Tensor, fmt: ScaledFormat) -> Tensor:
    """By group; NaN for one of zeros."""
    before, found = _groups(x, fmt), _groups(after, fmt)
    at = before.abs().argmax(1, keepdim=True)
    largest = before.gather(1, at).abs().double()
    return ((found.gather(1, at).abs().double() - largest) / largest)[:, 0]


def _groups(x: Tensor, fmt: ScaledFormat) -> Tensor:
    """A row for each group of values that share a scale."""
    return as_blocks(x, fmt.block).transpose(1, 2).flatten(2).flatten(0, 1)
