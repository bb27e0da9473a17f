"""Divide by the scale, round to the small format; multiply back to go on in float32."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function

from mpkit.casting import asked_by_a_mode, cast, in_a_transform, require_tensor
from mpkit.formats import E4M3, FP32, FloatFormat
from mpkit.rounding import Rounding
from mpkit.scaled.blocks import as_blocks, from_blocks, largest_magnitudes, strips
from mpkit.scaled.integers import IntFormat
from mpkit.scaled.scaled_format import ScaledFormat
from mpkit.scaled.scales import divided, scale_of
from mpkit.unwatched import unwatched


@dataclass(frozen=True, eq=False)
class Scaled:
    """What a scaled format keeps of a tensor.

    Attributes:
        values: the small values as float32, in the tensor's shape; each is a value of `fmt.values`.
        scales: float32, (rows of blocks, columns of blocks); what to multiply a block's values with.
        fmt: the `ScaledFormat`.
        whole: with `fmt.two_level` the one scale of the tensor that `scales` include, float32 without dimensions.
    """

    values: Tensor
    scales: Tensor
    fmt: ScaledFormat
    whole: Tensor | None = None

    @unwatched
    def dequantize(self) -> Tensor:
        """The tensor that the small values stand for: values times scales, float32; beyond its end, its largest."""
        blocks = as_blocks(self.values, self.fmt.block) * self.scales[:, None, :, None]
        return from_blocks(blocks.clamp_(-FP32.max, FP32.max), self.values)


@unwatched
def quantize(x: Tensor, fmt: ScaledFormat, rounding: Rounding = "nearest", amax: Tensor | None = None) -> Scaled:
    """Small values and scales of `x` (any floating dtype, shape and device); what is too large saturates.

    Args:
        x: the tensor; its last dimension gives the columns of the blocks.
        fmt: the scaled format, such as `mpkit.scaled.MXFP8`.
        rounding: of the values, as in `mpkit.cast`; "nearest" is to even. "stochastic" is unbiased where nothing
            saturates. In NVFP4 the largest of a block may, since its scale is rounded to nearest in E4M3: of normal
            values it comes 1 % too small on average.
        amax: largest magnitude to scale by instead of x's own, for example of the steps before (`DelayedAmax`); it
            must broadcast to the grid of blocks. What is larger saturates. Where it is 0, nothing was seen, and x's own
            counts.

    A block with Inf or NaN becomes NaN as a whole; under another `amax` only what is NaN stays NaN, and Inf saturates.
    A block of zeros stays zero. The arithmetic is float32. No wait for the device, no gradient.

    Raises:
        TypeError: `fmt` is no ScaledFormat, or `x` no floating-point tensor.
    """
    _check(x, fmt)
    blocks = as_blocks(x.detach().float(), fmt.block)
    scales, whole = scales_of(blocks, fmt, amax)
    return Scaled(from_blocks(_round_blocks(blocks, scales, fmt, rounding), x), scales[:, 0, :, 0], fmt, whole)


def scaled_cast(x: Tensor, fmt: ScaledFormat, rounding: Rounding = "nearest", amax: Tensor | None = None) -> Tensor:
    """Round `x` to a scaled format and back; the result keeps x's shape and dtype. As `mpkit.cast` does it for others.

    Arguments and errors are those of `quantize`; what rounds up to beyond x's dtype becomes its largest value. The
    gradient passes through unchanged (straight-through; Bengio et al. 2013, arXiv 1308.3432, section 4), also where a
    value saturated; so does the tangent of torch.func.jvp. Under vmap each example has scales of its own. Compiled for
    a GPU, a division by a scale that is no power of two may be off in its last bit, and a quotient next to a tie go the
    other way.
    """
    _check(x, fmt)
    if asked_by_a_mode():
        return handle_torch_function(scaled_cast, (x,), x, fmt, rounding, amax)
    if (x.requires_grad and torch.is_grad_enabled()) or in_a_transform():
        function = _Transformed if in_a_transform() else _StraightThrough
        return function.apply(x, fmt, rounding, amax)  # type: ignore[no-any-return, no-untyped-call]
    blocks = as_blocks(x.detach().float(), fmt.block)
    scales, _ = scales_of(blocks, fmt, amax)
    return from_blocks(_round_blocks(blocks, scales, fmt, rounding, torch.finfo(x.dtype).max), x).to(x.dtype)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *how: Any) -> Tensor:
        return scaled_cast(x.detach(), *how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], None, None, None


class _Transformed(_StraightThrough):
    """The same as torch.func's grad, vmap and jvp ask for it."""

    @staticmethod
    def forward(x: Tensor, *how: Any) -> Tensor:  # type: ignore[override]
        return scaled_cast(x.detach(), *how)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *given: Any) -> tuple[Tensor, int]:
        """Each example has scales of its own."""
        each = [
            [one if dim is None else one.select(dim, i) for one, dim in zip(given, in_dims, strict=True)]
            for i in range(info.batch_size)
        ]
        return torch.stack([scaled_cast(*arguments) for arguments in each]), 0

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return tangent.clone()


