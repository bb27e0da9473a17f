"""Gradients through a rounding, and `cast_floating` on nested containers."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

from mpkit.casting import cast, cast_floating, fake_cast
from mpkit.formats import BF16, E4M3, E5M2, FP16, FP32, TF32, FloatFormat

ALL = [FP32, TF32, FP16, BF16, E4M3, E5M2, FloatFormat("e5m7", exponent_bits=5, mantissa_bits=7)]


def test_cast_passes_the_gradient_straight_through() -> None:
    x = torch.tensor([0.1, -2.3, 1e6], requires_grad=True)
    for fmt in ALL:
        y = cast(x, fmt)
        assert torch.equal(y, cast(x.detach(), fmt))
        (grad,) = torch.autograd.grad((y * torch.tensor([1.0, 10.0, 0.1])).sum(), x)
        assert grad.tolist() == torch.tensor([1.0, 10.0, 0.1]).tolist()
    with torch.no_grad():
        assert not cast(x, FP16).requires_grad
    assert not cast(x.detach(), FP16).requires_grad


@pytest.mark.parametrize(
    ("forward", "backward"), [(FP16, E5M2), (E4M3, None), (None, E4M3), (None, None), (BF16, FP16)], ids=str
)
def test_fake_cast_rounds_value_and_gradient_apart(forward: FloatFormat | None, backward: FloatFormat | None) -> None:
    x = torch.randn(50, requires_grad=True)
    weight = torch.randn(50) * 1e-3
    y = fake_cast(x, forward, backward)
    (grad,) = torch.autograd.grad((y * weight).sum(), x)
    assert torch.equal(y, x if forward is None else cast(x.detach(), forward))
    assert torch.equal(grad, weight if backward is None else cast(weight, backward))
    assert backward is None or not torch.equal(grad, weight)


def test_fake_cast_uses_one_rounding_and_one_overflow_rule_both_ways() -> None:
    x = torch.tensor([1.01, 1e6], requires_grad=True)
    y = fake_cast(x, FP16, E5M2, rounding="zero", overflow="saturate")
    y.backward(torch.tensor([1.9, -1e6]))
    assert y.tolist() == [1.009765625, 65504.0]
    assert x.grad is not None
    assert x.grad.tolist() == [1.75, -57344.0]


def test_the_observer_sees_the_gradient_before_and_after_rounding() -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    x, weight = torch.randn(20, requires_grad=True), torch.randn(20) * 1e-6
    y = fake_cast(x, FP16, FP16, observe=lambda before, after: seen.append((before, after)))
    assert seen == []
    y.backward(weight)
    ((before, after),) = seen
    assert torch.equal(before, weight)
    assert torch.equal(after, cast(weight, FP16))
    assert x.grad is not None
    assert torch.equal(x.grad, after)


def test_a_generator_decides_for_a_tensor_that_needs_a_gradient_too() -> None:
    x = torch.randn(1000, requires_grad=True)
    first, again = (cast(x, E4M3, "stochastic", generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first, cast(x.detach(), E4M3, "stochastic", generator=torch.Generator().manual_seed(4)))


class Pair(NamedTuple):
    left: Any
    right: Any


def test_cast_floating_converts_floats_wherever_they_are() -> None:
    count, flag = torch.tensor([1, 2]), torch.tensor([True])
    tree = {
        "a": [torch.ones(2), (count, torch.ones(1).double())],
        "b": Pair(torch.ones(3), "text"),
        "c": flag,
        "d": None,
    }
    out = cast_floating(tree, torch.float16)
    assert out["a"][0].dtype == out["a"][1][1].dtype == out["b"].left.dtype == torch.float16
    assert isinstance(out["b"], Pair)
    assert isinstance(out["a"][1], tuple)
    assert out["b"].right == "text"
    assert out["a"][1][0] is count
    assert out["c"] is flag
    assert out["d"] is None
    assert tree["a"][0].dtype == torch.float32  # type: ignore[index, union-attr]
    assert cast_floating(torch.ones(2), torch.bfloat16).dtype == torch.bfloat16
    assert cast_floating(3.5, torch.float16) == 3.5


def test_fake_cast_checks_its_input_too() -> None:
    with pytest.raises(TypeError, match=r"write mpkit\.BF16\."):
        fake_cast(torch.ones(1), "bf16")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"write mpkit\.E4M3\."):
        fake_cast(torch.ones(1), None, "e4m3")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"torch\.int64 came"):
        fake_cast(torch.ones(1).long(), FP16)
