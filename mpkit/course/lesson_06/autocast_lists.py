"""What torch.autocast's lists say of some operations, and what it does with them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

LOW, WIDE, INPUT = ("matmul", "linear", "conv2d"), ("cross_entropy", "mse_loss", "nll_loss"), ("relu", "gelu", "mean")
BY_DEVICE = ("softmax", "layer_norm", "exp", "pow", "sum", "norm")  # FP32 on a GPU, as their input on a CPU
_BOTH = {**dict.fromkeys(LOW, "FP16"), **dict.fromkeys(WIDE, "FP32"), **dict.fromkeys(INPUT, "FP16")}
# PyTorch's documentation, "Autocast op reference": format of a result whose inputs are FP16.
AUTOCAST_LISTS: dict[str, dict[str, str]] = {
    "cuda": {**_BOTH, **dict.fromkeys(BY_DEVICE, "FP32"), "FP16 + FP32": "FP32"},
    "cpu": {**_BOTH, **dict.fromkeys(BY_DEVICE, "FP16"), "FP16 + FP32": "FP32"},
}


def autocast_seen(device: str) -> dict[str, str]:
    """Format of each operation's result under torch.autocast(device, dtype=torch.float16), for FP16 inputs."""
    half, single = (torch.rand(8, 8, device=device, dtype=dtype) for dtype in (torch.float16, torch.float32))
    labels = torch.zeros(8, device=device, dtype=torch.int64)
    image = half.view(1, 1, 8, 8)
    operations: dict[str, Callable[[], Tensor]] = {
        "matmul": lambda: single @ single,
        "linear": lambda: F.linear(single, single),
        "conv2d": lambda: F.conv2d(image.float(), image.float()),
        "cross_entropy": lambda: F.cross_entropy(half, labels),
        "mse_loss": lambda: F.mse_loss(half, half),
        "nll_loss": lambda: F.nll_loss(half, labels),
        "relu": half.relu,
        "gelu": lambda: F.gelu(half),
        "mean": half.mean,
        "softmax": lambda: half.softmax(-1),
        "layer_norm": lambda: F.layer_norm(half, (8,)),
        "exp": half.exp,
        "pow": lambda: half.pow(2),
        "sum": half.sum,
        "norm": half.norm,
        "FP16 + FP32": lambda: half + single,
    }
    names = {torch.float16: "FP16", torch.float32: "FP32"}
    with torch.autocast(device, dtype=torch.float16):
        return {name: names[run().dtype] for name, run in operations.items()}
