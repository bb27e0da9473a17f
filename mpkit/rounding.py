"""The arithmetic of rounding: divide by the spacing, round to an integer, multiply back.

All three steps are exact except the rounding, because spacings are powers of two.
"""

from typing import Literal

import torch
from torch import Tensor

from mpkit.formats import FloatFormat

Rounding = Literal["nearest", "zero", "up", "down", "stochastic"]
Overflow = Literal["inf", "saturate", "raise"]

# A block of 2^18 float32 values and its scratch (1 MiB each) stay in a core's cache from the first pass to the last:
# under 4x of x.clone(), where whole tensors, which go out to memory in every pass, take 24x.
BLOCK = 2**18


def convert(x: Tensor, fmt: FloatFormat, overflow: Overflow) -> Tensor:
    """Let torch convert to the format's own dtype and back; the narrow copy never leaves the cache."""
    assert fmt.dtype is not None
    flat, result, size = _blocks(x, 4 * BLOCK)  # two passes only, so larger blocks pay less for the calls
    narrow = torch.empty(min(size, flat.numel()), dtype=fmt.dtype, device=x.device)
    for source, target in zip(torch.split(flat, size), torch.split(result.view(-1), size), strict=True):
        if overflow == "saturate":  # the largest value is its own rounding, so clamping first is enough
            source = torch.clamp(source, -fmt.max, fmt.max, out=target)
        target.copy_(narrow[: source.numel()].copy_(source))
    return result


def round_to(
    x: Tensor, fmt: FloatFormat, rounding: Rounding, generator: torch.Generator | None, overflow: Overflow
) -> Tensor:
    """Round `x` (float32 or float64, any shape) to `fmt`; the settings are those of `mpkit.cast`."""
    flat, result, size = _blocks(x, BLOCK)
    scratch = torch.empty(min(size, flat.numel()), dtype=x.dtype, device=x.device)
    zero = torch.full((), -0.0, dtype=x.dtype, device=x.device)  # what addcdiv adds: -0 + y is y, also for y = -0
    # Overflow without a comparison: multiplied by `room`, what reaches 2^(max_exponent + 1) leaves the dtype too. It
    # becomes Inf, and dividing again does not bring it back. A comparison would cost one more pass.
    largest = 127 if x.dtype == torch.float32 else 1023
    room = 2.0 ** (largest - fmt.max_exponent) if fmt.has_inf and overflow != "saturate" else 1.0
    for source, target in zip(torch.split(flat, size), torch.split(result.view(-1), size), strict=True):
        if overflow == "saturate":
            source = torch.clamp(source, -fmt.max, fmt.max, out=target)
        power = _power_of_two(source, fmt, scratch[: source.numel()])
        if fmt.max_exponent + fmt.mantissa_bits <= 126:
            torch.addcdiv(zero, source, power, value=1 / fmt.epsilon, out=target)  # quotient and product in one pass
            _round_to_integer(target, rounding, generator)
            torch.addcmul(zero, target, power, value=fmt.epsilon * room, out=target)
        else:  # 8 exponent bits: there x / epsilon would leave float32, so divide by the power first
            torch.div(source, power, out=target).mul_(1 / fmt.epsilon)
            _round_to_integer(target, rounding, generator)
            target.mul_(fmt.epsilon * room).mul_(power)
        if room != 1.0:
            target.mul_(1 / room)
        if overflow != "saturate":
            _settle_overflow(target, source, fmt, rounding)
    return result


def _blocks(x: Tensor, size: int) -> tuple[Tensor, Tensor, int]:
    """`x` flat, an empty result of its shape, and the length of a block: `size`, but a GPU takes all at once.

    The result is no view: autograd lets nobody change a custom function's output in place if it is one.
    """
    flat, result = x.contiguous().view(-1), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return flat, result, size if x.device.type == "cpu" else max(flat.numel(), 1)


def _power_of_two(x: Tensor, fmt: FloatFormat, out: Tensor) -> Tensor:
    """Write the power of two at or below each |x| into `out`, within the exponents of `fmt`.

    `fmt.epsilon` times that is the distance between neighbouring values of `fmt` there (one ulp).
    """
    integer, exponent_field = (
        (torch.int32, 0x7F800000) if x.dtype == torch.float32 else (torch.int64, 0x7FF0000000000000)
    )
    torch.bitwise_and(x.view(integer), exponent_field, out=out.view(integer))  # the exponent bits alone, as a float
    return out.clamp_(2.0**fmt.min_exponent, 2.0**fmt.max_exponent)


def _round_to_integer(q: Tensor, rounding: Rounding, generator: torch.Generator | None) -> None:
    if rounding == "nearest":
        q.round_()  # torch rounds halves to even
    elif rounding == "zero":
        q.trunc_()
    elif rounding == "up":
        q.ceil_()
    elif rounding == "down":
        q.floor_()
    else:
        magnitude = q.abs()
        floor = magnitude.floor()
        floor.add_(magnitude.sub_(floor).gt_(_uniform(q, generator)))  # in place: bool tensors are six times slower
        torch.copysign(floor, q, out=q)


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random numbers (k + 1/2) / 2^16, k = 0 … 65535. Four come from one 64-bit draw, which is most of the cost."""
    draws = torch.empty((like.numel() + 3) // 4, dtype=torch.int64, device=like.device)
    draws.random_(-(2**63), None, generator=generator)
    bits = draws.view(torch.int16)[: like.numel()]  # -2^15 … 2^15 - 1; the half keeps 0 and 1 out, so that values stay
    return bits.to(like.dtype).add_(2.0**15 + 0.5).mul_(2.0**-16)


def _settle_overflow(y: Tensor, x: Tensor, fmt: FloatFormat, rounding: Rounding) -> None:
    """Directed rounding stops at `fmt.max` on the side that rounds towards zero; formats without Inf say NaN."""
    if rounding in ("zero", "up", "down"):
        low = -fmt.max if rounding in ("zero", "up") else None
        high = fmt.max if rounding in ("zero", "down") else None
        y.copy_(torch.where(x.isinf(), x, y.clamp(low, high)))
    if not fmt.has_inf:
        y.masked_fill_(y.abs() > fmt.max, torch.nan)


def raise_if_too_large(x: Tensor, fmt: FloatFormat, rounding: Rounding) -> None:
    """OverflowError if a finite value of `x` would leave the format; it says how many and how large."""
    limit = fmt.overflow_at if rounding == "nearest" else fmt.max
    inclusive = rounding == "nearest" and fmt.has_inf
    magnitude = x.abs()
    too_large = x.isfinite() & (magnitude >= limit if inclusive else magnitude > limit)
    count = int(too_large.sum())
    if count:
        largest = magnitude[too_large].max().item()
        raise OverflowError(
            f"{count} of {x.numel()} values are too large for {fmt.name}: the largest is {largest:.6g}, the format "
            f'ends at {fmt.max:.6g}. Scale them down, or ask for overflow="saturate" or overflow="inf".'
        )
