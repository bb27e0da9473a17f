"""From the largest magnitude of a group to the scale that the group is divided by: three rules, all exact.

A scale here is what a small value is multiplied with to get the number back, as torch's `scaled_mm` takes it.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["exact", "floor", "up"]

# E8M0 holds 2^-127 … 2^127 and NaN (OCP Microscaling Formats v1.0, section 5.4.1). torch's own cast to
# float8_e8m0fnu is no way to choose a scale: it drops signs, rounds ties up and turns 0 into 2^-127.
E8M0_LIMIT = 127


def scale_of(amax: Tensor, largest: float, rule: Rule) -> Tensor:
    """The scale under which `amax` meets `largest`, the largest value of the small format.

    Args:
        amax: largest magnitude of each group, float32 and >= 0, any shape.
        largest: `fmt.max`.
        rule: "exact": amax / largest, as FP32; what is largest becomes `largest`. "floor": the power of two
            2^(floor(log2 amax) - floor(log2 largest)), as OCP's conversion says (section 6.3); the mantissa may then
            lie beyond `largest`, and saturates. "up": the least power of two under which nothing saturates
            (NVIDIA's conversion to MXFP8, arXiv 2506.08027, section 3.1; for FP32 scales it is what
            Transformer Engine calls a power-of-2 scale). Powers of two are those of E8M0.

    A group of zeros gets the scale 1, since 0/0 would be NaN; a group with Inf or NaN gets NaN, so that it is seen.
    No wait for the device. Returns the shape of `amax`, float32.
    """
    scale = divided(amax, largest) if rule == "exact" else _power_of_two(amax, largest, rule)
    # An amax so small that amax / largest underflows has no scale either: its values become 0 under the scale 1.
    scale = torch.where((amax > 0) & (scale > 0), scale, torch.ones_like(scale))
    return torch.where(amax.isfinite(), scale, torch.full_like(scale, torch.nan))


def divided(x: Tensor, by: float) -> Tensor:
    """x / by, rounded once to float32 on every device. A GPU divides float32 by a number by its rounded reciprocal."""
    return (x.double() / by).float()


def _power_of_two(amax: Tensor, largest: float, rule: Rule) -> Tensor:
    """By exponent bits, not by log2, whose rounding would be wrong next to a power of two."""
    mantissa, exponent = torch.frexp(amax)  # amax = mantissa * 2^exponent, 1/2 <= mantissa < 1
    limit_mantissa, limit_exponent = math.frexp(largest)
    power = exponent - limit_exponent
    if rule == "up":  # amax / largest = 2^power * (mantissa / limit_mantissa), and that quotient is in (1/2, 2)
        power = power + (mantissa > limit_mantissa)
    return torch.ldexp(torch.ones_like(amax), power.clamp(-E8M0_LIMIT, E8M0_LIMIT))
