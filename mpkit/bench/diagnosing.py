"""The rows of `guard` and `diagnose`: what they cost on a GPU, against the plain step."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit.bench.measure import Case, Sampler, timed
from mpkit.course.nets.transformer import Transformer
from mpkit.course.nets.workloads import DEVICE, Model, at_rest, resnet, sgd
from mpkit.diagnosis import diagnose, guard

GUARD_BAR, DIAGNOSE_BAR = 1.03, 20.0  # of a plain step


def cases() -> list[Case]:
    """A guarded step of ResNet-50, and a diagnosis of a transformer of 100 M parameters."""
    return [
        Case("FP16 step, ResNet-50 batch 256, eager, guarded", "without guard", _guarded, GUARD_BAR),
        Case("diagnose, a healthy transformer of 109 M parameters", "one plain step", _diagnosed, DIAGNOSE_BAR),
    ]


def hundred_million() -> tuple[nn.Module, Tensor, Tensor]:
    """12 layers of width 768, as GPT-2's smallest, 16 sequences of 512 of 30,000 tokens."""
    model = Transformer(30_000, width=768, layers=12, heads=12, context=512).to(DEVICE)
    tokens = torch.randint(0, 30_000, (16, 513), device=DEVICE)
    return model, tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def _loop(make: Model) -> tuple[Callable[[Any], Tensor], dict[str, Any]]:
    """The usual loop with a GradScaler, and what belongs to it."""
    torch.backends.cudnn.benchmark = True
    model, inputs, targets = make()
    optimizer, scaler = at_rest(sgd(model)), torch.amp.GradScaler(DEVICE)
    loss_fn = getattr(model, "loss", F.cross_entropy)

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.float16):
            loss: Tensor = loss_fn(model(batch[0]), batch[1])
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return step, {"model": model, "optimizer": optimizer, "scaler": scaler, "batch": (inputs, targets)}


def _guarded() -> tuple[Sampler, Sampler]:
    step, parts = _loop(resnet)
    plain, same = _loop(resnet)
    watched = guard(step, parts["model"], parts["optimizer"], parts["scaler"])
    return timed(lambda: watched(parts["batch"])), timed(lambda: plain(same["batch"]))


def _diagnosed() -> tuple[Sampler, Sampler]:
    step, parts = _loop(hundred_million)
    for _ in range(30):  # until the scale has settled
        step(parts["batch"])
    return timed(lambda: diagnose(step, **parts)), timed(lambda: step(parts["batch"]))
