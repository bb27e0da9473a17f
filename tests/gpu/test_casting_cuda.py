"""Rounding on a GPU gives the bits that it gives on the CPU, in every format and every deterministic rounding."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from oracles.float_oracle import around, assert_same, grid, random_patterns, special

from mpkit.casting import cast, fake_cast
from mpkit.formats import BF16, E4M3, E5M2, FP16, FP32, TF32, FloatFormat

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch.cuda.is_available() is False"),
]
E5M7 = FloatFormat("e5m7", exponent_bits=5, mantissa_bits=7)
E3M2 = FloatFormat("e3m2fn", exponent_bits=3, mantissa_bits=2, has_inf=False)
ALL = [FP32, TF32, FP16, BF16, E4M3, E5M2, E5M7, E3M2]
BOUNDED = [FP16, BF16, E4M3, E5M2, E5M7, E3M2]
ROUNDINGS: list[Any] = ["nearest", "zero", "up", "down"]
OVERFLOWS: list[Any] = ["inf", "saturate"]


def inputs(fmt: FloatFormat, count: int = 2**20) -> torch.Tensor:
    known = [special(), random_patterns(count)]
    if fmt.bits <= 16:
        known.append(around(grid(fmt.exponent_bits, fmt.mantissa_bits, fmt.has_inf)))
    return torch.cat(known)


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_cuda_gives_the_bits_of_the_cpu(fmt: FloatFormat, rounding: Any, overflow: Any) -> None:
    x = inputs(fmt)
    for wide in (x, x.double() * (1 + 2.0**-40)):
        assert_same(cast(wide.cuda(), fmt, rounding, overflow).cpu(), cast(wide, fmt, rounding, overflow), wide)


@pytest.mark.parametrize("fmt", [FP16, BF16, E5M2], ids=str)
@pytest.mark.parametrize("arithmetic", [False, True], ids=["torch's way", "arithmetic"])
def test_cuda_gives_the_bits_of_torchs_own_conversion(fmt: FloatFormat, arithmetic: bool) -> None:
    x = inputs(fmt, 2**22).cuda()
    unknown = FloatFormat(fmt.name, fmt.exponent_bits, fmt.mantissa_bits)
    assert fmt.dtype is not None
    assert_same(cast(x, unknown if arithmetic else fmt).cpu(), x.to(fmt.dtype).float().cpu(), x.cpu())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fmt", BOUNDED, ids=str)
def test_every_16_bit_input(fmt: FloatFormat, dtype: torch.dtype) -> None:
    x = torch.arange(2**16).to(torch.uint16).view(dtype)
    assert_same(cast(x.cuda(), fmt).cpu(), cast(x, fmt), x)


def test_layouts_and_gradients_stay_on_the_device() -> None:
    x = torch.randn(3, 4, 5, device="cuda")
    for view in (x[:, ::2], x.mT, x[0, 0, 0], x[:0], x[1:2].expand(6, 4, 5)):
        kept = view.clone()
        y = cast(view, E4M3)
        assert (y.device, y.shape, y.dtype) == (view.device, view.shape, view.dtype)
        assert_same(y.cpu(), cast(view.cpu(), E4M3))
        assert_same(view.cpu(), kept.cpu())
    leaf = torch.randn(100, device="cuda", requires_grad=True)
    weight = torch.randn(100, device="cuda")
    (fake_cast(leaf, FP16, E5M2) * weight).sum().backward()
    assert leaf.grad is not None
    assert_same(leaf.grad.cpu(), cast(weight.cpu(), E5M2))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("fmt", [FP16, BF16, E4M3, E5M7], ids=str)
def test_stochastic_rounding_on_the_device(fmt: FloatFormat, sign: float) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    values = fmt.values().float().cuda()
    assert_same(cast(values, fmt, "stochastic", generator=generator).cpu(), values.cpu())
    for low in (1.0, 3 * fmt.smallest_subnormal, 0.0, fmt.max - fmt.spacing(fmt.max)):
        ulp = fmt.spacing(low)
        x = torch.full((400_000,), sign * (low + 0.25 * ulp), device="cuda")
        y = cast(x, fmt, "stochastic", generator=generator).abs()
        assert bool(((y == low) | (y == low + ulp)).all())
        assert abs((y > low).double().mean().item() - 0.25) <= 4 * math.sqrt(0.25 * 0.75 / 400_000)
    one, two = (
        cast(torch.randn(1000, device="cuda", generator=seeded), fmt, "stochastic", generator=seeded)
        for seeded in (torch.Generator("cuda").manual_seed(7), torch.Generator("cuda").manual_seed(7))
    )
    assert_same(one.cpu(), two.cpu())


def test_raise_counts_on_the_device() -> None:
    with pytest.raises(OverflowError, match="2 of 3 values are too large for FP16: the largest is 70000"):
        cast(torch.tensor([1.0, -70000.0, 65520.0], device="cuda"), FP16, overflow="raise")


@pytest.mark.parametrize("fmt", [FP16, BF16, E5M2], ids=str)
def test_all_float32_inputs_are_rounded_as_torch_rounds_them(fmt: FloatFormat) -> None:
    """All 2^32 bit patterns through the arithmetic, against the device's own conversion; NaN only has to stay NaN."""
    unknown = FloatFormat(fmt.name, fmt.exponent_bits, fmt.mantissa_bits)
    assert fmt.dtype is not None
    size = 2**26
    offsets = torch.arange(size, dtype=torch.int32, device="cuda")
    wrong = torch.zeros((), dtype=torch.int64, device="cuda")
    for start in range(-(2**31), 2**31, size):
        x = (offsets + start).view(torch.float32)
        ours, torchs = cast(x, unknown), x.to(fmt.dtype).float()
        same = (ours.view(torch.int32) == torchs.view(torch.int32)) | (ours.isnan() & torchs.isnan())
        wrong += (~same).sum()
    assert int(wrong) == 0


@pytest.mark.parametrize("fmt", [FP16, BF16, E4M3, E5M2, E5M7], ids=str)
def test_compiled_casts_round_too(fmt: FloatFormat) -> None:
    """torch.compile drops a conversion to float16 and back, so a compiled cast must not be made of one."""
    x = inputs(fmt, 2**16).cuda()
    torch.compiler.reset()
    compiled = torch.compile(lambda values: cast(values, fmt))
    assert_same(compiled(x).cpu(), cast(x, fmt).cpu(), x.cpu())


@pytest.mark.parametrize("fmt", [FP16, TF32, E4M3, E5M7], ids=str)
def test_compiled_casts_draw_in_their_kernel(fmt: FloatFormat) -> None:
    x = inputs(fmt, 2**16).cuda()
    x = x[~x.isnan()]
    torch.compiler.reset()
    torch.manual_seed(0)
    compiled = torch.compile(lambda values: cast(values, fmt, "stochastic"), fullgraph=True)
    y, low, high = compiled(x), cast(x, fmt, "down"), cast(x, fmt, "up")
    assert bool(((y == low) | (y == high)).all())
    assert_same(compiled(low).cpu(), low.cpu())
    between = torch.full((400_000,), 1 + 0.25 * fmt.epsilon, device="cuda")
    up = (compiled(between) > 1).double()
    assert abs(up.mean().item() - 0.25) <= 4 * math.sqrt(0.25 * 0.75 / 400_000)
    assert not torch.equal((compiled(between) > 1).double(), up)
