"""What one cast did to a tensor: the shares that were lost, and how large the rounding errors are."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mpkit import FloatFormat, cast
from mpkit.rounding import Overflow, Rounding

SEED = 0  # of the random bits of stochastic rounding: the same values round the same way again


@dataclass(frozen=True)
class CastEffect:
    """Values before and after a cast, flat, in float64, and what became of them.

    `flushed`, `subnormal`, `overflowed`: shares (0 to 1) of the values that were finite and not zero. Flushed values
    became 0. Subnormal ones lie below the smallest normal number and did not become 0. Overflowed ones are of two
    kinds: `nonfinite` ones became Inf or NaN, and `cut` ones the largest value, as directed rounding does to them
    towards zero even where overflow gives Inf.
    `rms`: root mean square of the relative errors of the values that stayed normal; NaN if there are none.
    `drift`: mean of (after - before), divided by the mean of |before|; over the values that did not overflow.
    `growth`: mean of |after| divided by mean of |before|, minus 1; over the same values.
    """

    format: FloatFormat
    rounding: Rounding
    overflow: Overflow
    before: Tensor
    after: Tensor
    flushed: float
    subnormal: float
    nonfinite: float
    cut: float
    rms: float
    drift: float
    growth: float

    @property
    def overflowed(self) -> float:
        """Share of the values that were too large, whatever became of them."""
        return self.nonfinite + self.cut


def effect(x: Tensor, fmt: FloatFormat, rounding: Rounding = "nearest", overflow: Overflow = "inf") -> CastEffect:
    """Cast `x` (floating point, any shape) and measure what that did to its finite, non-zero values.

    Args:
        x: the values; zeros, Inf and NaN are left out.
        fmt, rounding, overflow: as for `mpkit.cast`. Stochastic rounding uses a fixed seed.

    Raises:
        ValueError: no value is left, or an unknown rounding or overflow.
        TypeError: `fmt` is no format, or `x` is not floating point.
    """
    generator = torch.Generator(device=x.device).manual_seed(SEED) if rounding == "stochastic" else None
    after = cast(x.detach(), fmt, rounding, overflow, generator).flatten().double()
    before = x.detach().flatten().double()
    used = before.isfinite() & (before != 0)
    before, after = before[used], after[used]
    if before.numel() == 0:
        raise ValueError(f"{x.numel()} values came, and none of them is finite and not zero; there is nothing to cast.")
    size = before.abs()
    flushed = after == 0
    nonfinite = ~after.isfinite()
    cut = (size > fmt.max) & (after.abs() == fmt.max) & ~_below_the_edge(size, fmt)
    overflowed = nonfinite | cut
    subnormal = ~flushed & (size < fmt.smallest_normal)
    normal = ~flushed & ~overflowed & ~subnormal
    kept, was = after[~overflowed], before[~overflowed]
    mean_size = float(was.abs().mean()) if was.numel() else math.nan
    return CastEffect(
        format=fmt,
        rounding=rounding,
        overflow=overflow,
        before=before,
        after=after,
        flushed=_share(flushed),
        subnormal=_share(subnormal),
        nonfinite=_share(nonfinite),
        cut=_share(cut),
        rms=float(((after - before) / before)[normal].square().mean().sqrt()),
        drift=float((kept - was).mean()) / mean_size if was.numel() else math.nan,
        growth=float(kept.abs().mean()) / mean_size - 1 if was.numel() else math.nan,
    )


def largest_error(fmt: FloatFormat, rounding: Rounding, size: float) -> float:
    """Bound of the relative error at a magnitude: half a spacing if rounded to nearest, else a whole one.

    What is rounded to nearest or to zero becomes 0 at worst, which is an error of 1.
    """
    bound = fmt.spacing(size) / size * (0.5 if rounding == "nearest" else 1.0)
    return min(bound, 1.0) if rounding in ("nearest", "zero") else bound


def _below_the_edge(size: Tensor, fmt: FloatFormat) -> Tensor:
    """Magnitudes that rounding to nearest brings back to the largest value: nothing overflows there."""
    return size < fmt.overflow_at if fmt.midpoint_overflows else size <= fmt.overflow_at


def _share(mask: Tensor) -> float:
    return float(mask.double().mean())
