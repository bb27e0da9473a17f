"""What lesson 09 trains, and the recipes that it trains it by: integers on FP16, and FP8 and FP4 on BF16."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import Policy
from mpkit.formats import E2M1, FloatFormat
from mpkit.policy import LinearRecipe
from mpkit.policy.kernels import SINCE
from mpkit.scaled import INT8_ROW, IntFormat, ScaledFormat, scaled_cast


class Classifier(nn.Sequential):
    """The digits' classifier of the other lessons, 64-128-64-10 with ReLU, of one seed, in torch's own layers."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        super().__init__(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats."""
        return F.cross_entropy(logits, labels)


def integers(bits: int) -> LinearRecipe:
    """Quantisation-aware training: the forward products in integers, one scale a row; gradients as they come."""
    fmt = rows_of(bits)
    return LinearRecipe(f"int{bits}, forward", fmt, fmt, None)


def rows_of(bits: int) -> ScaledFormat:
    """Integers of so many bits, one scale a row."""
    return INT8_ROW.but(name=f"INT{bits}, row", values=IntFormat(f"INT{bits}", bits))


def integers_on_fp16(bits: int) -> Policy:
    """FP16 mixed, as the article has it, with linear layers that multiply integers. It needs a loss scale."""
    return replace(Policy.preset("fp16-mixed"), linear=integers(bits))


def all_three(fmt: ScaledFormat) -> Policy:
    """BF16 mixed, with all three products of a linear layer in one scaled format, rounded to nearest."""
    return replace(Policy.preset("bf16-mixed"), linear=LinearRecipe(f"{fmt}, all", fmt, fmt, fmt))


def one_scale(values: FloatFormat = E2M1) -> Policy:
    """BF16 mixed, with one scale for a whole tensor: in E2M1 bad on purpose."""
    return all_three(ScaledFormat(f"{values}, tensor", values))


def rounded(net: nn.Sequential, x: Tensor, bits: int, share: float = 1.0) -> Tensor:
    """The answers of a network whose linear layers multiply integers, one scale a row.

    `share` of a row's largest magnitude lands on the largest integer, and what is beyond is cut off. The gradient
    passes straight through.
    """
    fmt = rows_of(bits)

    def cast(a: Tensor) -> Tensor:
        return scaled_cast(a, fmt, amax=share * a.detach().abs().amax(-1, keepdim=True))

    for layer in net:
        x = F.linear(cast(x), cast(layer.weight), layer.bias) if isinstance(layer, nn.Linear) else layer(x)
    return x


@torch.no_grad()
def deployed(net: nn.Sequential, images: Tensor, labels: Tensor, bits: int, share: float = 1.0) -> float:
    """Share of right answers in %, of a network whose linear layers multiply integers of so many bits."""
    right: Tensor = rounded(net, images, bits, share).argmax(-1) == labels
    return 100 * float(right.float().mean())


@torch.no_grad()
def held_out(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy in nats of a trained network, used unrounded, in FP32; within `policy.apply(net)`, by that."""
    return float(F.cross_entropy(net(images).float(), labels))


def with_fp8(device: torch.device | str) -> torch.device:
    """`device`, or the CPU if that is a GPU that cannot multiply in FP8: its products in FP8 need one since Ada."""
    device = torch.device(device)
    old = device.type == "cuda" and torch.cuda.get_device_capability(device) < SINCE
    return torch.device("cpu") if old else device
