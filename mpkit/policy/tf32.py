"""Switch TF32 for FP32 matrix work on a GPU on or off, whichever of torch's two ways the program sets it with."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Inside the block FP32 products and convolutions use TF32, or not. Torch's defaults: products no, the others yes.

    A program sets this either with `allow_tf32` and `set_float32_matmul_precision`, or with `fp32_precision` (torch 2.9
    and later). Torch refuses to answer in one way what was set in the other, so the one in use is asked and put back.
    """
    cuda: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    try:
        precision, before = torch.get_float32_matmul_precision(), (cuda.allow_tf32, cudnn.allow_tf32)
    except RuntimeError:
        with ExitStack() as stack:
            for part in (cuda, cudnn.conv, cudnn.rnn):
                stack.callback(setattr, part, "fp32_precision", part.fp32_precision)
                part.fp32_precision = "tf32" if allowed else "ieee"
            yield
        return
    try:  # what is so already stays untouched: a value that was inherited goes on being so
        if before[0] != allowed:
            cuda.allow_tf32 = allowed
        if before[1] != allowed:
            cudnn.allow_tf32 = allowed
        yield
    finally:
        if before[0] != allowed:
            cuda.allow_tf32 = before[0]
        if before[1] != allowed:
            cudnn.allow_tf32 = before[1]
        if precision == "medium" and not allowed:  # `allow_tf32` knows two levels of three
            torch.set_float32_matmul_precision(precision)
