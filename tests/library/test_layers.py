"""Layers that are written out for a policy, against torch's own: values, gradients, and 16-bit results."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.overrides import TorchFunctionMode

from mpkit import Policy
from mpkit.policy.emulation import is_low
from mpkit.policy.layers import LAYERS
from mpkit.trees import map_tensors, tensors_in

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class WrittenOut(TorchFunctionMode):
    """Replaces the layers and rounds nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(func, "__name__", "")) in LAYERS:
            self.seen.append(name)
            return LAYERS[name](*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def drawn(layer: nn.Module) -> nn.Module:
    """The layer with weights that are the same in every run, and with biases that are not zero."""
    with torch.no_grad():
        for number, p in enumerate(layer.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(number)) / 4)
    return layer


def packed(x: Tensor, ordered: bool) -> PackedSequence:
    lengths = torch.tensor([5, 3, 1] if ordered else [2, 5, 4])
    return pack_padded_sequence(x, lengths, enforce_sorted=ordered)


x, cross = draw(5, 3, 8), draw(4, 3, 8)
causal = nn.Transformer.generate_square_subsequent_mask(5)
padding = torch.tensor([[False, False, False, False, True], [False] * 5, [False, False, True, True, True]])
three = torch.zeros(6, 5, 5).masked_fill(draw(6, 5, 5) > 1, float("-inf"))
RECURRENT: dict[str, tuple[Callable[..., nn.Module], tuple[Any, ...]]] = {}
for kind, one in {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}.items():
    states = (draw(4, 3, 6), draw(4, 3, 6))
    RECURRENT |= {
        kind: (lambda one=one: one(8, 6), (x,)),
        f"{kind}, no bias": (lambda one=one: one(8, 6, bias=False), (x,)),
        f"{kind}, unbatched": (lambda one=one: one(8, 6), (x[:, 0],)),
        f"{kind}, batch first": (lambda one=one: one(8, 6, batch_first=True), (x,)),
        f"{kind}, two layers both ways": (
            lambda one=one: one(8, 6, num_layers=2, bidirectional=True),
            (x, states if kind == "lstm" else states[0]),
        ),
        f"{kind}, dropout": (lambda one=one: one(8, 6, num_layers=3, dropout=0.5), (x,)),
        f"{kind}, dropout of 0": (lambda one=one: one(8, 6, num_layers=2, dropout=0.0), (x,)),
        f"{kind}, packed": (lambda one=one: one(8, 6), (packed(x, True),)),
        f"{kind}, packed in any order, both ways": (
            lambda one=one: one(8, 6, num_layers=2, bidirectional=True, bias=False),
            (packed(x, False), states if kind == "lstm" else states[0]),
        ),
    }
RECURRENT |= {
    "rnn, relu": (lambda: nn.RNN(8, 6, nonlinearity="relu"), (x,)),
    "lstm, projected": (lambda: nn.LSTM(8, 6, proj_size=4, num_layers=2, bidirectional=True), (x,)),
    "lstm, projected, no bias": (lambda: nn.LSTM(8, 6, proj_size=4, bias=False), (x,)),
    "lstm cell": (lambda: nn.LSTMCell(8, 6), (x[0],)),
    "lstm cell, state": (lambda: nn.LSTMCell(8, 6), (x[0], (draw(3, 6), draw(6, 3).T))),
    "gru cell": (lambda: nn.GRUCell(8, 6), (x[0],)),
    "gru cell, no bias": (lambda: nn.GRUCell(8, 6, bias=False), (x[0], draw(3, 6))),
    "rnn cell": (lambda: nn.RNNCell(8, 6), (x[0], draw(3, 6))),
    "rnn cell, relu": (lambda: nn.RNNCell(8, 6, nonlinearity="relu"), (x[0], draw(3, 6))),
}


class Call(nn.Module):
    """A layer that is called with keywords."""

    def __init__(self, layer: nn.Module, **kwargs: Any) -> None:
        super().__init__()
        self.layer, self.kwargs = layer, kwargs

    def forward(self, *args: Any) -> Any:
        return self.layer(
            *args, **map_tensors(lambda t: t.to(args[0].dtype) if t.is_floating_point() else t, self.kwargs)
        )


