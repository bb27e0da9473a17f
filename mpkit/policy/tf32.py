"""Switch TF32 for FP32 matrix work on a GPU on or off, whichever of torch's two ways the program sets it with."""

from collections.abc import Iterator
from contextlib import contextmanager
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
        precision, convolutions = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    except RuntimeError:
        before = cuda.fp32_precision, cudnn.conv.fp32_precision
        cuda.fp32_precision = cudnn.conv.fp32_precision = "tf32" if allowed else "ieee"
        try:
            yield
        finally:
            cuda.fp32_precision, cudnn.conv.fp32_precision = before
        return
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        cudnn.allow_tf32 = convolutions
