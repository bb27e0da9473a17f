"""Add many numbers up in a small format: one after the other, in pairs, with Kahan's correction, or in FP32.

Every function works on the last dimension and treats the others as independent trials.
"""

import math
from collections.abc import Callable, Iterable
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mpkit import BF16, FP16, FloatFormat, cast
from mpkit.formats import require_format

How = Literal["sequential", "fp32", "kahan", "pairwise"]
HOWS: tuple[How, ...] = get_args(How)
# torch adds and multiplies these on any device as FP32 arithmetic that is rounded once, and so as the format itself.
DTYPES = {FP16: torch.float16, BF16: torch.bfloat16}
# Float32 arithmetic, rounded again to at most 11 bits, is that format's own arithmetic: 24 >= 2 * 11 + 2 bits
# (Figueroa 1995, "When is double rounding innocuous?"). Float64 does the same for formats of up to 25 bits.
ENOUGH_FOR_FLOAT32 = 10


def total(terms: Tensor, fmt: FloatFormat, how: How = "sequential") -> Tensor:
    """Sum of `terms` (..., n) over the last dimension, every addition rounded to `fmt`; float64, (...).

    Args:
        terms: floating-point tensor with n >= 1. Rounded to `fmt` before it is added.
        fmt: format of the terms and of the running total.
        how: "sequential" (one after the other), "pairwise" (neighbours first, then their sums), "kahan" (one after
            the other; what an addition lost is added to the next term), "fp32" (running total in FP32, rounded to
            `fmt` once, at the end).

    Raises:
        ValueError: unknown `how`, or no terms.
        TypeError: `fmt` is no format, or `terms` no floating-point tensor.
    """
    fmt = require_format(fmt)
    _check(terms, how)
    return _add_up(_values(terms, fmt), fmt, how)


def dot(a: Tensor, b: Tensor, fmt: FloatFormat, how: How = "sequential") -> Tensor:
    """Dot product of `a` and `b` (..., n) over the last dimension; float64, (...).

    Both are rounded to `fmt`. Their products are rounded to `fmt` too, but with how="fp32" they stay exact, as in a
    tensor core: a product of two 11-bit numbers has 22 bits and fits into FP32's 24. `how` as in `total`.

    Raises:
        ValueError: unknown `how`, no terms, or shapes that differ.
        TypeError: `fmt` is no format, or `a` or `b` no floating-point tensor.
    """
    fmt = require_format(fmt)
    _check(a, how)
    _check(b, how)
    if a.shape != b.shape:
        raise ValueError(f"two tensors of one shape are asked for, but {tuple(a.shape)} and {tuple(b.shape)} came.")
    a, b = _values(a, fmt), _values(b, fmt)
    products = a.float() * b.float() if how == "fp32" else _rounded(a * b, fmt)
    return _add_up(products, fmt, how)


def running_totals(terms: Iterable[float], fmt: FloatFormat, how: How = "sequential") -> np.ndarray:
    """What `total` gives for the first 1, 2, …, n terms: n values in float64. Made for one trial and quick at that.

    For "pairwise" the sums of the first 1, 2, 4, 8, … terms only, for between them the pairs change.

    Raises:
        ValueError: unknown `how`, or no terms.
        TypeError: `fmt` is no format.
    """
    fmt = require_format(fmt)
    given = torch.tensor(list(terms), dtype=torch.float64)
    _check(given, how)
    given = cast(given, fmt)
    if how == "pairwise":
        return np.array(_first_of_each_level(given, fmt))
    if how == "fp32":  # numpy's accumulate goes strictly from left to right
        return cast(torch.from_numpy(np.add.accumulate(given.float().numpy())), fmt).double().numpy()
    return np.array((_kahan_chain if how == "kahan" else _chain)(given.tolist(), rounder(fmt)))


def rounder(fmt: FloatFormat) -> Callable[[float], float]:
    """A quick `cast` for one Python float: nearest, ties to even, Inf beyond the format (the largest value if no Inf).

    x + c - c with c = 1.5 * 2^52 units rounds x to whole units, because a float64 there has no bits below one unit.
    """
    fmt = require_format(fmt)
    bits, lowest, highest = fmt.mantissa_bits, fmt.min_exponent, fmt.max_exponent
    shift = {e: 1.5 * 2.0 ** (52 + e - bits) for e in range(lowest, highest + 1)}
    limit, beyond = fmt.max, math.inf if fmt.has_inf else fmt.max

    def to_format(x: float) -> float:
        exponent = math.frexp(x)[1] - 1
        c = shift[lowest if exponent < lowest or x == 0 else highest if exponent > highest else exponent]
        y = x + c - c
        return y if -limit <= y <= limit or y != y else math.copysign(beyond, x)

    return to_format


