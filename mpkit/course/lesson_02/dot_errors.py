"""How wrong dot products of random numbers are, for one way to add up."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mpkit import FloatFormat, cast
from mpkit.course.arithmetic.accumulate import How, dot

SEEDS = range(5)
PRODUCTS = 100  # of each seed


@dataclass(frozen=True)
class DotErrors:
    """Errors of many dot products, one value a seed, (seeds,): `size` is the root mean square, `bias` the mean.

    Both are shares of the typical result, its root mean square; the truth is FP64's for the same rounded operands.
    """

    size: Tensor
    bias: Tensor


def dot_errors(draw: Callable[..., Tensor], length: int, fmt: FloatFormat, how: How) -> DotErrors:
    """Multiply and add up `length` numbers from `draw` (`torch.rand` or `torch.randn`) in `fmt`, `how` as in `dot`."""
    a, b = (
        torch.stack([draw(PRODUCTS, length, generator=torch.Generator().manual_seed(10 * s + side)) for s in SEEDS])
        for side in (0, 1)
    )
    true = (cast(a, fmt).double() * cast(b, fmt).double()).sum(-1)
    off, typical = dot(a, b, fmt, how) - true, true.square().mean(-1).sqrt()
    return DotErrors(off.square().mean(-1).sqrt() / typical, off.mean(-1) / typical)
