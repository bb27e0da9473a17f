"""Matrices in scaled formats, multiplied by the hardware: torch.nn.functional.scaled_mm."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import ScalingType, SwizzleType

from mpkit.formats import E2M1, E4M3, FloatFormat
from mpkit.policy.kernels import ANYWHERE, scaling_of
from mpkit.rounding import Rounding
from mpkit.scaled.layouts import e2m1_codes, in_tiles, two_a_byte
from mpkit.scaled.quantize import quantize
from mpkit.scaled.scaled_format import ScaledFormat

GROUP, BLOCKS = 16, 128  # the kernels take whole groups of so many values; where scales belong to blocks, of so many


class Matrix(NamedTuple):
    """A matrix in a scaled format, filled up with zeros to whole groups.

    Attributes:
        values: in the format's dtype; for E2M1, which has none that can be turned, its codes, one a byte.
        scales: float32, (rows of blocks, columns of blocks).
        whole: the one scale above them in NVFP4, float32 without dimensions, which `scales` include; else None.
        fmt: the format.
        shape: without what fills it up.
    """

    values: Tensor
    scales: Tensor
    whole: Tensor | None
    fmt: ScaledFormat
    shape: tuple[int, int]


def rounded(x: Tensor, fmt: ScaledFormat, rounding: Rounding) -> tuple[Tensor, Tensor, Tensor | None]:
    """`Matrix.values`, `Matrix.scales` and `Matrix.whole` of a matrix that is filled up."""
    assert isinstance(fmt.values, FloatFormat)
    small = quantize(x, fmt, rounding)
    values = e2m1_codes(small.values) if fmt.values == E2M1 else small.values.to(fmt.values.dtype)
    return values, small.scales, small.whole


Rounded = Callable[[Tensor, ScaledFormat, Rounding], tuple[Tensor, Tensor, Tensor | None]]


class Native:
    """Matrices for torch's scaled products, and these. `rounded` may be given compiled."""

    def __init__(self, rounded: Rounded = rounded) -> None:
        self._rounded = rounded

    def operand(self, x: Tensor, fmt: ScaledFormat, rounding: Rounding) -> Matrix:
        """`x` divided by its scales, in the format's dtype."""
        high, wide = (BLOCKS if (side or 1) > 1 else GROUP for side in fmt.block)
        filled = F.pad(x, (0, -x.shape[1] % wide, 0, -x.shape[0] % high))
        values, scales, whole = self._rounded(filled, fmt, rounding)
        return Matrix(values.contiguous(), scales, whole, fmt, (x.shape[0], x.shape[1]))  # a compiler may turn them

    def turned(self, operand: Matrix) -> Matrix:
        """Its transpose, in the order that the kernel reads."""
        values, scales = operand.values.t().contiguous(), operand.scales.t()
        return Matrix(values, scales, operand.whole, operand.fmt, operand.shape[::-1])

    def product(self, a: Matrix, b: Matrix, dtype: torch.dtype, backward: bool) -> Tensor:
        """a b^T. Forward sums under scales by tensor or row stay in the tensor cores' short accumulators ("fast"), and
        all others are added up in FP32 now and then, both as in Transformer Engine."""
        if not (a.values.numel() and b.values.numel()):
            return a.scales.new_zeros(a.shape[0], b.shape[0], dtype=dtype)
        left, left_scales, left_kind, left_order = _arguments(a)
        right, right_scales, right_kind, right_order = _arguments(b)
        if scaling_of(a.fmt) in ANYWHERE:  # the older call: the newer one of torch 2.11 has no CPU
            full = torch._scaled_mm(left, right.t(), left_scales[0], right_scales[0].t(), out_dtype=dtype,
                                    use_fast_accum=not backward)  # fmt: skip
        else:
            full = F.scaled_mm(left, right.t(), left_scales, left_kind, right_scales, right_kind, left_order,
                               right_order, output_dtype=dtype)  # fmt: skip
        return full[: a.shape[0], : b.shape[0]]


def _arguments(m: Matrix) -> tuple[Tensor, list[Tensor], list[ScalingType], list[SwizzleType]]:
    """Values, scales, what the scales are, and their order in memory, as the kernel for the format takes them."""
    scaling, plain, tiles = scaling_of(m.fmt), SwizzleType.NO_SWIZZLE, SwizzleType.SWIZZLE_32_4_4
    assert scaling is not None
    scales = m.scales
    if scaling is ScalingType.BlockWise1x16:
        assert m.whole is not None
        if m.fmt.block == (16, 16):
            scales = scales.repeat_interleave(16, 0)
        codes = in_tiles((scales / m.whole).to(E4M3.dtype))
        return two_a_byte(m.values), [codes, m.whole], [scaling, ScalingType.TensorWise], [tiles, plain]
    if scaling is ScalingType.BlockWise1x32:
        return m.values, [in_tiles(scales.to(torch.float8_e8m0fnu))], [scaling], [tiles]
    if scaling is ScalingType.BlockWise1x128:
        scales = scales.t().contiguous().t()
    elif scaling is ScalingType.BlockWise128x128:  # along its rows in whole groups of four
        scales = F.pad(scales, (0, -scales.shape[1] % 4)).contiguous().t()
    elif scaling is ScalingType.TensorWise:
        scales = scales.view(())
    return m.values, [scales], [scaling], [plain]
