"""Scaled formats against numpy and ml_dtypes, written out again from the standards' own words."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor

from mpkit import E2M1, E3M2, E4M3, FP16, scaled_cast
from mpkit.scaled import (
    FP8_BLOCK,
    FP8_TENSOR,
    INT2,
    INT8,
    INT8_ROW,
    MXFP4,
    MXFP6,
    MXFP8,
    NVFP4,
    SCALED_FORMATS,
    DelayedAmax,
    IntFormat,
    ScaledFormat,
    quantize,
    report,
)  # fmt: skip
from mpkit.scaled.scales import scale_of

PEER = {
    "E4M3": ml_dtypes.float8_e4m3fn, "E2M1": ml_dtypes.float4_e2m1fn, "E2M3": ml_dtypes.float6_e2m3fn,
    "E3M2": ml_dtypes.float6_e3m2fn,
}  # fmt: skip
NAMED = pytest.mark.parametrize("fmt", SCALED_FORMATS.values(), ids=str)


def narrow(x: np.ndarray, values: Any) -> np.ndarray:
    """To the small format by a peer: ml_dtypes, saturating; numpy's round for integers."""
    x = np.clip(x, -values.max, values.max)
    return np.round(x) if values.name.startswith("INT") else x.astype(PEER[values.name]).astype(np.float32)


def by_hand(x: np.ndarray, fmt: ScaledFormat) -> tuple[np.ndarray, np.ndarray]:
    """The tensor that the format stands for, and each element's scale: block by block, exponents by float64 log2."""
    out, scales = np.empty_like(x), np.empty_like(x)
    high, wide = fmt.block[0] or x.shape[0], fmt.block[1] or x.shape[1]
    whole = np.float32(np.abs(x).max() / (fmt.values.max * 448)) or np.float32(1)
    for top in range(0, x.shape[0], high):
        for left in range(0, x.shape[1], wide):
            place = slice(top, top + high), slice(left, left + wide)
            amax = np.abs(x[place]).max()
            if fmt.two_level:
                second = np.float32(np.float32(amax / np.float32(fmt.values.max)) / whole).astype(PEER["E4M3"])
                scale = second.astype(np.float32) * whole
            elif amax == 0:
                scale = np.float32(1)
            elif fmt.rule == "exact":
                scale = amax / np.float32(fmt.values.max)
            elif fmt.rule == "floor":
                scale = np.float32(2.0 ** (math.floor(math.log2(amax)) - math.floor(math.log2(fmt.values.max))))
            else:
                scale = np.float32(2.0 ** math.ceil(math.log2(float(amax)) - math.log2(fmt.values.max)))
            scales[place] = scale
            out[place] = narrow(x[place] / scale, fmt.values) * scale if scale else 0
    return out, scales


