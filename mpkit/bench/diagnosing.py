"""The rows of `guard` and `diagnose`: what they cost, against the plain step."""

from typing import Any

import torch
from torch import Tensor, nn

from mpkit.bench.measure import Case, Sampler, timed
from mpkit.course.nets.transformer import Transformer
from mpkit.course.nets.workloads import DEVICE, peers_loop, resnet
from mpkit.diagnosis import diagnose, guard

GUARD_BAR, DIAGNOSE_BAR = 1.03, 20.0  # of a plain step


def cases() -> list[Case]:
    """On a GPU: a guarded step of ResNet-50, and a diagnosis of a transformer of 100 M parameters."""
    return [
        Case("FP16 step, ResNet-50 batch 256, eager, guarded", "without guard", _guarded, GUARD_BAR),
        Case("diagnose, a healthy transformer of 109 M parameters", "one plain step", _diagnosed, DIAGNOSE_BAR),
    ]


def cases_on_cpu() -> list[Case]:
    """A diagnosis of a small transformer."""
    name = "diagnose, a healthy transformer of 0.1 M parameters"
    return [Case(name, "one plain step", lambda: _diagnosed("cpu", 4, 48, 300, (2, 16)))]


def words(layers: int, width: int, tokens: int, size: tuple[int, int], device: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A transformer with heads of 64 or fewer values, and `size`, sequences and their length, of random tokens."""
    model = Transformer(tokens, width=width, layers=layers, heads=12, context=size[1]).to(device)
    drawn = torch.randint(0, tokens, (size[0], size[1] + 1), device=device)
    return model, drawn[:, :-1].contiguous(), drawn[:, 1:].contiguous()


def _guarded() -> tuple[Sampler, Sampler]:
    torch.backends.cudnn.benchmark = True
    (model, *batch), (other, *same) = resnet(), resnet()
    loop, plain = peers_loop(model), peers_loop(other)
    watched = guard(loop.step, model, loop.optimizer, loop.scaler)
    return timed(lambda: watched(batch)), timed(lambda: plain.step(same))


def _diagnosed(
    device: str = DEVICE, layers: int = 12, width: int = 768, tokens: int = 30_000, size: tuple[int, int] = (16, 512)
) -> tuple[Sampler, Sampler]:
    """12 layers of width 768 are GPT-2's smallest."""
    model, inputs, targets = words(layers, width, tokens, size, device)
    loop = peers_loop(model, device=device)
    parts: dict[str, Any] = {
        "model": model,
        "optimizer": loop.optimizer,
        "scaler": loop.scaler,
        "batch": (inputs, targets),
    }
    for _ in range(30):  # until the scale has settled
        loop.step(parts["batch"])
    return timed(lambda: diagnose(loop.step, **parts)), timed(lambda: loop.step(parts["batch"]))
