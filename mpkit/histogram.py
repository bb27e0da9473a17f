"""Where the magnitudes of a tensor lie, binade by binade.

A loss scale of 2^k adds k to every exponent and changes nothing else. So one histogram answers every "what if the
scale were …" by shifting its bins, without a second look at the tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mpkit.extremes import require_floating
from mpkit.formats import FloatFormat, require_format
from mpkit.unwatched import unwatched

# Measured on 4M values, one thread: blocks of this size and scratch used again take 3x of x.clone(), no blocks 7x.
BLOCK = 2**17
LOWEST = -127  # the exponent under which float32's subnormals are counted


@dataclass(frozen=True, eq=False)
class ExponentHistogram:
    """Counts per binade of a float32 tensor.

    `counts` (int64, 255 bins, on the CPU): bin i holds 2^k <= |x| < 2^(k+1) with k = log2_edges[i], from -127 to 127.
    The first bin holds all subnormals of float32, which reach from 2^-126 down to 2^-149.
    `zeros`, `inf` and `nan` are counted apart.
    """

    counts: Tensor
    zeros: int
    inf: int
    nan: int

    @classmethod
    @unwatched
    def of(cls, x: Tensor) -> ExponentHistogram:
        """Count `x`: floating-point, any shape, dtype and device. float64 is rounded to float32 first.

        Raises:
            TypeError: `x` is not a floating-point tensor.
        """
        require_floating(x, "x")
        bits = x.detach().to_dense().reshape(-1).float().view(torch.int32)
        size = BLOCK if bits.device.type == "cpu" else max(bits.numel(), 1)
        shifted = torch.empty(min(size, bits.numel()), dtype=torch.int32, device=bits.device)
        fields = torch.empty_like(shifted, dtype=torch.uint8)
        counts = torch.zeros(256, dtype=torch.int64, device=bits.device)
        zeros = nan = 0
        for block in torch.split(bits, size):
            n = block.numel()
            # The conversion to uint8 keeps the low eight bits: the exponent field without the sign.
            fields[:n].copy_(torch.bitwise_right_shift(block, 23, out=shifted[:n]))
            found = torch.bincount(fields[:n], minlength=256)
            counts += found
            if found[0]:
                zeros += n - int(torch.count_nonzero(block & 0x7FFFFFFF))
            if found[255]:
                nan += int(torch.count_nonzero((block & 0x7FFFFFFF) > 0x7F800000))
        counts[0] -= zeros
        return cls(counts[:255].cpu(), zeros, int(counts[255]) - nan, nan)

    @property
    def log2_edges(self) -> Tensor:
        """Lower edge of each bin as an exponent of 2: int64, -127 … 127."""
        return torch.arange(LOWEST, LOWEST + len(self.counts))

    @property
    def nonzero(self) -> int:
        """Number of elements that are not zero; Inf and NaN are among them."""
        return int(self.counts.sum()) + self.inf + self.nan

    def lost(self, fmt: FloatFormat, log2_scale: int = 0) -> tuple[float, float, float]:
        """Shares (flushed, subnormal, overflowed) of the non-zero elements if x * 2^log2_scale were rounded to `fmt`.

        Resolution: whole binades. A magnitude of exactly fmt.flush_at counts as subnormal, though it is flushed; one
        between fmt.overflow_at and the next power of two as normal, though it overflows (FP16: 65520 to 65536,
        E4M3: 464 to 512). Everything else is exact; `mpkit.tally` has no exceptions. Float32's own subnormals move
        as if they all lay in [2^-127, 2^-126). Inf and NaN are in the denominator only, as in RangeReport.

        Raises:
            TypeError: `fmt` is not a FloatFormat, or `log2_scale` is not a whole number.
        """
        fmt = require_format(fmt)
        if not _whole(log2_scale):
            raise TypeError(f"log2_scale={log2_scale!r} is not a whole number; a scale of 2^k shifts whole bins by k.")
        exponents = self.log2_edges + int(log2_scale)
        flushed = exponents < int(math.log2(fmt.flush_at))
        overflowed = exponents > fmt.max_exponent
        subnormal = (exponents < fmt.min_exponent) & ~flushed
        total = max(self.nonzero, 1)
        shares = [int(self.counts[zone].sum()) / total for zone in (flushed, subnormal, overflowed)]
        return shares[0], shares[1], shares[2]

    def __add__(self, other: ExponentHistogram) -> ExponentHistogram:
        """The histogram of both tensors together."""
        if not isinstance(other, ExponentHistogram):
            return NotImplemented
        return ExponentHistogram(
            self.counts + other.counts, self.zeros + other.zeros, self.inf + other.inf, self.nan + other.nan
        )

    def __repr__(self) -> str:
        used = self.log2_edges[self.counts > 0].tolist()
        reach = f"from 2^{used[0]} to 2^{used[-1] + 1}" if used else "no finite value"
        rest = f"{self.zeros:,} zeros, {self.inf:,} Inf, {self.nan:,} NaN"
        return f"ExponentHistogram({self.nonzero:,} non-zero, {reach}; {rest})"


def _whole(value: object) -> bool:
    try:
        return bool(int(value) == value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):  # a text, None, NaN, Inf
        return False