def sample(rows: int = 37, columns: int = 150, seed: int = 0) -> Tensor:
    """Values over many binades, a row of zeros, a block of zeros; the blocks do not fit."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator) * torch.exp2(torch.randn(rows, 1, generator=generator) * 4)
    x[3] = 0
    x[-1, :64] = 0
    return x


@NAMED
@pytest.mark.parametrize("seed", range(5))
def test_every_named_format_is_the_peers(fmt: ScaledFormat, seed: int) -> None:
    x = sample(seed=seed)
    expected, scales = by_hand(x.numpy(), fmt)
    assert np.array_equal(scaled_cast(x, fmt).numpy(), expected)
    small = quantize(x, fmt)
    assert np.array_equal(small.dequantize().numpy(), expected)
    assert np.isin(small.values.numpy(), fmt.values.values().numpy()).all()
    high, wide = fmt.block[0] or len(x), fmt.block[1] or x.shape[1]
    assert np.array_equal(small.scales.numpy(), scales[::high, ::wide])


@pytest.mark.parametrize("block", [(None, None), (1, None), (None, 1), (1, 16), (16, 16), (128, 128), (5, 7)])
@pytest.mark.parametrize("rule", ["exact", "floor", "up"])
@pytest.mark.parametrize("values", [E4M3, E3M2, E2M1, INT8, INT2], ids=str)
def test_every_block_and_rule_is_the_peers(block: Any, rule: Any, values: Any) -> None:
    fmt = ScaledFormat("any", values, block, rule)
    assert np.array_equal(scaled_cast(sample(), fmt).numpy(), by_hand(sample().numpy(), fmt)[0])


@NAMED
def test_strips_change_nothing(fmt: ScaledFormat) -> None:
    """More than 2^18 values are rounded part by part, within rows of blocks and within one block."""
    x = sample(700, 512)
    assert np.array_equal(scaled_cast(x, fmt).numpy(), by_hand(x.numpy(), fmt)[0])


@NAMED
def test_shapes_dtypes_and_strides(fmt: ScaledFormat) -> None:
    x = sample(40, 64)
    cube = x.view(2, 4, 5, 64)
    assert torch.equal(scaled_cast(cube, fmt), scaled_cast(x, fmt).view_as(cube))
    assert torch.equal(scaled_cast(x.t(), fmt), scaled_cast(x.t().contiguous(), fmt))
    assert torch.equal(scaled_cast(x.bfloat16(), fmt), scaled_cast(x.bfloat16().float(), fmt).bfloat16())
    assert scaled_cast(x[0], fmt).shape == (64,)
    assert scaled_cast(x[0, 0], fmt).shape == ()
    assert scaled_cast(x[:0], fmt).shape == quantize(x[:0], fmt).dequantize().shape == (0, 64)


@NAMED
def test_a_tensor_of_zeros_stays_zero(fmt: ScaledFormat) -> None:
    assert torch.equal(scaled_cast(torch.zeros(4, 64), fmt), torch.zeros(4, 64))


@NAMED
@pytest.mark.parametrize("wild", [math.inf, -math.inf, math.nan])
def test_a_block_with_inf_or_nan_becomes_nan(fmt: ScaledFormat, wild: float) -> None:
    x = torch.ones(256, 256)
    x[0, 0] = wild
    good = scaled_cast(x, fmt)
    bad = good.isnan()
    high, wide = fmt.block[0] or 256, fmt.block[1] or 256
    expected = torch.zeros_like(bad)
    expected[:high, :wide] = True
    assert torch.equal(bad, expected)
    x[0, 0] = 1
    assert torch.equal(scaled_cast(x, fmt)[~bad], good[~bad])


def test_powers_of_two_next_to_their_boundaries() -> None:
    amax = torch.tensor([447.99997, 448.0, 448.00003, 896.0, 896.00006, 2.0**-126, 2.0**-149, 3e38, 0.0])
    up = scale_of(amax, 448.0, "up").tolist()
    assert up == [1.0, 1.0, 2.0, 2.0, 4.0, 2.0**-127, 2.0**-127, 2.0**120, 1.0]
    floor = scale_of(amax, 448.0, "floor").tolist()
    assert floor == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0**-127, 2.0**-127, 2.0**119, 1.0]


def test_nothing_saturates_under_up_and_exact_and_some_does_under_floor() -> None:
    """OCP's rule cuts off what lies between 1.75 and 2 times a power of two (E4M3), 1.5 and 2 (E2M1)."""
    x = torch.randn(20000, 32, generator=torch.Generator().manual_seed(0))
    assert report(x, MXFP8).blocks_saturated == report(x, MXFP4).blocks_saturated == 0
    assert 0.05 < report(x, MXFP8.but(rule="floor")).blocks_saturated < 0.2
    assert 0.1 < report(x, MXFP4.but(rule="floor")).blocks_saturated < 0.35


def test_integers_need_the_column_and_e4m3_does_not() -> None:
    """An outlier column: the error of the others (research/next.md, 2.2)."""
    x = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    x[:, 7] *= 1000
    others = torch.arange(512) != 7

    def error(fmt: ScaledFormat) -> float:
        back = scaled_cast(x, fmt)
        return float((back - x)[:, others].norm() / x[:, others].norm())

    assert error(INT8_ROW.but(block=(None, None))) > 0.99
    assert error(INT8_ROW.but(block=(None, 1))) < 0.01
    assert error(FP8_TENSOR) < 0.03
    assert error(FP8_TENSOR.but(block=(None, 1))) > 0.02


@NAMED
def test_stochastic_rounding_is_unbiased(fmt: ScaledFormat) -> None:
    x = torch.full((2000, 32), 0.2)
    x[:, 0] = 6.0
    torch.manual_seed(0)
    assert scaled_cast(x, fmt, "stochastic")[:, 1:].mean().item() == pytest.approx(0.2, rel=0.02)


def test_the_gradient_passes_straight_through() -> None:
    x = sample(4, 64).requires_grad_()
    y = scaled_cast(x, NVFP4)
    y.backward(torch.full_like(y, 3.0))
    assert torch.equal(y, scaled_cast(x.detach(), NVFP4))
    assert x.grad is not None
    assert bool((x.grad == 3).all())


