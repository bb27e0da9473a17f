"""What `cast` promises beside exact rounding: shapes, overflow rules, errors, and mistakes that others have made."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from oracles.float_oracle import assert_same, random_patterns, special
from torch import Tensor

import mpkit.casting as casting
from mpkit.casting import cast
from mpkit.formats import BF16, E4M3, E5M2, FP16, FP32, TF32, FloatFormat

E5M7 = FloatFormat("e5m7", exponent_bits=5, mantissa_bits=7)
ALL = [FP32, TF32, FP16, BF16, E4M3, E5M2, E5M7]
ROUNDINGS: list[Any] = ["nearest", "zero", "up", "down", "stochastic"]
INF = math.inf


@pytest.mark.parametrize(
    ("fmt", "x", "expected"),
    [
        # Each of these came out wrong in some published emulator.
        (FP16, 65519.99, 65504.0),
        (FP16, 65520.0, INF),
        (FP16, 70000.0, INF),
        (FP16, 100000.0, INF),
        (FP16, 131071.0, INF),
        (FP16, -131071.0, -INF),
        (FP16, 18184.0, 18176.0),
        (E4M3, 261.0, 256.0),
        (E4M3, 500.0, 448.0),
        (E4M3, -1e30, -448.0),
        (E5M2, 1e30, INF),
        (FP32, 3.0, 3.0),
        (BF16, 3.0, 3.0),
        (E5M7, 3.0, 3.0),
        (FP16, 2.0**-25, 0.0),
        (FP16, 2.0**-25 * (1 + 2.0**-20), 2.0**-24),
        (FP16, -3 * 2.0**-25, -(2.0**-23)),
    ],
    ids=str,
)
def test_old_mistakes(fmt: FloatFormat, x: float, expected: float) -> None:
    assert cast(torch.tensor([x, 0.5]), fmt).tolist() == [expected, 0.5]


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_zeros_nan_and_infinities_are_kept(fmt: FloatFormat, rounding: Any) -> None:
    x = special()
    y = cast(x, fmt, rounding, overflow="inf")
    assert torch.equal(y.isnan(), x.isnan() | ((x.abs() > fmt.max) & ~y.isfinite() & torch.tensor(not fmt.has_inf)))
    zero = x == 0
    assert int(zero.sum()) == 2
    assert y[zero].tolist() == [0.0, 0.0]
    number = ~y.isnan()
    assert torch.equal(torch.signbit(y)[number], torch.signbit(x)[number])
    assert torch.equal(y[x.isinf()], x[x.isinf()]) if fmt.has_inf else y[x.isinf()].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_shape_dtype_and_device_stay_and_the_input_is_not_written(
    fmt: FloatFormat, rounding: Any, dtype: torch.dtype
) -> None:
    x = torch.randn(3, 4, 5).to(dtype)
    views = [x, x[:, ::2], x.mT, x[0, 0, 0], x[:0], x[1:2].expand(6, 4, 5), x.flatten()[1:].view(59), x[..., None, :]]
    for view in views:
        kept = view.clone()
        for overflow in ("inf", "saturate", "raise"):
            y = cast(view, fmt, rounding, overflow, torch.Generator().manual_seed(3))
            assert (y.shape, y.dtype, y.device) == (view.shape, view.dtype, view.device)
            assert_same(view, kept)
            flat = cast(view.contiguous(), fmt, rounding, overflow, torch.Generator().manual_seed(3))
            assert_same(y, flat)
            y.fill_(7)  # the result is memory of its own
            assert_same(view, kept)


def test_a_half_tensor_of_four_elements_stays_one() -> None:
    x = torch.tensor([1.0, 2.5, -3.0, 70.0]).half()
    y = cast(x, E4M3)
    assert y.dtype == torch.float16
    assert y.tolist() == [1.0, 2.5, -3.0, 72.0]


def test_float8_input_is_taken_and_returned() -> None:
    x = torch.tensor([0.3, 1.0, 500.0]).to(torch.float8_e5m2)
    y = cast(x, FP16)
    assert y.dtype == torch.float8_e5m2
    assert torch.equal(y.float(), x.float())


@pytest.mark.parametrize("fmt", [TF32, FP16, BF16, E4M3, E5M2, E5M7], ids=str)
def test_overflow_modes(fmt: FloatFormat) -> None:
    above = torch.nextafter(torch.tensor(fmt.overflow_at), torch.tensor(INF))
    below = torch.nextafter(torch.tensor(fmt.overflow_at), torch.tensor(0.0))
    x = torch.stack([below, above, -above, torch.tensor(INF), torch.tensor(-INF)])
    top, lost = fmt.max, INF if fmt.has_inf else math.nan
    as_inf = cast(x, fmt, overflow="inf")
    assert_same(as_inf, torch.tensor([top, lost, -lost, lost, -lost]))
    assert cast(x, fmt, overflow="saturate").tolist() == [top, top, -top, top, -top]
    assert_same(cast(x, fmt), cast(x, fmt, overflow="inf" if fmt.has_inf else "saturate"))
    text = (
        rf"^2 of 5 values are too large for {fmt.name}: the largest is .*, the format ends at {fmt.max:.6g}\.".replace(
            "+", r"\+"
        )
    )
    with pytest.raises(OverflowError, match=text):
        cast(x, fmt, overflow="raise")
    assert cast(x[:1], fmt, overflow="raise").item() == top
    at = torch.tensor([fmt.overflow_at])
    if fmt.has_inf:
        with pytest.raises(OverflowError, match="1 of 1 values"):
            cast(at, fmt, overflow="raise")
    else:
        assert cast(at, fmt, overflow="raise").item() == top


def test_overflow_of_fp32_needs_a_wider_input() -> None:
    x = torch.tensor([3e38, 1e39, -1e39], dtype=torch.float64)
    assert cast(x, FP32).tolist() == [torch.tensor(3e38).item(), INF, -INF]
    assert cast(x, FP32, overflow="saturate")[1:].tolist() == [FP32.max, -FP32.max]
    with pytest.raises(OverflowError, match=r"2 of 3 values are too large for FP32: the largest is 1e\+39"):
        cast(x, FP32, overflow="raise")


def test_raise_says_what_to_do_and_lets_inf_and_nan_pass() -> None:
    text = r'is 70000, the format ends at 65504\. Scale them down, or ask for overflow="saturate" or overflow="inf"\.$'
    with pytest.raises(OverflowError, match=text):
        cast(torch.tensor([1.0, -70000.0]), FP16, overflow="raise")
    passed = cast(torch.tensor([INF, -INF, math.nan, 1.0]), FP16, overflow="raise")
    assert_same(passed, torch.tensor([INF, -INF, math.nan, 1.0]))


@pytest.mark.parametrize("rounding", ["zero", "up", "down", "stochastic"])
def test_raise_under_other_roundings_counts_what_is_beyond_max(rounding: Any) -> None:
    with pytest.raises(OverflowError, match="1 of 2 values are too large for FP16: the largest is 65505"):
        cast(torch.tensor([65504.0, 65505.0]), FP16, rounding, "raise")


@pytest.mark.parametrize("fmt", [FP16, BF16, E5M2], ids=str)
def test_under_torch_compile_nothing_is_converted_there_and_back(
    fmt: FloatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler removes such a pair as useless (its default), and the rounding with it."""
    used: list[FloatFormat] = []
    arithmetic = casting.round_to

    def spy(x: Tensor, fmt: FloatFormat, *rest: Any, **options: Any) -> Tensor:
        used.append(fmt)
        return arithmetic(x, fmt, *rest, **options)

    x = random_patterns(2**12)
    expected = cast(x, fmt)
    monkeypatch.setattr(casting, "round_to", spy)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert_same(cast(x, fmt), expected, x)
    assert used == [fmt]


