"""What lesson 09 trains, and the recipes that it trains it by: integers on FP16, and FP8 and FP4 on BF16."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import E2M1, Policy
from mpkit.policy import LinearRecipe
from mpkit.policy.kernels import SINCE
from mpkit.scaled import INT8_ROW, IntFormat, ScaledFormat


class Classifier(nn.Sequential):
    """The digits' classifier of the other lessons, 64-128-64-10 with ReLU, of one seed, in torch's own layers."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        super().__init__(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats."""
        return F.cross_entropy(logits, labels)


def integers(bits: int) -> LinearRecipe:
    """The recipe "int8-mixed" with another number of bits: forward alone, one scale a row."""
    fmt = INT8_ROW.but(name=f"INT{bits}, row", values=IntFormat(f"INT{bits}", bits))
    return LinearRecipe(f"int{bits}-mixed", fmt, fmt, None)


def integers_on_fp16(bits: int) -> Policy:
    """FP16 mixed, as the article has it, with linear layers that multiply integers. It needs a loss scale."""
    return replace(Policy.preset("fp16-mixed"), linear=integers(bits))


def one_scale() -> Policy:
    """BF16 mixed, with one scale for a whole tensor of E2M1: bad on purpose."""
    fmt = ScaledFormat("E2M1, tensor", E2M1)
    return replace(Policy.preset("bf16-mixed"), linear=LinearRecipe("one-scale", fmt, fmt, fmt))


@torch.no_grad()
def deployed(net: nn.Module, images: Tensor, labels: Tensor, bits: int) -> float:
    """Share of right answers in %, of a network whose linear layers multiply integers of so many bits."""
    with Policy(linear=integers(bits)).apply(net):
        right: Tensor = net(images).argmax(-1) == labels
    return 100 * float(right.float().mean())


@torch.no_grad()
def held_out(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy in nats of a trained network, its weights in FP32."""
    return float(F.cross_entropy(net(images), labels))


def with_fp8(device: torch.device | str) -> torch.device:
    """`device`, or the CPU if that is a GPU that cannot multiply in FP8: its products in FP8 need one since Ada."""
    device = torch.device(device)
    old = device.type == "cuda" and torch.cuda.get_device_capability(device) < SINCE
    return torch.device("cpu") if old else device
