"""The article's backward pass: the gradients of an FP32 product of the rounded operands, without that product."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mpkit import Policy
from mpkit.policy import low_forward
from mpkit.policy.low_forward import LowForward


def rand(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


image, volume = rand(2, 4, 9, 8), rand(1, 2, 5, 6, 4)
strided, doubled = {"stride": (2, 1), "padding": 1}, {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}
# A function, its operands, all of which want a gradient, and its settings.
Kind = tuple[Callable[..., Tensor], tuple[Tensor, ...], dict[str, Any]]
ONCE: dict[str, Kind] = {
    "linear": (F.linear, (rand(3, 5), rand(4, 5), rand(4)), {}),
    "linear without bias, 3 dimensions": (F.linear, (rand(2, 3, 5), rand(4, 5)), {}),
    "linear of one vector": (F.linear, (rand(5), rand(4, 5), rand(4)), {}),
    "linear of no sample": (F.linear, (rand(0, 5), rand(4, 5), rand(4)), {}),
    "matmul": (torch.matmul, (rand(3, 5), rand(5, 4)), {}),
    "@, batches": (lambda a, b: a @ b, (rand(2, 3, 5), rand(2, 5, 4)), {}),
    "@, broadcast": (lambda a, b: a @ b, (rand(2, 3, 5), rand(5, 4)), {}),
    "mv": (torch.mv, (rand(3, 5), rand(5)), {}),
    "addmm with factors": (torch.addmm, (rand(4), rand(3, 5), rand(5, 4)), {"beta": 0.5, "alpha": 2}),
    "baddbmm": (torch.baddbmm, (rand(2, 3, 4), rand(2, 3, 5), rand(2, 5, 4)), {}),
    "addmv": (torch.addmv, (rand(3), rand(3, 5), rand(5)), {}),
    "conv1d": (F.conv1d, (rand(2, 3, 9), rand(4, 3, 3), rand(4)), {}),
    "conv2d, strided, padded": (F.conv2d, (image, rand(4, 4, 3, 3), rand(4)), strided),
    "conv2d, dilated, grouped": (F.conv2d, (image, rand(6, 2, 3, 3)), {"dilation": 2, "groups": 2}),
    "conv2d, dilated in one direction": (F.conv2d, (image, rand(3, 4, 3, 3)), {"dilation": (1, 2)}),
    "conv2d, same": (F.conv2d, (image, rand(4, 4, 2, 3)), {"padding": "same"}),
    "conv2d of one sample": (F.conv2d, (rand(3, 9, 8), rand(4, 3, 3, 3)), {}),
    "conv3d": (F.conv3d, (volume, rand(3, 2, 2, 3, 2)), {}),
    "conv_transpose1d, dilated": (F.conv_transpose1d, (rand(2, 3, 5), rand(3, 2, 3)), {"dilation": 3}),
    "conv_transpose2d": (F.conv_transpose2d, (image, rand(4, 3, 3, 3), rand(6)), doubled),
}
TWICE: dict[str, Kind] = {
    "dot": (torch.matmul, (rand(5), rand(5)), {}),
    "einsum of three": (partial(torch.einsum, "ij,jk,kl->il"), (rand(3, 5), rand(5, 4), rand(4, 2)), {}),
    "chain of products": (lambda *m: torch.linalg.multi_dot(m), (rand(3, 5), rand(5, 4), rand(4, 2)), {}),
    "power": (torch.linalg.matrix_power, (rand(4, 4),), {"n": 3}),
    "attention": (F.scaled_dot_product_attention, (rand(1, 2, 5, 8), rand(1, 2, 6, 8), rand(1, 2, 6, 4)), {}),
}
KINDS = ONCE | TWICE
UNCOUNTED = {"linear of no sample", "mv", "addmv"}  # by torch's counter
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
DTYPES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_an_fp32_product_to_the_bit(kind: str, dtype: torch.dtype) -> None:
    """Autograd itself is the oracle: it differentiates the product of the operands as they were rounded."""
    function, values, how = KINDS[kind]
    ours = [value.clone().requires_grad_() for value in values]
    with LowForward(dtype):
        out = function(*ours, **how)
        seed = rand(*out.shape)
        out.backward(seed)
    rounded = [value.to(dtype).float().requires_grad_() for value in values]
    function(*rounded, **how).backward(seed)
    assert torch.equal(out, function(*(value.to(dtype) for value in values), **how).float())
    for mine, theirs in zip(ours, rounded, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert mine.grad.dtype == torch.float32
        assert torch.equal(mine.grad, theirs.grad)


def test_only_what_wants_a_gradient_gets_one() -> None:
    x, w = rand(3, 5), rand(4, 5).requires_grad_()
    with LowForward(torch.float16):
        F.linear(x, w).sum().backward()
    assert x.grad is None
    torch.testing.assert_close(w.grad, x.half().float().sum(0).expand(4, 5))


@pytest.mark.parametrize("kind", ONCE)
def test_no_product_is_computed_twice(kind: str) -> None:
    """Torch's own counter: forward and backward together cost as many operations as in FP32."""
    function, values, how = ONCE[kind]

    def operations(mode: Any) -> int:
        leaves = [value.clone().requires_grad_() for value in values]
        with FlopCounterMode(display=False) as counter, mode:
            function(*leaves, **how).sum().backward()
        total: int = counter.get_total_flops()
        return total

    plain = operations(torch.enable_grad())
    assert plain == operations(LowForward(torch.float16))
    assert (plain == 0) == (kind in UNCOUNTED)


def test_the_counter_would_see_a_second_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_forward, "ONCE", frozenset())
    with pytest.raises(AssertionError):
        test_no_product_is_computed_twice("conv1d")


def test_what_multiplies_twice_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out there, the first product would be an operand of the second: nobody's numbers."""
    monkeypatch.setattr(low_forward, "ONCE", low_forward.ONCE | {"linalg_multi_dot"})
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, shape: self.new_full(shape, torch.nan))
    with pytest.raises(AssertionError):
        test_gradients_are_those_of_an_fp32_product_to_the_bit("chain of products", torch.float16)


def test_nobody_reads_what_was_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NaN in place of unwritten memory, every gradient is as it was."""
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, shape: self.new_full(shape, torch.nan))
    for kind in KINDS:
        test_gradients_are_those_of_an_fp32_product_to_the_bit(kind, torch.float16)


def test_a_network_trains_as_in_the_formula() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    with Policy.preset("article").apply(net, engine="native"):
        F.cross_entropy(net(rand(6, 1, 8, 8)), torch.arange(6)).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
