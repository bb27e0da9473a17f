"""Run a model under a policy with the hardware's own FP16, BF16 and TF32, instead of rounding float32."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import nn

from mpkit.formats import BF16, FP16, FP32, TF32, FloatFormat
from mpkit.policy.hardware import device_of, in_hardware
from mpkit.policy.low_forward import LowForward
from mpkit.policy.low_weights import low_weights
from mpkit.policy.nesting import Block, active
from mpkit.policy.tf32 import tf32

DTYPES = {FP16: torch.float16, BF16: torch.bfloat16}
Kind = Literal["fp32", "tf32", "autocast", "stored", "low forward"]


def kind_of(params: FloatFormat, forward: FloatFormat, backward: FloatFormat, loss: FloatFormat) -> Kind:
    """How hardware can do what a policy says. ValueError: it cannot."""
    if params == forward == backward == loss == FP32:
        return "fp32"
    if (params, forward, backward, loss) == (FP32, TF32, TF32, FP32):
        return "tf32"
    if forward in DTYPES and loss in (FP32, forward):
        if params == backward == forward:
            return "stored"
        if (params, loss) == (FP32, FP32) and backward in (forward, FP32):
            return "autocast" if backward == forward else "low forward"
    raise ValueError(
        f"no engine of the hardware runs params {params}, forward {forward}, backward {backward}, loss {loss}; "
        'engine="native" runs the presets, engine="emulated" runs every policy.'
    )


@contextmanager
def natively(block: Block, kind: Kind, forward: FloatFormat, loss: FloatFormat, model: nn.Module) -> Iterator[None]:
    """Inside `block`, `model` runs as `kind` says. ValueError: TF32 on a device that has none.

    "fp32" and "low forward" switch TF32 off for matrix products and convolutions, "tf32" on, until the block ends, so
    the backward pass belongs inside. "autocast" is torch's. "stored": every weight is read in the low format and the
    inputs are converted, except batch and instance norms, whose weights stay FP32 as their kernels ask. "low forward":
    matrix work in the low format, everything that comes back through it in FP32.
    """
    where = device_of(model)
    device = where.type
    if kind == "tf32" and not in_hardware(TF32, where):
        has = f"on the {device}" if device != "cuda" else f"on a {torch.cuda.get_device_name(where)}, which has none"
        raise ValueError(
            f"TF32 is a mode of NVIDIA's tensor cores (Ampere and later), and this model is {has}; "
            'move it to such a GPU or use engine="emulated".'
        )
    with ExitStack() as stack:
        if kind in ("fp32", "tf32", "low forward"):  # else left alone: cuDNN would choose its algorithms a second time
            stack.enter_context(tf32(kind == "tf32"))
        if kind == "stored":
            stack.enter_context(low_weights(block, model, DTYPES[forward]))
        if kind == "autocast" or (kind == "stored" and loss == FP32):
            # Its cache of low weights lasts until the block ends, and would hide an optimizer's step inside.
            stack.enter_context(torch.autocast(device, dtype=DTYPES[forward], cache_enabled=False))
        if kind == "low forward":
            mode = LowForward(DTYPES[forward])
            stack.enter_context(active(block, mode))
            stack.enter_context(mode)
        yield
