"""The arithmetic of rounding: divide by the spacing, round to an integer, multiply back.

All three steps are exact except the rounding, because spacings are powers of two.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from mpkit.formats import FP16, TF32, FloatFormat

Rounding = Literal["nearest", "zero", "up", "down", "stochastic"]
Overflow = Literal["inf", "saturate", "raise"]

# A block of 2^18 float32 values and its scratch (1 MiB each) stay in a core's cache from the first pass to the last:
# under 4x of x.clone(), where whole tensors, which go out to memory in every pass, take 24x.
BLOCK = 2**18


def convert(x: Tensor, fmt: FloatFormat, overflow: Overflow) -> Tensor:
    """Let torch convert to the format's own dtype and back; the narrow copy never leaves the cache."""
    assert fmt.dtype is not None
    result, blocks = _blocks(x, 4 * BLOCK)  # two passes only, so larger blocks pay less for the calls
    for source, target in blocks:
        if overflow == "saturate":  # the largest value is its own rounding, so clamping first is enough
            source = torch.clamp(source, -fmt.max, fmt.max, out=target)
        target.copy_(source.to(fmt.dtype))
    return result


def by_half(x: Tensor) -> Tensor:
    """Round float32 to TF32, which has float16's precision: divided by its own power of two, a value is float16's task.

    The power stays at 2^-112 or more, so that TF32's subnormals, 2^-136 apart, meet float16's, 2^-24 apart.
    """
    power = _power_of_two(x, 2.0 ** (TF32.min_exponent - FP16.min_exponent), 2.0**TF32.max_exponent)
    quotient = torch.div(x, power, out=torch.empty(x.shape, dtype=torch.float16, device=x.device))
    return torch.mul(quotient, power, out=power)


def round_to(
    x: Tensor, fmt: FloatFormat, rounding: Rounding, generator: torch.Generator | None, overflow: Overflow
) -> Tensor:
    """Round `x` (float32 or float64, any shape) to `fmt`; the settings are those of `mpkit.cast`."""
    result, blocks = _blocks(x, BLOCK)
    for source, target in blocks:
        if overflow == "saturate":
            source = torch.clamp(source, -fmt.max, fmt.max, out=target)
        _round_block(source, target, fmt, rounding, generator, to_inf=fmt.has_inf and overflow != "saturate")
        if overflow != "saturate":
            _settle_overflow(target, source, fmt, rounding)
    return result


def _round_block(
    x: Tensor, out: Tensor, fmt: FloatFormat, rounding: Rounding, generator: torch.Generator | None, to_inf: bool
) -> None:
    """Divide, round, multiply; with `to_inf` what then reaches 2^(max_exponent + 1) becomes Inf."""
    zero = torch.full((), -0.0, dtype=x.dtype, device=x.device)  # what addcdiv adds: -0 + y is y, also for y = -0
    # Overflow without a comparison: multiplied by `room`, what is too large leaves the dtype too. It becomes Inf, and
    # dividing again does not bring it back. A comparison would cost one more pass.
    largest = 127 if x.dtype == torch.float32 else 1023
    room = 2.0 ** (largest - fmt.max_exponent) if to_inf else 1.0
    power = _power_of_two(x, 2.0**fmt.min_exponent, 2.0**fmt.max_exponent)
    if fmt.max_exponent + fmt.mantissa_bits <= 126:
        torch.addcdiv(zero, x, power, value=1 / fmt.epsilon, out=out)  # quotient and product in one pass
        _round_to_integer(out, rounding, generator)
        torch.addcmul(zero, out, power, value=fmt.epsilon * room, out=out)
    else:  # 8 exponent bits: there x / epsilon would leave float32, so divide by the power first
        torch.div(x, power, out=out).mul_(1 / fmt.epsilon)
        _round_to_integer(out, rounding, generator)
        out.mul_(fmt.epsilon * room).mul_(power)
    if room != 1.0:
        out.mul_(1 / room)


