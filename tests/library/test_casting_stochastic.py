"""Stochastic rounding: values that fit never move, the mean is right, the same seed gives the same bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from oracles.float_oracle import assert_same, grid, random_patterns, round_on, special
from torch import Tensor

from mpkit.casting import cast
from mpkit.formats import BF16, E4M3, E5M2, FP16, TF32, FloatFormat

E5M7 = FloatFormat("e5m7", exponent_bits=5, mantissa_bits=7)
SMALL = [FP16, BF16, E4M3, E5M2, E5M7]
DRAWS = 200_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def neighbours(x: Tensor, fmt: FloatFormat) -> tuple[Tensor, Tensor]:
    points = grid(fmt.exponent_bits, fmt.mantissa_bits, fmt.has_inf)
    low, high = (torch.from_numpy(round_on(points, x.double().numpy(), side)).float() for side in ("down", "up"))
    return low, high


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_values_of_the_format_never_move(fmt: FloatFormat) -> None:
    values = fmt.values().float()
    generator = seeded()
    for _ in range(max(1, 200_000 // len(values))):
        assert_same(cast(values, fmt, "stochastic", generator=generator), values)
    assert_same(cast(values.double(), fmt, "stochastic"), values.double())


@pytest.mark.parametrize(
    "fmt", [*SMALL, FloatFormat("e3m2", 3, 2), FloatFormat("e2m1fn", 2, 1, has_inf=False)], ids=str
)
def test_the_result_is_always_a_neighbour(fmt: FloatFormat) -> None:
    x = torch.cat([random_patterns(2**16), torch.randn(2**16), torch.randn(2**16) * fmt.smallest_normal])
    x = torch.cat([x[x.abs() < fmt.max], torch.tensor([0.0, -0.0])])
    y, (low, high) = cast(x, fmt, "stochastic", generator=seeded()), neighbours(x, fmt)
    assert bool(((y == low) | (y == high)).all())
    assert torch.equal(torch.signbit(y), torch.signbit(x))
    moved = low != high
    assert int((y[moved] == high[moved]).sum()) > 1000
    assert int((y[moved] == low[moved]).sum()) > 1000


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["plus", "minus"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.75, 0.999])
@pytest.mark.parametrize("place", ["normal", "below a binade", "subnormal", "below the first", "last before overflow"])
@pytest.mark.parametrize("fmt", [FP16, E4M3, E5M7], ids=str)
def test_the_share_that_rounds_up_is_the_distance_from_below(
    fmt: FloatFormat, place: str, fraction: float, sign: float
) -> None:
    low = {
        "normal": 1.0,
        "below a binade": 2 - fmt.epsilon,
        "subnormal": 3 * fmt.smallest_subnormal,
        "below the first": 0.0,
        "last before overflow": fmt.max - fmt.spacing(fmt.max),
    }[place]
    ulp = fmt.spacing(low)
    x = torch.full((DRAWS,), sign * (low + fraction * ulp))
    exact = (abs(x[0].item()) - low) / ulp
    y = cast(x, fmt, "stochastic", generator=seeded()).abs()
    assert bool(((y == low) | (y == low + ulp)).all())
    sigma = math.sqrt(exact * (1 - exact) / DRAWS)
    assert abs((y > low).double().mean().item() - exact) <= 4 * sigma


def test_a_chance_below_half_a_step_of_the_random_numbers_is_none() -> None:
    """Probabilities come in steps of 2^-16: without bias, 2^-18 is no chance and 1 - 2^-18 is certainty."""
    tiny = torch.full((2**21,), FP16.smallest_subnormal * 2.0**-18)
    assert bool((cast(tiny, FP16, "stochastic", generator=seeded()) == 0).all())
    nearly = torch.full((2**21,), FP16.smallest_subnormal * (1 - 2.0**-18))
    assert bool((cast(nearly, FP16, "stochastic", generator=seeded()) == FP16.smallest_subnormal).all())


@pytest.mark.parametrize("fmt", [FP16, E5M2, E5M7], ids=str)
def test_between_the_largest_value_and_the_next_power_overflow_is_a_matter_of_chance(fmt: FloatFormat) -> None:
    x = torch.full((DRAWS,), fmt.max + 0.25 * fmt.spacing(fmt.max))
    y = cast(x, fmt, "stochastic", generator=seeded())
    share = y.isinf().double().mean().item()
    assert bool((y.isinf() | (y == fmt.max)).all())
    assert abs(share - 0.25) <= 4 * math.sqrt(0.25 * 0.75 / DRAWS)
    assert bool((cast(-x, fmt, "stochastic", "saturate") == -fmt.max).all())


def test_beyond_the_largest_value_of_e4m3() -> None:
    x = torch.full((1000,), 456.0)
    chance = cast(x, E4M3, "stochastic", "inf", seeded())
    assert bool((chance.isnan() | (chance == 448)).all())
    assert 150 < int(chance.isnan().sum()) < 350
    assert bool((cast(x, E4M3, "stochastic") == 448).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_input_dtypes_have_the_right_mean(dtype: torch.dtype) -> None:
    x = torch.full((DRAWS,), 1 + 0.75 * 0.125, dtype=dtype)
    y = cast(x, E4M3, "stochastic", generator=seeded())
    assert y.dtype == dtype
    assert abs((y > 1).double().mean().item() - 0.75) <= 4 * math.sqrt(0.75 * 0.25 / DRAWS)


def test_elements_are_rounded_independently() -> None:
    """Four decisions share one 64-bit draw: each quarter must have the mean, and none may follow another."""
    x = torch.full((4 * DRAWS,), 1 + 0.5 * FP16.epsilon)
    up = (cast(x, FP16, "stochastic", generator=seeded()) > 1).double() - 0.5
    for lane in up.view(-1, 4).T:
        assert abs(lane.mean().item()) <= 4 * 0.5 / math.sqrt(DRAWS)
    for lag in (1, 2, 3, 4, 8):
        assert abs((up[lag:] * up[:-lag]).mean().item()) <= 4 * 0.25 / math.sqrt(4 * DRAWS - lag)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    x = torch.randn(100_003)
    for fmt in (FP16, BF16, TF32, E4M3):
        first = cast(x, fmt, "stochastic", generator=seeded(1))
        assert_same(cast(x, fmt, "stochastic", generator=seeded(1)), first)
        assert not torch.equal(cast(x, fmt, "stochastic", generator=seeded(2)), first)
    generator = seeded(1)
    assert not torch.equal(
        cast(x, FP16, "stochastic", generator=generator), cast(x, FP16, "stochastic", generator=generator)
    )


def test_without_a_generator_the_seed_of_torch_decides() -> None:
    x = torch.randn(1000)
    torch.manual_seed(5)
    first = cast(x, FP16, "stochastic")
    torch.manual_seed(5)
    assert_same(cast(x, FP16, "stochastic"), first)


def test_special_values_and_fp32() -> None:
    x = special()
    y = cast(x, FP16, "stochastic", generator=seeded())
    assert torch.equal(y.isnan(), x.isnan())
    assert torch.equal(y[x.isinf()], x[x.isinf()])
    assert torch.equal(torch.signbit(y)[~x.isnan()], torch.signbit(x)[~x.isnan()])
    many = torch.full(
        (DRAWS,), 2.0**-26, dtype=torch.float64
    )  # a quarter of the way to FP16's first value but one half
    assert abs((cast(many, FP16, "stochastic", generator=seeded()) > 0).double().mean().item() - 0.25) < 0.004


# ---- under torch.compile ----


def compiled(fmt: FloatFormat, **settings: Any) -> Callable[[Tensor], Tensor]:
    """A cast as one graph, without a compiler behind it."""
    torch.compiler.reset()
    run = partial(cast, fmt=fmt, rounding="stochastic", **settings)
    return torch.compile(run, backend="aot_eager", fullgraph=True, dynamic=False)


@pytest.mark.parametrize("fmt", [FP16, TF32, E4M3, E5M7], ids=str)
def test_compiled_it_is_one_graph_that_rounds_to_a_neighbour(fmt: FloatFormat) -> None:
    x = torch.cat([random_patterns(2**16), torch.randn(2**18 + 3)])
    x = torch.cat([x[x.abs() < fmt.max], torch.tensor([0.0, -0.0])])
    run = compiled(fmt)
    y, low, high = run(x), cast(x, fmt, "down"), cast(x, fmt, "up")
    assert bool(((y == low) | (y == high)).all())
    assert torch.equal(torch.signbit(y), torch.signbit(x))
    assert not torch.equal(run(x), y), "each call draws again"
    assert_same(run(low), low)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("fmt", [FP16, E4M3], ids=str)
def test_compiled_the_share_that_rounds_up_is_the_same(fmt: FloatFormat, fraction: float) -> None:
    torch.manual_seed(0)
    x = torch.full((DRAWS,), 1 + fraction * fmt.epsilon)
    exact = (x[0].item() - 1) / fmt.epsilon
    share = (compiled(fmt)(x) > 1).double().mean().item()
    assert abs(share - exact) <= 4 * math.sqrt(exact * (1 - exact) / DRAWS)


def test_compiled_a_generator_still_gives_its_own_bits() -> None:
    """The graph ends before the draw and goes on after it, so nobody's seed is ignored."""
    x, generator = torch.randn(1000), seeded(3)
    torch.compiler.reset()
    run = torch.compile(lambda values: cast(values, FP16, "stochastic", generator=generator), backend="aot_eager")
    assert_same(run(x), cast(x, FP16, "stochastic", generator=seeded(3)))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="random_"):
        compiled(FP16, generator=seeded(3))(x)