def _check(terms: Tensor, how: str) -> None:
    if not isinstance(terms, Tensor) or not terms.is_floating_point():
        came = f"a tensor of {terms.dtype}" if isinstance(terms, Tensor) else type(terms).__name__
        raise TypeError(
            f"terms: a floating-point tensor is asked for, but {came} came; write torch.tensor([1.0, 0.5])."
        )
    if how not in HOWS:
        raise ValueError(f"how={how!r} is unknown; use one of {', '.join(HOWS)}.")
    if terms.dim() == 0 or terms.shape[-1] == 0:
        raise ValueError(
            f"terms of shape {tuple(terms.shape)} came; at least one term in the last dimension is needed."
        )


def _values(x: Tensor, fmt: FloatFormat) -> Tensor:
    """`x` rounded to `fmt`, in the dtype that its arithmetic is done in."""
    exact = torch.float32 if fmt.mantissa_bits <= ENOUGH_FOR_FLOAT32 else torch.float64
    return cast(x.double(), fmt).to(DTYPES.get(fmt, exact))


def _rounded(x: Tensor, fmt: FloatFormat) -> Tensor:
    return x if x.dtype in DTYPES.values() else cast(x, fmt)


def _add_up(terms: Tensor, fmt: FloatFormat, how: str) -> Tensor:
    if how == "fp32":
        terms = terms.float()
        result = torch.zeros_like(terms[..., 0])
        for term in terms.unbind(-1):
            result = result + term
        return cast(result.double(), fmt)
    return {"sequential": _sequential, "pairwise": _pairwise, "kahan": _kahan}[how](terms, fmt).double()


def _sequential(terms: Tensor, fmt: FloatFormat) -> Tensor:
    if terms.dtype == torch.float16 and terms.device.type == "cpu":
        # numpy's accumulate goes strictly from left to right, too, and has no call of Python for each addition.
        with np.errstate(over="ignore", invalid="ignore"):
            return torch.from_numpy(np.add.accumulate(terms.numpy(), axis=-1)[..., -1])
    result = torch.zeros_like(terms[..., 0])
    for term in terms.unbind(-1):
        result = _rounded(result + term, fmt)
    return result


def _pairwise(terms: Tensor, fmt: FloatFormat) -> Tensor:
    while terms.shape[-1] > 1:
        terms = _pairs(terms, fmt)
    return terms[..., 0]


def _pairs(terms: Tensor, fmt: FloatFormat) -> Tensor:
    """Sums of neighbours; a last term without neighbour stays as it is."""
    whole = terms.shape[-1] // 2 * 2
    return torch.cat([_rounded(terms[..., :whole:2] + terms[..., 1:whole:2], fmt), terms[..., whole:]], dim=-1)


def _kahan(terms: Tensor, fmt: FloatFormat) -> Tensor:
    """Kahan 1965, "Further remarks on reducing truncation errors", Communications of the ACM 8 (1)."""
    result = lost = torch.zeros_like(terms[..., 0])
    for term in terms.unbind(-1):
        corrected = _rounded(term - lost, fmt)
        grown = _rounded(result + corrected, fmt)
        lost = _rounded(_rounded(grown - result, fmt) - corrected, fmt)
        result = grown
    return result


def _chain(values: list[float], to_format: Callable[[float], float]) -> list[float]:
    result, totals = 0.0, []
    for value in values:
        result = to_format(result + value)
        totals.append(result)
    return totals


def _kahan_chain(values: list[float], to_format: Callable[[float], float]) -> list[float]:
    result, lost, totals = 0.0, 0.0, []
    for value in values:
        corrected = to_format(value - lost)
        grown = to_format(result + corrected)
        lost = to_format(to_format(grown - result) - corrected)
        result = grown
        totals.append(result)
    return totals


def _first_of_each_level(terms: Tensor, fmt: FloatFormat) -> list[float]:
    found = [float(terms[0])]
    while len(terms) > 1:
        terms = cast(_pairs(terms, fmt), fmt)
        found.append(float(terms[0]))
    return found
