"""What tests of rounding compare with: values listed one by one and searched in float64. Nothing here uses mpkit.

The grid of a format is the list of its non-negative finite values, and one more: the value that would come after the
largest. A result that lands on that one has overflowed. The index in the grid is the bit pattern, so an even index
is an even last bit, which is what "ties to even" asks for.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

EDGES = [0.0, 1.0, 3.0, 261.0, 448.0, 464.0, 65504.0, 65519.99, 65520.0, 70000.0, 100000.0, 131071.0, 1e38, math.inf]


def grid(exponent_bits: int, mantissa_bits: int, has_inf: bool = True) -> np.ndarray:
    """Every non-negative finite value in ascending order, then the first one beyond the largest."""
    bias = 2 ** (exponent_bits - 1) - 1
    per_binade = 2**mantissa_bits
    finite = (2**exponent_bits - 1) * per_binade if has_inf else 2**exponent_bits * per_binade - 1
    values = []
    for code in range(finite + 1):
        exponent, mantissa = divmod(code, per_binade)
        leading = 0 if exponent == 0 else per_binade
        values.append(math.ldexp(leading + mantissa, max(exponent, 1) - bias - mantissa_bits))
    return np.array(values, dtype=np.float64)


def round_on(points: np.ndarray, x: np.ndarray, rounding: str) -> np.ndarray:
    """Round float64 values to the grid; what lands beyond its largest finite value becomes Inf (NaN stays NaN).

    Directed rounding cuts a finite value off at the largest one on the side that rounds towards zero.
    """
    magnitude = np.minimum(np.abs(x), points[-1])
    low = np.searchsorted(points, magnitude, side="right") - 1
    low = np.where(np.isnan(x), 0, low)
    high = np.minimum(low + (points[low] < magnitude), len(points) - 1)
    if rounding == "nearest":
        below, above = magnitude - points[low], points[high] - magnitude
        index = np.where(below < above, low, np.where(above < below, high, np.where(low % 2 == 0, low, high)))
    else:
        away = {"zero": np.zeros_like(x, bool), "up": ~np.signbit(x), "down": np.signbit(x)}[rounding]
        cut = np.minimum(low, len(points) - 2)
        index = np.where(away, high, np.where(np.isinf(x), len(points) - 1, cut))
    result = np.where(index == len(points) - 1, np.inf, points[index])
    return np.where(np.isnan(x), np.nan, np.copysign(result, x))


def around(points: np.ndarray) -> Tensor:
    """Every grid value and midpoint as float32, each with its two float32 neighbours, and their negatives."""
    middle = (points[1:] + points[:-1]) / 2
    exact = np.concatenate([points, middle])
    with np.errstate(over="ignore"):
        single = exact.astype(np.float32)
    assert ((single == exact) | np.isinf(single)).all(), "the grid does not fit into float32"
    both = np.concatenate([single, np.nextafter(single, np.float32(-1)), np.nextafter(single, np.float32(np.inf))])
    return torch.from_numpy(np.concatenate([both, -both]))


def random_patterns(count: int, seed: int = 0) -> Tensor:
    """Float32 values of random bits: every exponent, both signs, Inf and NaN with all kinds of payload."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**31), 2**31, (count,), generator=generator).to(torch.int32).view(torch.float32)


def special() -> Tensor:
    """Zeros, infinities, NaN with the smallest, largest and quiet payloads, float32's ends, and known trouble."""
    nan = torch.tensor([0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x7F801000, 0x7FBFFFFF]).to(torch.int32)
    ends = torch.tensor([2.0**-149, 2.0**-126, 2.0**-127, 3.4028234663852886e38, *EDGES])
    positive = torch.cat([nan.view(torch.float32), ends])
    return torch.cat([positive, -positive])


def assert_same(actual: Tensor, expected: Tensor, inputs: Tensor | None = None) -> None:
    """Equal bit for bit, -0 told apart from +0; any NaN equals any NaN."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[actual.element_size()]
    equal = (actual.contiguous().view(integer) == expected.contiguous().view(integer)) | (
        actual.isnan() & expected.isnan()
    )
    if not bool(equal.all()):
        wrong = ~equal
        shown = (actual if inputs is None else inputs)[wrong].flatten()[:5].tolist()
        got, want = actual[wrong].flatten()[:5].tolist(), expected[wrong].flatten()[:5].tolist()
        raise AssertionError(f"{int(wrong.sum())} of {wrong.numel()} differ; inputs {shown}, got {got}, want {want}")
