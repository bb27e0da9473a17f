"""Policies whose linear layers multiply below 16 bits: against products written out, and torch's FP8 kernels."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import E4M3, FP16, FP32, Batches, LossScaler, NoScaling, Policy, fit, scaled_cast
from mpkit.policy import INT8_FORWARD, LinearRecipe
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
    assert recipe.grad is not None
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


def test_int8_mixed_rounds_all_three_products_and_int8_forward_one() -> None:
    """torchao's INT8 mixed-precision training has output, grad_input and grad_weight in INT8, each scaled by row."""
    recipe = PRESETS["int8-mixed"].linear
    assert recipe is not None
    assert (recipe.input, recipe.weight, recipe.grad, recipe.grad_rounding) == (INT8_ROW,) * 3 + ("nearest",)
    assert (INT8_FORWARD.input, INT8_FORWARD.weight, INT8_FORWARD.grad) == (INT8_ROW, INT8_ROW, None)
    assert str(INT8_FORWARD) == "int8-forward"
    y, dx, dw, _ = gradients(linear(), data(), Policy(linear=INT8_FORWARD))
    g, x, w = data(48, 40, 5), scaled_cast(data(), INT8_ROW), scaled_cast(linear().weight.detach(), INT8_ROW)
    assert torch.equal(y, x @ w.t() + linear().bias.detach())
    assert torch.equal(dx, g @ w)
    assert torch.equal(dw, g.t() @ x)


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


@EACH
@pytest.mark.parametrize("sizes", [((4, 0), 0, 8), ((2, 3, 0), 0, 8), ((4, 20), 20, 0), ((0, 20), 20, 8),
                                   ((2, 0, 20), 20, 8), ((20,), 20, 8)])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_rows_or_features(name: str, sizes: Any) -> None:
    """As torch's own: a sum of nothing is 0, and the bias remains."""
    shape, into, out = sizes
    layer, x = nn.Linear(into, out), torch.ones(shape, requires_grad=True)
    for engine in ["emulated", "native"] if name == "fp8-mixed" else ["emulated"]:
        x.grad, layer.weight.grad = None, None
        with PRESETS[name].apply(layer, engine=engine):
            y = layer(x)
            y.float().sum().backward()
        assert y.shape == (*shape[:-1], out)
        assert x.grad is not None
        assert layer.weight.grad is not None
        assert (x.grad.shape, layer.weight.grad.shape) == (x.shape, layer.weight.shape)
        if not x.numel():
            assert torch.equal(y.float(), layer.bias.bfloat16().float().expand_as(y))


@EACH
def test_what_a_layer_keeps_goes_by_the_hooks_on_saved_tensors(name: str) -> None:
    """Hooks that put zeros in the place of what is saved make the gradients zeros; and each operand is kept once."""
    recipe = PRESETS[name].linear
    for engine in ["emulated", "native"] if name == "fp8-mixed" else ["emulated"]:
        layer, x, packed = linear(out=48, bias=False), data().requires_grad_(), list[int]()

        def pack(x: Tensor, packed: list[int] = packed) -> Tensor:
            packed.append(x.numel())
            return torch.zeros_like(x)

        with (
            Policy(linear=recipe).apply(layer, engine=engine),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x),
        ):
            layer(x).backward(data(48, 48, 5))
        assert x.grad is not None
        assert layer.weight.grad is not None
        assert not x.grad.any()
        assert not layer.weight.grad.any()
        assert sum(packed) <= x.numel() + layer.weight.numel() + 2  # and two scales


@pytest.mark.parametrize("name", [name for name in SCALED if name != "nvfp4"])  # which draws
def test_transforms_of_torch_func_give_the_same_gradients(name: str) -> None:
    """Under vmap each example is a tensor of its own, with its own scales."""
    layer, x, factors = linear(), data(), data(48, 40, 5)

    def loss(weights: Any, x: Tensor) -> Tensor:
        return (torch.func.functional_call(layer, weights, x).float() * factors[: len(x)]).sum()

    y = gradients(layer, x, PRESETS[name])
    weights = {key: p.detach() for key, p in layer.named_parameters()}
    with PRESETS[name].apply(layer):
        dw, dx = torch.func.grad(loss, (0, 1))(weights, x)
        each = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, x.view(6, 8, 64))
        one = torch.func.grad(loss)(weights, x[40:])
    for got, expected in zip([dx, dw["weight"], dw["bias"]], y[1:], strict=True):
        assert torch.equal(got, expected)
    for key in one:
        torch.testing.assert_close(each[key][5], one[key])


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
