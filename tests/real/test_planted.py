"""One fault planted in a model in the manner of the big families: trace names its module and its operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from real.families import make
from real.test_healthy import MODES, Mode
from torch import Tensor, nn

from mpkit.formats import E4M3
from mpkit.tracing import glance as reading
from mpkit.tracing.watch import Trace, trace

HELD, HALF, EMULATED = "fp32 held against FP16", "fp16 autocast", "fp16 emulated"
OTHER_MODES: dict[str, Mode] = {
    "fp32 held against E4M3": (E4M3, MODES["fp32"][1], 1024.0),
    "fp32 held against FP16, unscaled": (MODES[HELD][0], MODES["fp32"][1], 2.0**-9),
}


def spread(model: nn.Module, path: str, size: float) -> None:
    """Weights between -size and size."""
    nn.init.uniform_(model.get_parameter(path), -size, size)


def grown(model: nn.Module, path: str, factor: float) -> None:
    with torch.no_grad():
        model.get_parameter(path).mul_(factor)


class UnitRows(nn.Module):
    """A norm without eps: 0 / 0 in rows that are 0."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * (torch.arange(x.shape[-2]) > 0)[:, None]  # as padding is
        return x / x.square().sum(-1, keepdim=True).sqrt()


class Distance(nn.Module):
    """The root of a square that is 0: healthy forward, while its derivative is Inf."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (x - x.detach()).square().sum(-1, keepdim=True).sqrt()


class Steep(torch.autograd.Function):
    """A user's function with an error in its backward pass."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return grads[0] * 1e38 * 1e38


class Layer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Steep.apply(x)  # type: ignore[no-any-return, no-untyped-call]


@dataclass
class Fault:
    """A family, what is done to its model, and what trace has to say in which modes."""

    family: str
    plant: Callable[[nn.Module], object]
    kind: str
    module: str
    operation: dict[str, str]  # by mode
    phase: str = "forward"


def names(operation: str, *modes: str) -> dict[str, str]:
    return dict.fromkeys(modes, operation)


FAULTS = {
    "a linear layer overflows": Fault(
        "bert", lambda m: spread(m, "layers.0.up.weight", 6e4), "overflow", "layers.0.up",
        names("linear", HELD, HALF) | names("cast to FP16", EMULATED),
    ),
    "attention scores overflow": Fault(
        "bert", lambda m: [grown(m, f"layers.1.attention.{name}.weight", 600.0) for name in ("query", "key")],
        "overflow", "layers.1.attention", names("matmul", HELD, HALF) | names("cast to FP16", EMULATED),
    ),
    "a row is masked fully": Fault(
        "llama", lambda m: setattr(m.attention, "first_masked", 0), "invalid", "attention",
        names("softmax", "fp32", HELD, HALF, EMULATED, "bf16 emulated", "bf16 autocast"),
    ),
    "log(0) reaches the loss": Fault(
        "mixture", lambda m: setattr(m, "careful", False), "overflow", "(model)",
        names("log", "fp32", HALF, EMULATED, HELD, "bf16 autocast"),
    ),
    "sqrt at 0 in backward": Fault(
        "vit", lambda m: setattr(m, "norm", Distance()), "invalid", "norm", names("sqrt", "fp32", HALF), "backward"
    ),
    "sqrt at 0 in backward, emulated": Fault(
        "swin", lambda m: setattr(m.blocks[1], "norm2", Distance()), "invalid", "blocks.1.norm2",
        names("sqrt", "fp32", EMULATED, "bf16 emulated", "bf16 autocast"), "backward",
    ),
    "a norm divides by 0": Fault(
        "swin", lambda m: setattr(m.blocks[0], "norm1", UnitRows()), "invalid", "blocks.0.norm1",
        names("div", "fp32", HALF, EMULATED, "bf16 autocast"),
    ),
    "pow overflows in RMSNorm": Fault(
        "t5", lambda m: grown(m, "words.weight", 300.0), "overflow", "norm1", names("pow", HELD)
    ),
    "a step grows without bound": Fault(
        "mamba", lambda m: (setattr(m, "sign", 1), nn.init.constant_(m.to_step.bias, 60.0)),  # type: ignore[arg-type]
        "overflow", "(model)", names("exp", "fp32", HALF, EMULATED),
    ),
    "a convolution overflows": Fault(
        "unet", lambda m: spread(m, "low.0.weight", 5e4), "overflow", "low.0",
        names("conv2d", HELD, HALF) | names("cast to FP16", EMULATED),
    ),
    "attention in one function overflows": Fault(
        "vit", lambda m: spread(m, "blocks.1.attention.in_proj_weight", 4e4), "invalid", "blocks.1.attention",
        names("multi_head_attention_forward", HALF),
    ),
    "E4M3 saturates": Fault(
        "lstm", lambda m: (grown(m, "gates.weight", 10.0), grown(m, "head.weight", 1700.0)), "saturated", "head",
        names("linear", "fp32 held against E4M3"),
    ),
    "gradients underflow": Fault(
        "lstm", lambda m: grown(m, "head.weight", 1e-3), "underflow", "head",
        names("linear", "fp32 held against FP16, unscaled"), "backward",
    ),
    "a user's backward pass": Fault(
        "lstm", lambda m: setattr(m, "words", nn.Sequential(m.words, Layer())), "overflow", "words.1",
        names("Steep", "fp32", EMULATED, HALF), "backward",
    ),
}  # fmt: skip
CASES = [(fault, mode) for fault, planted in FAULTS.items() for mode in planted.operation]


def run(fault: Fault, mode: str) -> Trace:
    fmt, context, scale = (MODES | OTHER_MODES)[mode]
    model, batch = make(fault.family)
    fault.plant(model)
    with trace(model, fmt) as watched, context(model):
        (model(*batch) * scale).backward()
    return watched


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "in batches"])
@pytest.mark.parametrize(("name", "mode"), CASES)
def test_a_planted_fault_is_named(name: str, mode: str, at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = FAULTS[name]
    if not at_once:
        monkeypatch.setattr(reading, "IMMEDIATE", set())
    first = run(fault, mode).first
    assert first is not None
    found = (first.kind, first.phase, first.module, first.operation)
    assert found == (fault.kind, fault.phase, fault.module, fault.operation[mode]), str(first)
    assert first.line.startswith(("families.py", "test_planted.py"))
