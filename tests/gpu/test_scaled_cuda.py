"""FP8 products of the GPU itself against the emulated ones, and scaled casts there against those of the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpkit import BF16, E5M2, FP32, Policy
from mpkit.policy import LinearRecipe
from mpkit.policy.kernels import require_native
from mpkit.policy.policy import PRESETS
from mpkit.scaled import FP8_ROW, SCALED_FORMATS, quantize, scaled_cast

HERE = torch.cuda.is_available()
OLD = not HERE or torch.cuda.get_device_capability() < (8, 9)
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not HERE, reason="needs a CUDA device")]

RECIPES = {
    "tensor": PRESETS["fp8-mixed"].linear,
    "row": LinearRecipe("rows", FP8_ROW, FP8_ROW, FP8_ROW.but(values=E5M2)),
    "128": PRESETS["fp8-block"].linear,
}


def data(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Normal numbers whose rows and columns have factors of their own: a scale in a wrong place would be seen."""
    draw = torch.Generator().manual_seed(seed)
    high, wide = (torch.randint(-4, 5, (n,), generator=draw) for n in (rows, columns))
    return (torch.randn(rows, columns, generator=draw) * 2.0 ** (high[:, None] + wide)).cuda()


def linear(into: int, out: int) -> nn.Linear:
    """A layer whose weights have a factor of their own in every block of 128 x 128; torch's own are alike in all."""
    draw = torch.Generator().manual_seed(1)
    layer, blocks = nn.Linear(into, out, bias=False).cuda(), (-(-out // 128), -(-into // 128))
    factors = 2.0 ** torch.randint(-4, 5, blocks, generator=draw)
    weight = (
        torch.randn(out, into, generator=draw)
        * factors.repeat_interleave(128, 0).repeat_interleave(128, 1)[:out, :into]
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def products(recipe: LinearRecipe, forward: Any, engine: str, rows: int, into: int, out: int) -> list[Tensor]:
    """y, dx and dW of a linear layer."""
    layer, x = linear(into, out), data(rows, into).requires_grad_()
    with Policy(FP32, forward, forward, FP32, FP32, recipe).apply(layer, engine=engine):
        y = layer(x)
        (y.float() * data(rows, out, 5)).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is not None
    return [y.detach().float(), x.grad, layer.weight.grad]


@pytest.mark.skipif(OLD, reason="needs a GPU that multiplies in FP8")
@pytest.mark.parametrize("forward", [FP32, BF16])
@pytest.mark.parametrize("sizes", [(64, 128, 256), (7, 64, 10), (300, 200, 72), (512, 1024, 640)])
@pytest.mark.parametrize("name", RECIPES)
def test_the_gpus_products_are_the_emulated_ones(name: str, sizes: tuple[int, int, int], forward: Any) -> None:
    """Within the rounding of the result, and of the accumulator, which keeps 14 bits or so in "fast" sums forward.

    Power: FP32 is at least five times as far away.
    """
    recipe = RECIPES[name]
    assert recipe is not None
    try:
        require_native(recipe, torch.device("cuda"))
    except ValueError:
        pytest.skip("needs compute capability 9.x with CUDA 12.9")
    native = products(recipe, forward, "native", *sizes)
    emulated = products(recipe, forward, "emulated", *sizes)
    exact = _plain(*sizes)
    for got, expected, plain in zip(native, emulated, exact, strict=True):
        apart = (got - expected).norm() / expected.norm()
        assert apart < 2**-7
        assert (plain - expected).norm() > 3 * (got - expected).norm()


def _plain(rows: int, into: int, out: int) -> list[Tensor]:
    layer, x = linear(into, out), data(rows, into).requires_grad_()
    y = layer(x)
    (y * data(rows, out, 5)).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is not None
    return [y.detach(), x.grad, layer.weight.grad]


@pytest.mark.parametrize("name", SCALED_FORMATS)
@pytest.mark.parametrize("size", [(64, 256), (7, 100), (1, 4096)])
def test_scaled_casts_are_those_of_the_cpu(name: str, size: tuple[int, int]) -> None:
    fmt, x = SCALED_FORMATS[name], data(*size) * torch.logspace(-8, 8, size[1]).cuda()
    x[0, 3], x[0, 5] = 0.0, -0.0
    here, there = quantize(x, fmt), quantize(x.cpu(), fmt)
    assert torch.equal(here.values.cpu(), there.values)
    assert torch.equal(here.scales.cpu(), there.scales)
    assert torch.equal(scaled_cast(x, fmt).cpu(), scaled_cast(x.cpu(), fmt))


@pytest.mark.parametrize("name", SCALED_FORMATS)
def test_compiled_scaled_casts_are_the_eager_ones(name: str) -> None:
    fmt, x = SCALED_FORMATS[name], data(256, 1024)
    torch._dynamo.reset()
    compiled = torch.compile(lambda t: scaled_cast(t, fmt))
    assert torch.equal(compiled(x), scaled_cast(x, fmt))
