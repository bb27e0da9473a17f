"""Which formats a device computes in by itself, and which have to be emulated on it."""

import torch
from torch import nn

from mpkit.formats import BF16, FP16, FP32, TF32, FloatFormat

# Compute capability whose tensor cores multiply in the format (CUDA programming guide, table of compute capabilities).
# A card below it takes BF16 tensors too, but computes in FP32; and it takes the switch for TF32, and ignores it.
SINCE = {FP16: (7, 0), BF16: (8, 0), TF32: (8, 0)}


def device_of(model: nn.Module) -> torch.device:
    """Where its first parameter is; the CPU if it has none."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def in_hardware(fmt: FloatFormat, device: torch.device | str) -> bool:
    """Whether `device` multiplies in `fmt`: FP32 everywhere; FP16, BF16 and TF32 on an NVIDIA GPU that has them.

    A CPU's own FP16 does not count: it rounds as emulation does, and is slower. Nor do 8-bit formats, which need scales
    of their own. No wait for the device.
    """
    device = torch.device(device)
    if fmt == FP32:
        return True
    if device.type != "cuda" or torch.version.hip or fmt not in SINCE:
        return False
    return torch.cuda.get_device_capability(device) >= SINCE[fmt]
