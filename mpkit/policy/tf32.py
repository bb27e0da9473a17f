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
    value: bool | str
    with ExitStack() as stack:
        try:
            if torch.get_float32_matmul_precision() == "medium" and not allowed:  # `allow_tf32` knows two of three
                stack.callback(torch.set_float32_matmul_precision, "medium")
            name, value, before = "allow_tf32", allowed, {cuda: cuda.allow_tf32, cudnn: cudnn.allow_tf32}
        except RuntimeError:
            name, value = "fp32_precision", "tf32" if allowed else "ieee"
            before = {part: part.fp32_precision for part in (cuda, cudnn.conv, cudnn.rnn)}
        for part, was in before.items():
            if was != value:  # what is so already stays untouched: a value that was inherited goes on being so
                stack.callback(setattr, part, name, was)
                setattr(part, name, value)
        yield
