"""Formats as they are seen, against torch's own dtypes and against casts."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mpkit
from mpkit.course.lesson_06.formats_seen import dtypes_seen, format_of

KINDS = [
    "output of a layer", "loss", "gradient of a hidden output", "gradient of a weight, 1 batch",
    "gradient of a weight, 2 batches", "weight after the update",
]  # fmt: skip


def test_format_of() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert format_of(x) == "FP32"
    assert format_of(x.half()) == format_of(x.half().float()) == "FP16"
    assert format_of(x.bfloat16()) == format_of(x.bfloat16().float()) == "BF16"
    assert format_of(x.double()) == "FP64"
    assert format_of(torch.tensor([1e30, 3e38])) == "FP32"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("fp32", ["FP32"] * 6),
        ("article", ["FP16", "FP32", "FP32", "FP32", "FP32", "FP32"]),
        ("fp16-mixed", ["FP16", "FP32", "FP16", "FP16", "FP32", "FP32"]),
        ("bf16-mixed", ["BF16", "FP32", "BF16", "BF16", "FP32", "FP32"]),
        ("fp16-true", ["FP16"] * 6),
    ],
)
def test_policies(name: str, wanted: list[str]) -> None:
    model, batches = example()
    policy = mpkit.Policy.preset(name)
    seen = dtypes_seen(model, lambda: policy.apply(model), batches, F.cross_entropy)
    assert list(seen) == KINDS
    assert list(seen.values()) == wanted


def test_autocast() -> None:
    model, batches = example()
    autocast = partial(torch.autocast, "cpu", dtype=torch.float16)
    seen = dtypes_seen(model, autocast, batches, F.cross_entropy)
    assert list(seen.values()) == ["FP16", "FP32", "FP16", "FP16", "FP32", "FP32"]
    assert not model[0]._forward_hooks
    assert model[0].weight.grad.dtype == torch.float32, "also where its values are FP16 numbers"


def test_the_weights_take_one_step_on_the_sum_of_both_batches() -> None:
    (model, batches), (other, _) = example(), example()
    dtypes_seen(model, lambda: mpkit.Policy().apply(model), batches, F.cross_entropy)
    sum(F.cross_entropy(other(inputs), targets) for inputs, targets in batches).backward()  # type: ignore[union-attr]
    torch.optim.SGD([other[0].weight], lr=0.1).step()
    assert torch.allclose(model[0].weight, other[0].weight, atol=1e-6)


def example() -> tuple[nn.Sequential, list[tuple[torch.Tensor, torch.Tensor]]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return model, [(torch.rand(64, 64), torch.randint(0, 10, (64,))) for _ in range(2)]


def test_frozen_layers_count_for_their_output_only() -> None:
    model, batches = example()
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for parameter in linear[0].parameters():
        parameter.requires_grad_(False)
    policy = mpkit.Policy.preset("fp16-mixed")
    seen = dtypes_seen(model, lambda: policy.apply(model), batches, F.cross_entropy)
    assert seen["output of a layer"] == "FP16"
    assert seen["weight after the update"] == "FP32"
