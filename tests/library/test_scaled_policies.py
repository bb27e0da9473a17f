"""Policies whose linear layers multiply below 16 bits: against products written out, and torch's FP8 kernels."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import E4M3, FP16, FP32, Batches, LossScaler, NoScaling, Policy, fit, scaled_cast
from mpkit.policy import LinearRecipe
from mpkit.policy.policy import PRESETS
from mpkit.scaled import FP8_TENSOR, INT8_ROW, MXFP8, NVFP4

SCALED = ["fp8-mixed", "fp8-block", "mxfp8", "nvfp4", "int8-mixed"]
EACH = pytest.mark.parametrize("name", SCALED)


def data(rows: int = 48, columns: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def linear(seed: int = 0, out: int = 40, bias: bool = True) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(64, out, bias)


def gradients(model: nn.Module, x: Tensor, policy: Policy, engine: str = "emulated") -> list[Tensor]:
    """The result, the gradient of the input and the parameters' under a loss that is not symmetric."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    torch.manual_seed(1)
    with policy.apply(model, engine=engine):
        y = model(x)
        (y.float() * data(y.shape[0], y.shape[-1], 5)).sum().backward()
    assert x.grad is not None
    return [y.detach().float(), x.grad.float(), *(p.grad.float() for p in model.parameters() if p.grad is not None)]


@EACH
def test_the_three_products_are_as_the_recipe_says(name: str) -> None:
    """FP32 around them, so that only the recipe rounds. Each operand along the dimension that is added up."""
    recipe = PRESETS[name].linear
    assert recipe is not None
    layer, x = linear(), data()
    y, dx, dw, db = gradients(layer, x, Policy(linear=recipe))
    g, w = data(48, 40, 5), layer.weight.detach()
    torch.manual_seed(1)
    assert torch.equal(y, scaled_cast(x, recipe.input) @ scaled_cast(w, recipe.weight).t() + layer.bias.detach())
    if recipe.grad is None:
        assert torch.equal(dx, g @ scaled_cast(w, recipe.weight))
        assert torch.equal(dw, g.t() @ scaled_cast(x, recipe.input))
    else:
        how = recipe.grad_rounding
        assert torch.equal(dx, scaled_cast(g, recipe.grad, how) @ scaled_cast(w.t(), recipe.weight).t())
        assert torch.equal(dw, scaled_cast(g.t(), recipe.grad, how) @ scaled_cast(x.t(), recipe.input).t())
    assert torch.equal(db, g.sum(0))


@EACH
def test_everything_else_is_as_under_bf16_mixed(name: str) -> None:
    """A convolution, a norm and a loss know nothing of it, and the result of a linear layer is a BF16 number."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.LayerNorm(72))
    x = data(4, 64).view(4, 1, 8, 8)
    for got, expected in zip(
        gradients(model, x, PRESETS[name]), gradients(model, x, PRESETS["bf16-mixed"]), strict=True
    ):
        assert torch.equal(got, expected)
    y = gradients(linear(), data(), PRESETS[name])[0]
    assert torch.equal(y, y.bfloat16().float())


@EACH
def test_its_error_is_between_its_formats_and_zero(name: str) -> None:
    """Power: the same distance from FP32 for bf16-mixed is far smaller, so the recipe did something."""
    exact = gradients(linear(), data(), Policy())
    own = [
        float((a - b).norm() / b.norm()) for a, b in zip(gradients(linear(), data(), PRESETS[name]), exact, strict=True)
    ]
    bf16 = [
        float((a - b).norm() / b.norm())
        for a, b in zip(gradients(linear(), data(), PRESETS["bf16-mixed"]), exact, strict=True)
    ]
    most = {"nvfp4": 0.25, "int8-mixed": 0.02}.get(name, 0.08)
    assert all(1.5 * low < got < most for got, low in zip(own[:3], bf16[:3], strict=True))


def test_fp8_on_torchs_own_kernels_is_the_emulated_one() -> None:
    """Within the rounding of the result to BF16, twice where a bias is added. FP32 is ten times as far away."""
    for bias, out, rows in [(True, 40, 48), (False, 10, 7)]:  # sizes that are no multiple of 16, too
        layer, x = linear(bias=bias, out=out), data(rows)
        native = gradients(layer, x, PRESETS["fp8-mixed"], engine="native")
        emulated = gradients(layer, x, PRESETS["fp8-mixed"])
        for got, expected in zip(native, emulated, strict=True):
            # One step of BF16 of the largest value: the sums' order differs, and roundings may fall either way.
            torch.testing.assert_close(got, expected, rtol=2**-7, atol=2**-8 * float(expected.abs().max()))
        exact = gradients(layer, x, Policy())
        assert (native[0] - exact[0]).norm() > 5 * (native[0] - emulated[0]).norm()


def test_native_fp8_trains_and_restores() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, target = data(64), torch.arange(64) % 10
    losses = []
    for _ in range(30):
        with PRESETS["fp8-mixed"].apply(model, engine="native"):
            loss = F.cross_entropy(model(x).float(), target)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert model(x).dtype == torch.float32


@EACH
def test_fit_trains_under_it(name: str) -> None:
    x, target = data(64), torch.arange(64) % 10
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    batches = Batches(x, target, batch_size=64)
    run = fit(model, batches, policy=PRESETS[name], scaler=LossScaler(NoScaling()), optimizer=optimizer, steps=20)
    records = list(run)
    assert records[-1].loss < records[0].loss


@pytest.mark.parametrize("layer", [nn.MultiheadAttention(64, 4, batch_first=True), nn.LSTM(64, 32, batch_first=True)])
def test_layers_with_linear_layers_inside(layer: nn.Module) -> None:
    model = copy.deepcopy(layer)
    x = data(12).view(3, 4, 64)
    given = (x, x, x) if isinstance(model, nn.MultiheadAttention) else (x,)
    with PRESETS["mxfp8"].apply(model):
        low = model(*given)[0]
    with PRESETS["bf16-mixed"].apply(model):
        bf16 = model(*given)[0]
    assert 0.002 < float((low - bf16).detach().norm() / bf16.detach().norm()) < 0.2


def test_fp16_around_int8_needs_and_takes_a_loss_scale() -> None:
    """Integers on top of mixed precision as the article means it: the recipe beside FP16."""
    policy = Policy(FP32, FP16, FP16, FP32, FP32, PRESETS["int8-mixed"].linear)
    y = gradients(linear(), data(), policy)[0]
    assert torch.equal(y, y.half().float())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Policy(linear="fp8"), r"linear is a LinearRecipe of mpkit\.policy or None, but 'fp8' \(str\) came"),  # type: ignore[arg-type]
        (lambda: LinearRecipe("x", E4M3, MXFP8, None), r"'x' asks for a scaled format of its input, but .*E4M3"),  # type: ignore[arg-type]
        (lambda: LinearRecipe("x", MXFP8, None, NVFP4), r"'x' asks for a scaled format of its weight, but None"),  # type: ignore[arg-type]
    ],
)
def test_bad_recipes_are_refused(make: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        make()


def test_no_second_derivative_is_promised() -> None:
    layer, x = linear(), data().requires_grad_()
    with PRESETS["fp8-mixed"].apply(layer):
        y = layer(x).sum()
        (first,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        first.sum().backward()


def test_recipes_read_as_their_names() -> None:
    assert [str(PRESETS[name].linear) for name in SCALED] == SCALED
    assert str(LinearRecipe("own", FP8_TENSOR, INT8_ROW, None)) == "own"
