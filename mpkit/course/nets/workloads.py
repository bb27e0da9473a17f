"""The models whose whole training steps are timed, and a step of this kit and of its peer for each."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import LossScaler, Policy
from mpkit.course.nets.resnet import resnet50
from mpkit.course.nets.transformer import Transformer
from mpkit.policy.tf32 import tf32
from mpkit.scaling import preset
from mpkit.training import TrainStep

Model = Callable[[], tuple[nn.Module, Tensor, Tensor]]  # the model, a batch, its targets: all on the GPU


def mlp() -> tuple[nn.Module, Tensor, Tensor]:
    """64-256-256-256-10, batch 128."""
    sizes = (64, 256, 256, 256)
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(256, 10)).cuda()
    return model, torch.randn(128, 64, device="cuda"), torch.randint(0, 10, (128,), device="cuda")


def transformer() -> tuple[nn.Module, Tensor, Tensor]:
    """Width 256, 4 layers, 8 heads, 96 tokens in the vocabulary; batch 32 of 128 tokens."""
    model = Transformer(96, width=256, layers=4, heads=8, context=128).cuda()
    tokens = torch.randint(0, 96, (32, 129), device="cuda")
    return model, tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def resnet(batch: int = 256) -> tuple[nn.Module, Tensor, Tensor]:
    """ResNet-50 on random images of 224 x 224, both channels last."""
    model = resnet50().cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(batch, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
    return model, images, torch.randint(0, 1000, (batch,), device="cuda")


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Fused, with momentum."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)


def ours(model: nn.Module, policy: str = "fp16-mixed", compile: bool = False) -> TrainStep:
    """A step of this kit in the device's own formats, with torch's rule where gradients are FP16."""
    rule = preset("torch") if policy == "fp16-mixed" else preset("none")
    loss_fn = getattr(model, "loss", F.cross_entropy)
    settings: dict[str, Any] = {"engine": "native"} | ({"compile": True} if compile else {})
    return TrainStep(model, sgd(model), Policy.preset(policy), LossScaler(rule), loss_fn, **settings)


def peers_step(model: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    """The step of PyTorch's own documentation."""
    optimizer, scaler = sgd(model), torch.amp.GradScaler("cuda")
    loss_fn = getattr(model, "loss", F.cross_entropy)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.float16):
            loss = loss_fn(model(inputs), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def compiled_peer(model: nn.Module, inputs: Tensor, targets: Tensor, mode: str | None = None) -> Callable[[], None]:
    """The same under torch.compile, as its documentation begins: the model is compiled, forward and backward.

    The loss, autocast, GradScaler and the optimizer, which is one fused kernel, stay as they are. `mode`: torch's, such
    as "reduce-overhead", which replays CUDA graphs of both passes.
    """
    return peers_step(torch.compile(model, mode=mode), inputs, targets)  # type: ignore[arg-type]


def fp32_peer(model: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    """A plain step in FP32, without TF32."""
    optimizer, loss_fn = sgd(model), getattr(model, "loss", F.cross_entropy)

    def step() -> None:
        optimizer.zero_grad()
        with tf32(False):
            loss_fn(model(inputs), targets).backward()
        optimizer.step()

    return step
