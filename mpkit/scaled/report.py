"""What a scaled format does to a tensor, in the numbers that people ask for."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mpkit.scaled.blocks import as_blocks
from mpkit.scaled.quantize import dividing, quantize
from mpkit.scaled.scaled_format import ScaledFormat
from mpkit.unwatched import unwatched


@dataclass(frozen=True)
class ScaledReport:
    """Shares of the non-zero elements, and the error.

    Attributes:
        saturated: share whose quotient lies beyond the format's largest value by more than rounding.
        blocks_saturated: share of the blocks in which that befalls at least one element.
        flushed: share that becomes 0.
        error: length of the error divided by the length of the tensor (both Euclidean); 0 for an exact one.
        bits: bits per value, scales included.
    """

    saturated: float
    blocks_saturated: float
    flushed: float
    error: float
    bits: float

    @property
    def sqnr(self) -> float:
        """Signal-to-quantisation-noise ratio in dB, 20 log10 (1 / error); Inf if nothing is lost, NaN if `error` is."""
        return math.inf if self.error == 0 else -20 * math.log10(self.error)


@unwatched
def report(x: Tensor, fmt: ScaledFormat, amax: Tensor | None = None) -> ScaledReport:
    """What `scaled_cast(x, fmt, amax=amax)` loses. Waits for the device."""
    small = quantize(x, fmt, amax=amax)
    back = small.dequantize()
    quotients = as_blocks(x.detach().float(), fmt.block) / dividing(small.scales)[:, None, :, None]
    beyond = quotients.abs() > fmt.values.overflow_at
    nonzero = x != 0
    count = max(int(nonzero.sum()), 1)
    norm = torch.linalg.vector_norm
    length = float(norm(x.detach().double()))
    columns = x.shape[-1] if x.dim() else 1
    return ScaledReport(
        saturated=int(beyond.sum()) / count,
        blocks_saturated=float(beyond.any(3).any(1).double().mean()) if beyond.numel() else 0.0,
        flushed=int((nonzero & (back == 0)).sum()) / count,
        error=float(norm(back.double() - x.detach().double())) / length if length else 0.0,
        bits=fmt.bits_per_value(x.numel() // max(columns, 1), columns) if x.numel() else float(fmt.values.bits),
    )