def mha(call: dict[str, Any] | None = None, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: Call(nn.MultiheadAttention(8, 2, **settings), **(call or {}))


def encoder(layers: int = 0, call: dict[str, Any] | None = None, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, **settings)
        return Call(nn.TransformerEncoder(layer, layers) if layers else layer, **(call or {}))

    return make


ATTENTION: dict[str, tuple[Callable[..., nn.Module], tuple[Any, ...]]] = {
    "self": (mha(), (x, x, x)),
    "without weights": (mha({"need_weights": False}), (x, x, x)),
    "weights of each head": (mha({"average_attn_weights": False}), (x, x, x)),
    "unbatched": (mha(), (x[:, 0], x[:, 0], x[:, 0])),
    "batch first": (mha(batch_first=True), (x, x, x)),
    "cross": (mha(), (cross, x, x)),
    "three inputs": (mha({"need_weights": False}), (x, 2 * x, 3 * x)),
    "other sizes": (mha(kdim=4, vdim=6), (x, x[..., :4], x[..., :6])),
    "no bias": (mha(bias=False), (x, x, x)),
    "bias of keys, zero attention": (mha(add_bias_kv=True, add_zero_attn=True), (x, x, x)),
    "causal": (mha({"attn_mask": causal, "is_causal": True, "need_weights": False}), (x, x, x)),
    "causal with weights": (mha({"attn_mask": causal}), (x, x, x)),
    "a mask of bools": (mha({"attn_mask": causal < 0, "key_padding_mask": padding}), (x, x, x)),
    "a mask each head": (mha({"attn_mask": three, "need_weights": False}), (x, x, x)),
    "padding": (mha({"key_padding_mask": padding, "need_weights": False}), (x, x, x)),
    "encoder layer": (encoder(), (x,)),
    "encoder layer, norm first, gelu": (encoder(norm_first=True, activation="gelu"), (x,)),
    "encoder": (encoder(2, {"src_key_padding_mask": padding}, batch_first=True), (x.transpose(0, 1),)),
    "encoder, causal": (encoder(2, {"mask": causal, "is_causal": True}), (x,)),
    "decoder": (lambda: nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0), (cross, x)),
}
CASES = {**{f"recurrent: {name}": case for name, case in RECURRENT.items()}, **ATTENTION}


def plainly(_: nn.Module) -> Any:
    """A block that does nothing."""
    return nullcontext()


