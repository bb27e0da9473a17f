"""Whole training steps on a GPU against autocast + GradScaler: small models captured, ResNet-50 as it is."""

import torch

from mpkit.bench.measure import Case, Sampler, timed
from mpkit.course.nets.workloads import Model, mlp, ours, peers_step, resnet, transformer
from mpkit.tracing.watch import trace
from mpkit.training.capture import CapturedStep

MLP_BAR, TRANSFORMER_BAR, RESNET_BAR, TRACE_BAR = 1 / 15, 1 / 5, 1.0, 1.25


def cases() -> list[Case]:
    """Rows for `python -m mpkit bench --device cuda`; the peer uses the same fused optimizer, uncaptured."""
    peer = "autocast + GradScaler, eager"
    return [
        Case("FP16 step of an MLP, captured", peer, lambda: _captured(mlp), MLP_BAR),
        Case("FP16 step of a transformer (width 256, 4 layers), captured", peer, lambda: _captured(transformer),
             TRANSFORMER_BAR),
        Case("FP16 step of ResNet-50, batch 256, channels last", peer, _resnet, RESNET_BAR),
        Case("the same with mpkit.trace, forward and backward", "without it", _traced, TRACE_BAR),
    ]  # fmt: skip


def _captured(make: Model) -> tuple[Sampler, Sampler]:
    model, inputs, targets = make()
    step = CapturedStep(ours(model), inputs, targets)
    peer = peers_step(*make())
    return timed(lambda: step(step.inputs, step.targets)), timed(peer)


def _resnet() -> tuple[Sampler, Sampler]:
    torch.backends.cudnn.benchmark = True
    model, inputs, targets = resnet()
    step, peer = ours(model), peers_step(*resnet())
    return timed(lambda: step(inputs, targets)), timed(peer)


def _traced() -> tuple[Sampler, Sampler]:
    torch.backends.cudnn.benchmark = True
    model, inputs, targets = resnet()
    step, watch = ours(model), trace(model)

    def traced() -> None:
        with watch:
            step(inputs, targets)

    return timed(traced), timed(lambda: step(inputs, targets))