def call(x: Any, fmt: Any = FP16, **options: Any) -> Tensor:
    return cast(x, fmt, **options)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((torch.ones(1), "fp16"), {}, TypeError, r"asked for, but 'fp16' \(str\) came; write mpkit\.FP16\."),
        ((torch.ones(1), torch.float16), {}, TypeError, r"but torch\.float16 \(dtype\) came; write mpkit\.FP16\."),
        ((torch.tensor([1]),), {}, TypeError, r"floating-point .* torch\.int64 came; convert it first: x\.float\(\)\."),
        ((torch.tensor([True]),), {}, TypeError, r"but torch\.bool came"),
        ((1.5,), {}, TypeError, r"a tensor is asked for, but float came; wrap it: torch\.tensor\(x\)\."),
        ((torch.ones(1),), {"rounding": "even"}, ValueError, r"rounding='even' is unknown; use one of nearest, zero"),
        ((torch.ones(1),), {"overflow": "clip"}, ValueError, r"overflow='clip' is unknown; use one of inf, saturate, "),
    ],
)  # fmt: skip
def test_wrong_input_is_named_with_its_cure(arguments: Any, options: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        call(*arguments, **options)


def test_a_parameter_and_a_large_tensor_work_as_any_other() -> None:
    parameter = torch.nn.Parameter(torch.full((2, 2), 0.1))
    assert torch.equal(cast(parameter, FP16), torch.full((2, 2), 0.1).half().float())
    x = random_patterns(2**18 + 3)  # one block and a bit
    assert_same(cast(x, FloatFormat("half", 5, 10)), x.half().float(), x)
