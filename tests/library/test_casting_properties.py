"""Laws of rounding that hold for every input: hypothesis looks for one that breaks them."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mpkit.casting import cast
from mpkit.formats import BF16, E4M3, E5M2, FP16, FP32, TF32, FloatFormat

NAMED = st.sampled_from([FP32, TF32, FP16, BF16, E4M3, E5M2])
IEEE = st.builds(lambda e, m: FloatFormat(f"e{e}m{m}", e, m), st.integers(2, 8), st.integers(1, 23))
FINITE_ONLY = st.builds(
    lambda e, m: FloatFormat(f"e{e}m{m}fn", e, m, has_inf=False), st.integers(2, 7), st.integers(1, 12)
)
FORMATS = NAMED | IEEE | FINITE_ONLY
TINY = st.builds(
    lambda e, m, i: FloatFormat(f"e{e}m{m}", e, m, has_inf=i), st.integers(2, 5), st.integers(1, 4), st.booleans()
)
DETERMINISTIC: Any = st.sampled_from(["nearest", "zero", "up", "down"])
EVERY: Any = st.sampled_from(["nearest", "zero", "up", "down", "stochastic"])
SINGLE = st.floats(width=32, allow_nan=False)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
many = settings(max_examples=150, deadline=None)


@st.composite
def near_a_value(draw: Any) -> tuple[FloatFormat, Tensor]:
    """A format and inputs of which half sit on, or one float32 ulp beside, a multiple of half its spacing."""
    fmt = draw(FORMATS)
    plain = torch.tensor(draw(st.lists(FINITE, min_size=1, max_size=8)), dtype=torch.float32)
    count = draw(
        st.lists(st.integers(-(2 ** (fmt.mantissa_bits + 2)), 2 ** (fmt.mantissa_bits + 2)), min_size=1, max_size=8)
    )
    exponent = draw(st.integers(fmt.min_exponent, fmt.max_exponent)) - fmt.mantissa_bits - 1
    grid = torch.tensor([math.ldexp(k, exponent) for k in count], dtype=torch.float64).float()
    beside = torch.nextafter(grid, torch.full_like(grid, draw(st.sampled_from([-math.inf, math.inf]))))
    return fmt, torch.cat([plain, grid, beside])


def kept(x: Tensor, fmt: FloatFormat) -> Tensor:
    return x[x.abs() <= fmt.max]


@many
@given(case=near_a_value(), rounding=EVERY)
def test_rounding_twice_is_rounding_once(case: tuple[FloatFormat, Tensor], rounding: Any) -> None:
    fmt, x = case
    once = cast(x, fmt, rounding)
    for again in ("nearest", "zero", "up", "down", "stochastic"):
        assert torch.equal(cast(once, fmt, again), once)  # type: ignore[arg-type]


@many
@given(case=near_a_value(), rounding=DETERMINISTIC, overflow=st.sampled_from(["inf", "saturate"]))
def test_rounding_keeps_the_order(case: tuple[FloatFormat, Tensor], rounding: Any, overflow: Any) -> None:
    fmt, x = case
    if not fmt.has_inf:
        overflow = "saturate"  # NaN has no place in an order
    y = cast(x.sort().values, fmt, rounding, overflow)
    assert bool((y[1:] >= y[:-1]).all())


@many
@given(case=near_a_value(), rounding=st.sampled_from(["nearest", "zero"]))
def test_rounding_is_odd(case: tuple[FloatFormat, Tensor], rounding: Any) -> None:
    fmt, x = case
    y, mirrored = cast(x, fmt, rounding), cast(-x, fmt, rounding)
    assert torch.equal(mirrored, -y)
    assert torch.equal(torch.signbit(y), torch.signbit(x))


@many
@given(case=near_a_value())
def test_up_and_down_mirror_each_other(case: tuple[FloatFormat, Tensor]) -> None:
    fmt, x = case
    assert torch.equal(cast(-x, fmt, "up"), -cast(x, fmt, "down"))


@many
@given(case=near_a_value(), rounding=EVERY)
def test_the_error_is_at_most_half_an_ulp_or_one(case: tuple[FloatFormat, Tensor], rounding: Any) -> None:
    fmt, x = case
    x = kept(x, fmt)
    error = (cast(x, fmt, rounding, "saturate").double() - x.double()).abs()
    for value, missed in zip(x.tolist(), error.tolist(), strict=True):
        ulp = fmt.spacing(value)
        assert missed <= (ulp / 2 if rounding == "nearest" else ulp)


@many
@given(case=near_a_value())
def test_zero_up_and_down_lie_on_their_side(case: tuple[FloatFormat, Tensor]) -> None:
    fmt, x = case
    x = kept(x, fmt)
    down, up, zero, nearest = (cast(x, fmt, rounding) for rounding in ("down", "up", "zero", "nearest"))
    assert bool(((down <= x) & (x <= up)).all())
    assert bool((zero.abs() <= x.abs()).all())
    assert torch.equal(zero, torch.where(x > 0, down, up))
    assert bool(((nearest == down) | (nearest == up)).all())
    assert torch.equal(down == up, down == x)


@many
@given(fmt=TINY, x=st.lists(SINGLE, min_size=1, max_size=20), rounding=EVERY)
def test_the_result_is_a_value_of_the_format(fmt: FloatFormat, x: list[float], rounding: Any) -> None:
    y = cast(torch.tensor(x), fmt, rounding, "saturate")
    assert bool(torch.isin(y.double(), fmt.values()).all())


@many
@given(case=near_a_value(), scale=st.integers(-20, 20))
def test_scaling_by_a_power_of_two_only_moves_the_window(case: tuple[FloatFormat, Tensor], scale: int) -> None:
    """Away from both ends of the range, rounding and scaling by 2^k may change places: why a loss scale is safe."""
    fmt, x = case
    scaled = x.double() * 2.0**scale
    low, high = fmt.smallest_normal, fmt.max
    inside = (x.abs() >= low) & (x.abs() <= high) & (scaled.abs() >= low) & (scaled.abs() <= high)
    assert torch.equal(cast(scaled, fmt)[inside], (cast(x, fmt).double() * 2.0**scale)[inside])