def scales_of(blocks: Tensor, fmt: ScaledFormat, amax: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """The scale of each of `blocks`, float32, (rows of blocks, 1, columns of blocks, 1), and with `two_level` the
    tensor's own above them, which they include: of the blocks without Inf and NaN, as the others become NaN."""
    if amax is None:
        amax = largest_magnitudes(blocks)
    else:
        amax = amax.detach().to(blocks).broadcast_to(blocks.shape[0], blocks.shape[2])[:, None, :, None]
        if perhaps(amax == 0):
            amax = torch.where(amax == 0, largest_magnitudes(blocks), amax)
    if not (fmt.two_level and amax.numel()):
        return scale_of(amax, fmt.values.max, fmt.rule), None
    finite = amax.isfinite()
    whole = scale_of(torch.where(finite, amax, 0).amax(), fmt.values.max * E4M3.max, "exact")
    return torch.where(finite, cast(divided(amax, fmt.values.max) / whole, E4M3) * whole, torch.nan), whole


def dividing(scales: Tensor) -> Tensor:
    """What to divide by. A second-level scale may be 0, and brings all back to 0, whatever it was divided by."""
    return torch.where(scales == 0, torch.ones_like(scales), scales)


def perhaps(condition: Tensor) -> bool:
    """Is any of it true? Yes, too, where asking would wait for a device or break a graph."""
    return condition.device.type != "cpu" or torch.compiler.is_compiling() or bool(condition.any())


def _round_blocks(
    blocks: Tensor, scales: Tensor, fmt: ScaledFormat, rounding: Rounding, limit: float | None = None
) -> Tensor:
    """The blocks' small values, or with `limit` what they stand for, up to that magnitude, strip by strip."""
    # A quotient of the largest values rounds up to beyond x's dtype: 255.9 * 2^8 becomes 2^16, and FP16 ends before.
    beyond = limit is not None and perhaps(scales > limit / fmt.values.max / 2)
    result = torch.empty_like(blocks, memory_format=torch.contiguous_format)
    for source, divisor, factor, target in strips(blocks, dividing(scales), scales, result):
        torch.div(source, divisor, out=target)
        values = _round(target, fmt.values, rounding)
        if limit is None:
            target.copy_(values)
        else:
            torch.mul(values, factor, out=target)
            if beyond:
                target.clamp_(-limit, limit)
    return result


def _round(quotients: Tensor, fmt: FloatFormat | IntFormat, rounding: Rounding) -> Tensor:
    """To the format's values, saturating; NaN stays NaN."""
    if isinstance(fmt, FloatFormat):
        return cast(quotients, fmt, rounding, "saturate")
    return _to_integers(quotients, rounding).clamp_(-fmt.max, fmt.max)


def _to_integers(x: Tensor, rounding: Rounding) -> Tensor:
    if rounding == "stochastic":
        below = x.floor()
        return below.add_(torch.rand_like(x) < x - below)  # not floor(x + r), whose sum rounds up beside an integer
    ways = {"nearest": torch.round, "zero": torch.trunc, "up": torch.ceil, "down": torch.floor}
    if rounding not in ways:
        raise ValueError(f"rounding={rounding!r} is unknown; use one of {', '.join((*ways, 'stochastic'))}.")
    return ways[rounding](x)


def _check(x: Any, fmt: Any) -> None:
    if not isinstance(fmt, ScaledFormat):
        raise TypeError(
            f"a scaled format is asked for, but {fmt!r} ({type(fmt).__name__}) came; use mpkit.scaled.MXFP8 or its "
            "like, or mpkit.scaled.ScaledFormat(...)."
        )
    require_tensor(x)
