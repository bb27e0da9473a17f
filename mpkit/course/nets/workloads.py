"""The models whose whole training steps are timed, and a step of this kit and of its peers for each."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import LossScaler, Policy
from mpkit.course.nets.resnet import resnet50
from mpkit.course.nets.transformer import Transformer
from mpkit.policy.tf32 import tf32
from mpkit.scaling import preset
from mpkit.training import TrainStep

DEVICE = "cuda"
Model = Callable[[], tuple[nn.Module, Tensor, Tensor]]  # the model, a batch, its targets: all on the GPU


def mlp() -> tuple[nn.Module, Tensor, Tensor]:
    """64-256-256-256-10, batch 128."""
    sizes = (64, 256, 256, 256)
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(256, 10)).to(DEVICE)
    return model, torch.randn(128, 64, device=DEVICE), torch.randint(0, 10, (128,), device=DEVICE)


def transformer() -> tuple[nn.Module, Tensor, Tensor]:
    """Width 256, 4 layers, 8 heads, 96 tokens in the vocabulary; batch 32 of 128 tokens."""
    model = Transformer(96, width=256, layers=4, heads=8, context=128).to(DEVICE)
    tokens = torch.randint(0, 96, (32, 129), device=DEVICE)
    return model, tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def resnet(batch: int = 256, channels_last: bool = True) -> tuple[nn.Module, Tensor, Tensor]:
    """ResNet-50 on random images of 224 x 224, both channels last, or both as torch makes them (NCHW)."""
    order = torch.channels_last if channels_last else torch.contiguous_format
    model = resnet50().to(DEVICE).to(memory_format=order)  # type: ignore[call-overload]
    images = torch.randn(batch, 3, 224, 224, device=DEVICE).to(memory_format=order)
    return model, images, torch.randint(0, 1000, (batch,), device=DEVICE)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Fused, with momentum."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)


def ours(model: nn.Module, policy: str = "fp16-mixed", compile: bool = False) -> TrainStep:
    """A step of this kit in the device's own formats, with torch's rule where gradients are FP16.

    As its peers it does not measure the gradient's norm.
    """
    rule = preset("torch") if policy == "fp16-mixed" else preset("none")
    loss_fn = getattr(model, "loss", F.cross_entropy)
    return TrainStep(
        model, sgd(model), Policy.preset(policy), LossScaler(rule), loss_fn, "native",
        compile=compile, measure_norm=False,
    )  # fmt: skip


def at_rest(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The same with a momentum of zeros, so that the first step does what it does without.

    Fused SGD makes its momentum from uninitialized memory, and a step that GradScaler skips does not write it. Where
    the first step is skipped, the second adds what lay there. A step on NaN draws less power than one on numbers.
    """
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


class Loop(NamedTuple):
    """The step of PyTorch's own documentation: `step((inputs, targets))` trains and returns the loss."""

    step: Callable[[Sequence[Tensor]], Tensor]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


def peers_loop(
    model: nn.Module, dtype: torch.dtype | None = torch.float16, compiled: str | None = None,
    optimizer: torch.optim.Optimizer | None = None, device: str | None = None,
) -> Loop:  # fmt: skip
    """That step, without this kit, and what it trains with.

    dtype: of autocast; None trains in FP32 as torch is set. Only FP16 gets a GradScaler. `compiled`: the mode of
    torch.compile for forward pass and loss, such as "default"; None leaves them eager. `optimizer`: None is `sgd`,
    whose momentum starts as zeros here. `device`: None is DEVICE.
    """
    where = device or DEVICE
    chosen = optimizer or at_rest(sgd(model))
    scaler = torch.amp.GradScaler(where, enabled=dtype == torch.float16)
    loss_fn = getattr(model, "loss", F.cross_entropy)

    def forward(inputs: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = loss_fn(model(inputs), targets)
        return loss

    loss_of = forward if compiled is None else torch.compile(forward, mode=compiled)

    def step(batch: Sequence[Tensor]) -> Tensor:
        chosen.zero_grad()
        with torch.autocast(where, dtype=dtype or torch.float16, enabled=dtype is not None):
            loss = loss_of(*batch)
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(chosen)
        scaler.update()
        return loss.detach()

    return Loop(step, chosen, scaler)


def peers_step(
    model: nn.Module, inputs: Tensor, targets: Tensor, dtype: torch.dtype | None = torch.float16,
    compiled: str | None = None, optimizer: torch.optim.Optimizer | None = None,
) -> Callable[[], None]:  # fmt: skip
    """The step of `peers_loop` on one batch."""
    loop = peers_loop(model, dtype, compiled, optimizer)

    def step() -> None:
        loop.step((inputs, targets))

    return step


def fp32_peer(model: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    """A plain step in FP32, without TF32."""
    plain = peers_step(model, inputs, targets, dtype=None)

    def step() -> None:
        with tf32(False):
            plain()

    return step
