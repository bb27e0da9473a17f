"""Did anything leave the format? One flag for the training loop (`found_inf`), exact counts for people (`tally`)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from mpkit.extremes import by_kind, extremes, memory_of, require_floating
from mpkit.formats import FloatFormat, require_format
from mpkit.unwatched import unwatched

# Blocks of this many values stay in a core's cache, so that six comparisons read memory once.
BLOCK = 2**17


@dataclass(frozen=True, repr=False)
class RangeReport:
    """Where the elements of one tensor land in `format` under round to nearest even.

    The seven counts from `zeros` to `nan_count` add up to `total`:
    `flushed_count`: finite, not zero, |x| <= format.flush_at, so it becomes 0.
    `subnormal_count`: above flush_at and, before rounding, below format.smallest_normal.
    `overflowed_count`: finite, but it rounds beyond format.max.
    `inf_count`, `nan_count`: already Inf or NaN in the input.
    `amax` is the largest finite |x| (0.0 if there is none).
    """

    format: FloatFormat
    total: int
    zeros: int
    flushed_count: int
    subnormal_count: int
    normal_count: int
    overflowed_count: int
    inf_count: int
    nan_count: int
    amax: float

    @property
    def flushed(self) -> float:
        """Share of the non-zero elements that become 0; 0.0 if there are none."""
        return self._share(self.flushed_count)

    @property
    def subnormal(self) -> float:
        """Share of the non-zero elements that keep only part of their precision."""
        return self._share(self.subnormal_count)

    @property
    def overflowed(self) -> float:
        """Share of the non-zero elements that are finite and too large for the format."""
        return self._share(self.overflowed_count)

    @property
    def nonfinite(self) -> float:
        """Share of the non-zero elements that were Inf or NaN before any rounding."""
        return self._share(self.inf_count + self.nan_count)

    @property
    def headroom_bits(self) -> float:
        """How often `amax` can be doubled before it passes format.max: log2(max / amax); Inf if amax is 0."""
        return math.log2(self.format.max) - math.log2(self.amax) if self.amax else math.inf

    def __add__(self, other: RangeReport) -> RangeReport:
        """The report of both tensors together. ValueError if they were held against different formats."""
        if other.format != self.format:
            raise ValueError(f"a report for {self.format} and one for {other.format} cannot be added; use one format.")
        mine, theirs = vars(self), vars(other)
        counts = {name: mine[name] + theirs[name] for name in mine if name not in ("format", "amax")}
        return RangeReport(format=self.format, amax=max(self.amax, other.amax), **counts)

    def _share(self, count: int) -> float:
        return count / max(self.total - self.zeros, 1)

    def __str__(self) -> str:
        rare = [f", {n:,} {name}" for n, name in ((self.inf_count, "Inf"), (self.nan_count, "NaN")) if n]
        if self.amax:
            size = f"largest {self.amax:.1e}, {self.headroom_bits:.1f} bits of headroom"
        else:
            size = "no finite value but zero"
        return (
            f"{self.format}: {100 * self.flushed:.1f} % flushed, {100 * self.subnormal:.1f} % subnormal, "
            f"{self.overflowed_count:,} overflowed{''.join(rare)} of {self.total - self.zeros:,} non-zero ({size})"
        )

    __repr__ = __str__


@unwatched
def found_inf(tensors: Iterable[Tensor | None]) -> Tensor:
    """1.0 if any element of any tensor is Inf or NaN, else 0.0.

    One pass over the memory, no copy to the host, and the inputs stay as they are.

    Args:
        tensors: floating-point tensors of any shape, stride, dtype (float8 too), sparse or dense; or one tensor.
            None is skipped, so `found_inf(p.grad for p in model.parameters())` works.

    Returns:
        0-dim float32 tensor on the device of the first tensor; on the CPU if there is none.

    Raises:
        TypeError: something is not a floating-point tensor.
    """
    given = [tensors] if isinstance(tensors, Tensor) else [t for t in tensors if t is not None]
    every = [memory_of(tensor, f"tensor {place}") for place, tensor in enumerate(given)]
    values = [x for x in every if x.numel()]
    home = given[0].device if given else torch.device("cpu")
    groups = [[values[place] for place in places] for places in by_kind(values)]
    flags = [torch.stack(extremes(group)).isfinite().all().to(home) for group in groups]
    return torch.stack(flags).all().logical_not().float() if flags else torch.zeros((), device=home)


@unwatched
def tally(x: Tensor, fmt: FloatFormat) -> RangeReport:
    """Count exactly what rounding `x` to `fmt` would lose. Waits for the device.

    The comparisons are made on bit patterns, which are ordered like |x|. So no threshold is rounded: FP32's flush_at,
    2^-150, does not exist in float32, and BF16's, 2^-134, is a subnormal there that some devices treat as 0.

    Args:
        x: floating-point tensor of any shape and dtype; float64 is not rounded to float32 first.
        fmt: the format to look through, such as `mpkit.FP16`.

    Raises:
        TypeError: `fmt` is not a FloatFormat, or `x` is not a floating-point tensor.
    """
    fmt = require_format(fmt)
    require_floating(x, "x")
    flat = x.detach().to_dense().reshape(-1)
    flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    integer = torch.int32 if flat.dtype == torch.float32 else torch.int64
    cuts = _cuts(fmt, flat.dtype)
    below = [0] * len(cuts)
    largest = 0
    for block in torch.split(flat, BLOCK if flat.device.type == "cpu" else flat.numel()) if flat.numel() else ():
        codes = block.view(integer) & torch.iinfo(integer).max  # all but the sign bit
        below = [old + new for old, new in zip(below, _count_below(codes, cuts), strict=True)]
        largest = max(largest, _largest_below(codes, cuts[-2]))  # below the code of Inf
    zeros, flushed, subnormal, normal, overflowed, inf, nan = (b - a for a, b in pairwise([0, *below, flat.numel()]))
    amax = torch.tensor(largest, dtype=integer).view(flat.dtype).item()
    return RangeReport(fmt, flat.numel(), zeros, flushed, subnormal, normal, overflowed, inf, nan, amax)


def _count_below(codes: Tensor, cuts: list[int]) -> list[int]:
    """How many codes lie below each cut. Most cuts lie outside the codes' range and cost nothing."""
    low, high = (int(extreme) for extreme in torch.aminmax(codes))
    scratch = torch.empty_like(codes)  # comparing into integers and adding them up is faster than into bools
    return [
        codes.numel() if high < cut else 0 if low >= cut else int(torch.lt(codes, cut, out=scratch).sum())
        for cut in cuts
    ]


def _largest_below(codes: Tensor, limit: int) -> int:
    """The largest code below `limit`, or 0."""
    high = int(codes.max())
    return high if high < limit else int(codes.masked_fill(codes >= limit, 0).max())


def _cuts(fmt: FloatFormat, dtype: torch.dtype) -> list[int]:
    """The first bit pattern of `dtype` that is not 0, not flushed, normal, overflowed, Inf, NaN; in this order."""
    infinity = _first_code(math.inf, dtype)
    return [
        1,
        _first_code(fmt.flush_at, dtype, beyond=True),
        _first_code(fmt.smallest_normal, dtype),
        min(_first_code(fmt.overflow_at, dtype, beyond=not fmt.midpoint_overflows), infinity),
        infinity,
        infinity + 1,
    ]


def _first_code(value: float, dtype: torch.dtype, beyond: bool = False) -> int:
    """Bit pattern of the first non-negative number of `dtype` that is >= `value`, or > `value` if `beyond`."""
    nearest = torch.tensor(value, dtype=torch.float64).to(dtype)
    code = int(nearest.view(torch.int32 if dtype == torch.float32 else torch.int64))
    return code + (nearest.item() < value or (beyond and nearest.item() == value))