def test_another_amax_saturates_what_is_larger() -> None:
    x = torch.tensor([[1.0, 100.0]])
    assert scaled_cast(x, FP8_TENSOR, amax=torch.tensor(10.0)).tolist() == [[pytest.approx(1.0, rel=0.04), 10.0]]
    assert report(x, FP8_TENSOR, torch.tensor(10.0)).saturated == 0.5


def test_delayed_amax_is_the_largest_of_the_last_steps() -> None:
    history = DelayedAmax(length=3, margin=1)
    assert history.amax is None
    for amax, expected in [(1.0, 2.0), (5.0, 10.0), (math.inf, 10.0), (2.0, 10.0), (1.0, 10.0), (1.0, 4.0)]:
        history = history.update(torch.tensor(amax))
        assert history.amax is not None
        assert history.amax.item() == expected
    first = DelayedAmax().update(torch.tensor(math.nan)).amax
    assert first is not None
    assert first.item() == 0
    with pytest.raises(ValueError, match="length=0 came; a history needs at least one step"):
        DelayedAmax(0)


def test_bits_per_value() -> None:
    assert MXFP8.bits_per_value(64, 64) == 8.25
    assert (MXFP6.bits_per_value(64, 64), MXFP4.bits_per_value(64, 64)) == (6.25, 4.25)
    assert NVFP4.bits_per_value(64, 64) == 4.5 + 32 / 4096
    assert FP8_BLOCK.bits_per_value(1, 100) == 8.32  # powers of two, but kept in FP32
    assert FP8_TENSOR.scale_format == FP8_BLOCK.scale_format == "FP32"
    assert MXFP8.but(rule="floor").scale_format == ScaledFormat("any", E4M3, (1, 32), "up").scale_format == "E8M0"
    assert (MXFP4.scale_format, NVFP4.scale_format) == ("E8M0", "E4M3")


def test_a_report_of_what_nothing_is_lost_of() -> None:
    found = report(torch.tensor([[448.0, 1.0, 0.0]]), FP8_TENSOR)
    assert (found.error, found.sqnr, found.saturated, found.flushed) == (0, math.inf, 0, 0)
    assert report(torch.tensor([[1.0, 1e-9]]), FP8_TENSOR).flushed == 0.5
    assert report(torch.tensor([1.1, 1.0]), FP8_TENSOR).sqnr == pytest.approx(
        -20 * math.log10(report(torch.tensor([1.1, 1.0]), FP8_TENSOR).error)
    )


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: ScaledFormat("x", "E4M3"), TypeError, r"'x' asks for a format of its values, but 'E4M3' \(str\) came"),  # type: ignore[arg-type]
        (lambda: ScaledFormat("x", FP16), ValueError, r"at most 8 bits, but FP16 has 16; wider formats need no scales"),
        (lambda: ScaledFormat("x", E4M3, (0, 3)), ValueError, r"block=\(0, 3\) came; a block is \(rows, columns\)"),
        (lambda: ScaledFormat("x", E4M3, 32), ValueError, r"block=32 came"),  # type: ignore[arg-type]
        (lambda: MXFP8.but(rule="ceil"), ValueError, r"rule='ceil' is unknown; use one of exact, floor, up\."),
        (lambda: NVFP4.but(rule="up"), ValueError, r'two_level=True keeps its scales in E4M3, with rule="exact"'),
        (lambda: NVFP4.but(wide_scales=True), ValueError, r'rule="exact"; rule=\'exact\' and wide_scales=True came\.'),
        (lambda: scaled_cast(torch.ones(2), E4M3), TypeError, r"a scaled format is asked for, but .*E4M3.* came; use"),  # type: ignore[arg-type]
        (lambda: scaled_cast(torch.ones(2).long(), MXFP8), TypeError, r"but torch\.int64 came; convert it first"),
        (lambda: scaled_cast([1.0], MXFP8), TypeError, r"but list came"),  # type: ignore[arg-type]
        (lambda: scaled_cast(torch.ones(2), INT8_ROW, "away"), ValueError, r"rounding='away' is unknown"),  # type: ignore[arg-type]
        (lambda: IntFormat("INT1", 1), ValueError, r"'INT1' asks for 1 bits; use 2 to 16, the sign included\."),
    ],
)  # fmt: skip
def test_bad_input_is_told_what_to_do(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize("fmt", [MXFP8, NVFP4], ids=str)
def test_compiled_is_the_same(fmt: ScaledFormat) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: scaled_cast(x, fmt), fullgraph=True)
    assert torch.equal(compiled(sample()), scaled_cast(sample(), fmt))
