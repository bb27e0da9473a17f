"""Sums and dot products in small formats, against numpy's float16, ml_dtypes, fractions, and values worked by hand."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from oracles.float_oracle import around, grid, round_on
from torch import Tensor

from mpkit import BF16, E4M3, E5M2, FP16, FP32, TF32, FloatFormat, cast
from mpkit.course.arithmetic.accumulate import HOWS, How, dot, rounder, running_totals, total

# numpy scalars of these types add in float32 and round once, or, for float16, in hardware's way: both are exact.
SCALARS: dict[str, Any] = {"FP16": np.float16, "BF16": ml_dtypes.bfloat16, "E5M2": ml_dtypes.float8_e5m2}


def draws(trials: int, count: int, seed: int = 0) -> Tensor:
    return torch.randn(trials, count, generator=torch.Generator().manual_seed(seed))


def scalar_sum(terms: list[float], kind: Any, how: str) -> float:
    """The sum in scalars of one numpy type, written out once more."""
    values = [kind(term) for term in terms]
    if how == "pairwise":
        while len(values) > 1:
            rest = values[len(values) // 2 * 2 :]
            values = [kind(a + b) for a, b in zip(values[::2], values[1::2], strict=False)] + rest
        return float(values[0])
    if how == "fp32":
        wide = np.float32(0)
        for value in values:
            wide = np.float32(wide + np.float32(value))
        return float(kind(wide))
    result = lost = kind(0)
    for value in values:
        if how == "sequential":
            result = kind(result + value)
            continue
        corrected = kind(value - lost)
        grown = kind(result + corrected)
        lost = kind(kind(grown - result) - corrected)
        result = grown
    return float(result)


# ---- the totals that the lesson is about ----


@pytest.mark.parametrize(
    ("fmt", "term", "count", "stops"),
    [(FP16, 1.0, 4096, 2048.0), (BF16, 1.0, 4096, 256.0), (TF32, 1.0, 4096, 2048.0), (E5M2, 1.0, 100, 8.0),
     (E4M3, 1.0, 100, 16.0), (FP16, 0.1, 10_000, 256.0), (FP16, 0.001, 10_000, 4.0)],
)  # fmt: skip
def test_sums_stall_where_they_should(fmt: FloatFormat, term: float, count: int, stops: float) -> None:
    assert float(total(torch.full((count,), term), fmt)) == stops


@pytest.mark.parametrize("how", ["fp32", "kahan", "pairwise"])
@pytest.mark.parametrize("fmt", [FP16, BF16])
def test_the_other_ways_add_4096_ones(how: How, fmt: FloatFormat) -> None:
    assert float(total(torch.ones(4096), fmt, how)) == 4096


def test_no_order_makes_the_range_larger() -> None:
    terms = torch.full((7000,), 10.0)
    ways: tuple[How, ...] = ("pairwise", "fp32")
    assert [float(total(terms, FP16, how)) for how in ways] == [math.inf, math.inf]
    assert math.isnan(float(total(terms, FP16, "kahan"))), "Inf minus Inf, in the correction"
    assert float(total(terms, FP16)) == 32768.0, "one by one it stalls before it could overflow"


# ---- against scalars of other libraries ----


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("fmt", [FP16, BF16, E5M2], ids=str)
def test_every_way_equals_scalar_arithmetic(fmt: FloatFormat, how: How) -> None:
    terms = draws(4, 301)
    expected = [scalar_sum(row, SCALARS[fmt.name], how) for row in terms.tolist()]
    assert total(terms, fmt, how).tolist() == expected


@pytest.mark.parametrize("fmt", [E4M3, TF32, FP32, FloatFormat("e5m7", 5, 7), FloatFormat("wide", 8, 15)], ids=str)
def test_formats_without_a_scalar_type_equal_exact_fractions_rounded(fmt: FloatFormat) -> None:
    terms = cast(draws(1, 60)[0].double(), fmt)
    exact = Fraction(0)
    for term in terms.tolist():
        exact = Fraction(float(cast(torch.tensor(float(exact + Fraction(term)), dtype=torch.float64), fmt)))
    assert float(total(terms, fmt)) == float(exact)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("fmt", [FP16, BF16, E5M2, E4M3, TF32, FP32], ids=str)
def test_running_totals_end_at_the_total(fmt: FloatFormat, how: How) -> None:
    terms = draws(1, 257, seed=3)[0].abs()
    totals = running_totals(terms.tolist(), fmt, how)
    counts = [1, 2, 4, 8, 16, 32, 64, 128, 256] if how == "pairwise" else [1, 2, 100, 257]
    shown = range(len(counts)) if how == "pairwise" else [n - 1 for n in counts]
    for place, count in zip(shown, counts, strict=True):
        assert totals[place] == float(total(terms[:count], fmt, how)), count


@pytest.mark.parametrize("how", ["sequential", "fp32"])
def test_dot_products_equal_scalars(how: How) -> None:
    a, b = draws(3, 200, 1), draws(3, 200, 2)
    for fmt, kind in ((FP16, np.float16), (BF16, ml_dtypes.bfloat16)):
        for row in range(3):
            pairs = [(kind(x), kind(y)) for x, y in zip(a[row].tolist(), b[row].tolist(), strict=True)]
            if how == "sequential":
                expected = scalar_sum([float(kind(x * y)) for x, y in pairs], kind, how)
            else:
                wide = np.float32(0)
                for x, y in pairs:
                    wide = np.float32(wide + np.float32(x) * np.float32(y))
                expected = float(kind(wide))
            assert float(dot(a[row], b[row], fmt, how)) == expected


def test_leading_dimensions_are_trials() -> None:
    terms = draws(6, 50).view(2, 3, 50)
    for how in HOWS:
        together = total(terms, FP16, how)
        assert together.shape == (2, 3)
        assert together.dtype == torch.float64
        assert together[1, 2] == total(terms[1, 2], FP16, how)


def test_the_inputs_are_left_alone_and_one_term_is_itself() -> None:
    terms = torch.tensor([0.1])
    for how in HOWS:
        assert float(total(terms, FP16, how)) == float(np.float16(0.1))
    assert terms.item() == pytest.approx(0.1)


# ---- the quick scalar rounding ----


@pytest.mark.parametrize("fmt", [FP16, BF16, E5M2], ids=str)
def test_the_scalar_rounder_equals_a_searched_grid(fmt: FloatFormat) -> None:
    points = grid(fmt.exponent_bits, fmt.mantissa_bits)
    values = around(points).double().numpy()[:: 1 if fmt.bits == 8 else 37]
    to_format, expected = rounder(fmt), round_on(points, values, "nearest")
    mine = np.array([to_format(float(value)) for value in values])
    assert ((mine == expected) | (np.isnan(mine) & np.isnan(expected))).all()


def test_the_scalar_rounder_saturates_where_there_is_no_inf() -> None:
    to_format = rounder(E4M3)
    assert [to_format(x) for x in (447.0, 464.0, 1e9, -math.inf, 2.0**-10, 2.0**-9)] == [
        448.0, 448.0, 448.0, -448.0, 0.0, 2.0**-9,
    ]  # fmt: skip
    assert math.isnan(to_format(math.nan))


# ---- what cannot be added ----


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="how='sorted' is unknown; use one of sequential, fp32, kahan, pairwise"):
        total(torch.ones(3), FP16, "sorted")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"terms of shape \(2, 0\) came; at least one term in the last dimension"):
        total(torch.ones(2, 0), FP16)
    with pytest.raises(ValueError, match=r"at least one term"):
        running_totals([], FP16)
    with pytest.raises(ValueError, match=r"one shape are asked for, but \(3,\) and \(4,\) came"):
        dot(torch.ones(3), torch.ones(4), FP16)
    for terms, came in (
        (torch.ones(3).long(), r"a tensor of torch\.int64"), (torch.ones(3).bool(), r"a tensor of torch\.bool"),
        (torch.ones(3).cfloat(), r"a tensor of torch\.complex64"), ([1.0, 2.0], "list"),
    ):  # fmt: skip
        for function in (lambda t: total(t, FP16), lambda t: dot(t, torch.ones(3), FP16),
                         lambda t: dot(torch.ones(3), t, FP16)):  # fmt: skip
            with pytest.raises(TypeError, match=f"terms: a floating-point tensor is asked for, but {came} came; write"):
                function(terms)
    with pytest.raises(TypeError, match=r"a format is asked for, but 'FP16' \(str\) came"):
        total(torch.ones(3), "FP16")  # type: ignore[arg-type]
