"""Scaled formats where it is tight: the ends of a dtype, transforms of torch.func, policies, histories, odd shapes."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from mpkit import scaled_cast
from mpkit.policy.policy import PRESETS
from mpkit.rounding import Rounding
from mpkit.scaled import FP8_TENSOR, INT8_ROW, MXFP8, SCALED_FORMATS, DelayedAmax, ScaledFormat, quantize, report
from mpkit.scaled.blocks import as_blocks

NAMED = pytest.mark.parametrize("fmt", SCALED_FORMATS.values(), ids=str)


def data(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@NAMED
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("rounding", get_args(Rounding))
def test_what_is_finite_stays_finite(fmt: ScaledFormat, dtype: torch.dtype, rounding: Rounding) -> None:
    """The largest value may round up to beyond its dtype, and becomes the dtype's largest."""
    x = torch.full((4, 64), torch.finfo(dtype).max, dtype=dtype)
    x[1], x[2, :32] = -x[1], 1.0
    y = scaled_cast(x, fmt, rounding)
    assert y.dtype == dtype
    assert bool(y.isfinite().all())
    assert float((y.double() / x.double())[:2].sub(1).abs().max()) < 0.35  # a step of E2M1
    assert bool(quantize(x, fmt, rounding).dequantize().isfinite().all())
    x[3, 0] = math.nan
    assert bool(scaled_cast(x, fmt, rounding)[3, 0].isnan())


@NAMED
def test_transforms_of_torch_func_go_straight_through(fmt: ScaledFormat) -> None:
    x, t = data(3, 40, 64), data(3, 40, 64, seed=1)
    y, tangent = torch.func.jvp(lambda x: scaled_cast(x, fmt), (x,), (t,))
    assert torch.equal(y, scaled_cast(x, fmt))
    assert torch.equal(tangent, t)
    assert torch.equal(torch.func.grad(lambda x: (scaled_cast(x, fmt) * t).sum())(x), t)


@NAMED
def test_under_vmap_each_example_has_its_own_scales(fmt: ScaledFormat) -> None:
    x = data(3, 40, 64) * torch.tensor([1.0, 1e3, 1e-3])[:, None, None]
    each = torch.stack([scaled_cast(one, fmt) for one in x])
    assert torch.equal(torch.func.vmap(lambda x: scaled_cast(x, fmt))(x), each)
    assert torch.equal(torch.func.vmap(lambda x: scaled_cast(x, fmt), 1, 1)(x.transpose(0, 1)).transpose(0, 1), each)
    grads = torch.func.vmap(torch.func.grad(lambda x: (scaled_cast(x, fmt) ** 2).sum()))(x)
    assert torch.equal(grads, 2 * each)


def test_under_vmap_each_example_may_have_its_own_amax() -> None:
    x, amax = data(3, 64), torch.tensor([1.0, 2.0, 3.0])
    each = torch.stack([scaled_cast(one, FP8_TENSOR, "nearest", a) for one, a in zip(x, amax, strict=True)])
    assert torch.equal(torch.func.vmap(lambda x, a: scaled_cast(x, FP8_TENSOR, "nearest", a))(x, amax), each)
    same = torch.stack([scaled_cast(x[0], FP8_TENSOR, "nearest", a) for a in amax])
    assert torch.equal(torch.func.vmap(lambda a: scaled_cast(x[0], FP8_TENSOR, "nearest", a))(amax), same)


@pytest.mark.parametrize("policy", ["fp16-true", "bf16-true", "fp16-mixed", "fp8-mixed"])
@NAMED
def test_no_policy_rounds_the_steps_of_a_scaled_cast(fmt: ScaledFormat, policy: str) -> None:
    x = 1e-6 * data(40, 64)
    outside = scaled_cast(x, fmt), quantize(x, fmt).scales, quantize(x, fmt).values, quantize(x, fmt).dequantize()
    told = report(x, fmt)
    with PRESETS[policy].apply(nn.Linear(2, 2)):
        small = quantize(x, fmt)
        inside = scaled_cast(x, fmt), small.scales, small.values, small.dequantize()
        assert report(x, fmt) == told
    for a, b in zip(inside, outside, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("before", [[math.nan], [math.inf], [0.0], [math.nan, 0.0]])
@pytest.mark.parametrize("size", [1e-5, 1e5])
def test_a_history_that_has_seen_nothing_scales_by_the_present(before: list[float], size: float) -> None:
    history, x = DelayedAmax(), size * data(40, 64)
    for amax in before:
        history = history.update(torch.tensor(amax))
    assert history.amax is not None
    assert torch.equal(scaled_cast(x, FP8_TENSOR, amax=history.amax), scaled_cast(x, FP8_TENSOR))
    assert report(x, FP8_TENSOR, history.amax) == report(x, FP8_TENSOR)
    seen = history.update(torch.tensor(size)).amax
    assert seen is not None
    assert float(scaled_cast(x, FP8_TENSOR, amax=seen).abs().max()) == pytest.approx(size)


def test_of_several_amax_only_those_that_saw_nothing_are_the_present() -> None:
    x = data(3, 64)
    amax = torch.tensor([0.0, 2.0, 0.0])[:, None]
    y = scaled_cast(x, INT8_ROW, amax=amax)
    assert torch.equal(y[::2], scaled_cast(x, INT8_ROW)[::2])
    assert torch.equal(y[1:2], scaled_cast(x[1:2], INT8_ROW, amax=torch.tensor(2.0)))


@pytest.mark.parametrize("rounding", get_args(Rounding))
def test_representable_values_never_move(rounding: Rounding) -> None:
    """Random numbers in steps of 2^-24 next to 100: float32 x + r would become 101 once in 300,000 draws."""
    x = torch.full((1, 2**21), 100.0)
    x[0, 0] = 127
    torch.manual_seed(0)
    assert torch.equal(scaled_cast(x, INT8_ROW, rounding), x)


def test_narrow_tensors_are_not_filled_up() -> None:
    x = data(1000, 1)
    assert as_blocks(x, MXFP8.block).shape == (1000, 1, 1, 1)
    assert as_blocks(x.t(), (128, 128)).shape == (1, 1, 8, 128)
    wide = torch.cat([x, torch.zeros(1000, 31)], 1)
    for fmt in SCALED_FORMATS.values():
        assert torch.equal(scaled_cast(x, fmt), scaled_cast(wide, fmt)[:, :1])


@NAMED
@pytest.mark.parametrize("shape", [(0,), (0, 64), (5, 0), (2, 0, 64), (0, 0)])
def test_tensors_without_values(fmt: ScaledFormat, shape: Any) -> None:
    x = torch.zeros(shape)
    assert scaled_cast(x, fmt).shape == quantize(x, fmt).dequantize().shape == shape
    assert report(x, fmt).error == 0