def _blocks(x: Tensor, size: int) -> tuple[Tensor, Iterable[tuple[Tensor, Tensor]]]:
    """An empty result of the shape of `x`, and pairs of a block of `x` and its place there.

    A GPU takes all at once, and so does a compiler, which makes one pass of all. The result is no view: autograd lets
    nobody change a custom function's output in place if it is one.
    """
    flat, result = x.contiguous().view(-1), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return result, [(flat, result.view(-1))]
    return result, zip(torch.split(flat, size), torch.split(result.view(-1), size), strict=True)


def _power_of_two(x: Tensor, least: float, most: float) -> Tensor:
    """The power of two at or below each |x|, but `least` or more and at most `most`.

    Between the smallest and the largest power of a format, its epsilon times that is the distance between neighbouring
    values there (one ulp).
    """
    integer, exponent_field = (
        (torch.int32, 0x7F800000) if x.dtype == torch.float32 else (torch.int64, 0x7FF0000000000000)
    )
    power = torch.bitwise_and(x.view(integer), exponent_field).view(x.dtype)  # the exponent bits alone, as a float
    return power.clamp_(least, most)


def _round_to_integer(q: Tensor, rounding: Rounding, generator: torch.Generator | None) -> None:
    if rounding == "nearest":
        q.round_()  # torch rounds halves to even
    elif rounding == "zero":
        q.div_(1, rounding_mode="trunc")  # torch's own trunc takes ten times as long on a CPU
    elif rounding == "up":
        q.ceil_()
    elif rounding == "down":
        q.floor_()
    else:
        _round_by_chance(q, generator)


def _round_by_chance(q: Tensor, generator: torch.Generator | None) -> None:
    """Round up, or down with a probability equal to the distance from above.

    That distance d and a random number from -1/2 to 1/2 together exceed 1/2 with probability d. The random numbers come
    in steps of 2^-16, so half a step less is asked for: that makes it d on average, and never where d is 0. From above,
    because that keeps the sign of what becomes zero: the ceiling of -0.3 is -0.
    """
    ceiling = q.ceil()
    bits = _random_bits(q.numel(), q.device, generator)
    torch.sub(ceiling, q, out=q).add_(bits, alpha=2.0**-16).gt_(0.5 - 2.0**-17)
    torch.sub(ceiling, q, out=q)


def _random_bits(count: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """So many random int16, -2^15 … 2^15 - 1. Four come from one 64-bit draw, which is most of the cost."""
    if torch.compiler.is_compiling() and generator is None:  # a kernel draws for each value where it rounds it
        return torch.randint(-(2**15), 2**15, (count,), dtype=torch.int16, device=device)
    draws = torch.empty((count + 3) // 4, dtype=torch.int64, device=device)
    return draws.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]


def _settle_overflow(y: Tensor, x: Tensor, fmt: FloatFormat, rounding: Rounding) -> None:
    """Directed rounding stops at `fmt.max` on the side that rounds towards zero; formats without Inf say NaN."""
    if rounding in ("zero", "up", "down"):
        low = -fmt.max if rounding in ("zero", "up") else None
        high = fmt.max if rounding in ("zero", "down") else None
        y.copy_(torch.where(x.isinf(), x, y.clamp(low, high)))
    if not fmt.has_inf and fmt.has_nan:
        y.masked_fill_(y.abs() > fmt.max, torch.nan)


def raise_if_too_large(x: Tensor, fmt: FloatFormat, rounding: Rounding) -> None:
    """OverflowError if a finite value of `x` would leave the format; it says how many and how large."""
    limit = fmt.overflow_at if rounding == "nearest" else fmt.max
    inclusive = rounding == "nearest" and fmt.midpoint_overflows
    magnitude = x.abs()
    too_large = magnitude >= limit if inclusive else magnitude > limit
    if fmt.has_nan:  # then Inf has a place, if only among the NaN
        too_large &= x.isfinite()
    count = int(too_large.sum())
    if count:
        largest = magnitude[too_large].max().item()
        other = ' or overflow="inf"' if fmt.has_nan else ""
        raise OverflowError(
            f"{count} of {x.numel()} values are too large for {fmt.name}: the largest is {largest:.6g}, the format "
            f'ends at {fmt.max:.6g}. Scale them down, or ask for overflow="saturate"{other}.'
        )