def found(layer: nn.Module, inputs: tuple[Any, ...], block: Callable[[nn.Module], Any]) -> list[Tensor]:
    """Results, gradients of inputs and gradients of parameters, as float64."""
    layer = copy.deepcopy(layer)
    leaves = map_tensors(lambda t: t.detach().clone().requires_grad_(t.is_floating_point()), inputs)
    torch.manual_seed(0)
    with block(layer):
        results = [out for out in tensors_in(layer(*leaves)) if out.is_floating_point()]
    sum((out.double() * draw(*out.shape)).sum() for out in results).backward()  # type: ignore[union-attr]
    grads = [t.grad for t in (*tensors_in(leaves), *layer.parameters()) if t.is_floating_point()]
    return [t.detach().double() for t in (*results, *grads) if t is not None]


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("name", CASES)
def test_the_arithmetic_is_that_of_torchs_own_layer(name: str, training: bool) -> None:
    """In float64, where another formula, mask or order of weights would show."""
    make, inputs = CASES[name]
    layer = drawn(make()).double().train(training)
    inputs = map_tensors(lambda t: t.double() if t.is_floating_point() else t, inputs)
    mode = WrittenOut()
    mine, torchs = found(layer, inputs, lambda _: mode), found(layer, inputs, plainly)
    assert mode.seen
    assert len(mine) == len(torchs) >= len(list(layer.parameters()))
    for a, b in zip(mine, torchs, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def apart(a: list[Tensor], b: list[Tensor]) -> float:
    """Euclidean distance as a share of b's length."""
    one, other = (torch.cat([t.flatten() for t in some]) for some in (a, b))
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("policy", ["fp16-true", "bf16-true"])
@pytest.mark.parametrize("name", CASES)
def test_stored_low_it_is_a_layer_after_half(name: str, policy: str) -> None:
    """Torch's CPU kernels of a 16-bit layer: results nearly bit for bit, gradients but for the order they are added."""
    make, inputs = CASES[name]
    layer, dtype = drawn(make()), DTYPES[policy[:4]]
    low = map_tensors(lambda t: t.to(dtype) if t.is_floating_point() else t, inputs)
    with torch.backends.mkldnn.flags(enabled=False):  # on a CPU that computes in BF16 itself it rounds less often
        native = found(copy.deepcopy(layer).to(dtype), low, plainly)
    emulated = found(layer, inputs, Policy.preset(policy).apply)
    exact = found(layer, inputs, plainly)
    results = sum(out.is_floating_point() for out in tensors_in(layer(*inputs)))
    eps = torch.finfo(dtype).eps
    assert apart(emulated, native) < 2 * eps
    if name.startswith("recurrent") and "batch first" not in name:  # there torch adds the bias after a rounding
        assert apart(emulated[:results], native[:results]) < 0.1 * eps < apart(exact[:results], native[:results])


@pytest.mark.parametrize("policy", ["fp16-mixed", "bf16-mixed"])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_nearer_to_torch_autocast_than_fp32_is(name: str, policy: str) -> None:
    make, inputs = ATTENTION[name]
    layer, dtype = drawn(make()), DTYPES[policy[:4]]
    native = found(layer, inputs, lambda _: torch.autocast("cpu", dtype=dtype))
    emulated = found(layer, inputs, lambda model: Policy.preset(policy).apply(model, lists="cpu"))
    exact = found(layer, inputs, plainly)
    assert apart(emulated, native) < torch.finfo(dtype).eps
    if name != "encoder":  # two fused attentions, which round inside on a CPU, weigh as much as the rest together
        assert apart(emulated, native) < apart(exact, native)


@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_layer_comes_out_low_as_cudas_autocast_has_it(name: str) -> None:
    make, inputs = RECURRENT[name]
    layer = drawn(make())
    with Policy.preset("fp16-mixed").apply(layer):
        results = list(tensors_in(layer(*inputs)))
    floats = [out for out in results if out.is_floating_point()]
    assert floats
    assert all(is_low(out) and torch.equal(out.half().float(), out) for out in floats)


@pytest.mark.parametrize("name", CASES)
def test_the_article_is_emulated_and_native_alike(name: str) -> None:
    """Natively what is not matrix work is FP32, emulated it is stored in FP16: a few roundings apart, and no more."""
    make, inputs = CASES[name]
    layer = drawn(make())

    def through(engine: str) -> list[Tensor]:
        return found(layer, inputs, lambda model: Policy.preset("article").apply(model, engine=engine))

    native, exact = through("native"), found(layer, inputs, plainly)
    assert 0 < apart(native, exact) < 4 * torch.finfo(torch.float16).eps
    assert apart(through("emulated"), native) < 4 * torch.finfo(torch.float16).eps


def test_tf32_rounds_what_is_multiplied_in_them_and_stores_nothing() -> None:
    for name in ("recurrent: lstm", "self"):
        make, inputs = CASES[name]
        layer = drawn(make())
        mine, exact = (found(layer, inputs, block) for block in (Policy.preset("tf32").apply, plainly))
        assert 1e-6 < apart(mine, exact) < 2**-10
        assert all(float((out.half().double() == out).double().mean()) < 0.5 for out in mine)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("nested", [True, False])
def test_a_fast_path_of_evaluation_is_emulated_too(nested: bool) -> None:
    """Without gradients torch fuses an encoder, with padding by nested tensors. What is padded is not compared."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = drawn(nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)).eval()
    batch = x.transpose(0, 1)

    def run() -> Tensor:
        with torch.no_grad():
            out: Tensor = model(batch, src_key_padding_mask=padding)
        return out[~padding]

    exact = run()
    with Policy.preset("bf16-mixed").apply(model):
        mine = run()
    with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        native = model(batch, src_key_padding_mask=padding)[~padding].detach()
    assert apart([mine], [native]) < apart([exact], [native])


def test_a_sequence_without_steps_is_refused() -> None:
    layer = nn.LSTM(8, 6)
    match = r"a sequence of at least one step is asked for, but x of shape \(0, 3, 8\) came"
    with Policy.preset("fp16-mixed").apply(layer), pytest.raises(ValueError, match=match):
        layer(torch.ones(0, 3, 8))


def test_an_lstm_trains_as_it_does_in_fp32() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(1, 16, batch_first=True), nn.Linear(16, 1)

        def forward(self, series: Tensor) -> Tensor:
            out: Tensor = self.head(self.rnn(series)[0][:, -1])
            return out

    series = draw(32, 10, 1)
    losses = {}
    for name in ("fp32", "fp16-mixed"):
        torch.manual_seed(0)
        model = Last()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(30):
            optimizer.zero_grad()
            with Policy.preset(name).apply(model):
                loss = (model(series) - series.mean(1)).square().mean()
                loss.backward()
            optimizer.step()
            losses.setdefault(name, []).append(loss.item())
    assert losses["fp32"][-1] < 0.2 * losses["fp32"][0]
    assert losses["fp16-mixed"][-1] == pytest.approx(losses["fp32"][-1], rel=0.1)
