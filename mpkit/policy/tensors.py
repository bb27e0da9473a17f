"""What emulation asks of tensors that are not plain, and of autograd."""

import torch
from torch import Tensor

from mpkit.casting import EXACT_IN_TORCH
from mpkit.formats import FP32, FloatFormat
from mpkit.trees import storage_key


def memory(x: Tensor) -> Tensor:
    """`x` past autograd, to be written to: its `data`, which vmap denies for what it wraps."""
    while torch._C._functorch.is_batchedtensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x.data


def run_backward(tensor: Tensor, retain_graph: bool | None = None, create_graph: bool = False) -> None:
    """`tensor.backward()` of a scalar. The public function would ask the active mode once more, without end."""
    keep = create_graph if retain_graph is None else retain_graph
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward(
        (tensor,), (torch.ones_like(tensor),), keep, create_graph, (), allow_unreachable=True, accumulate_grad=True
    )


def same_memory(a: Tensor, b: Tensor) -> bool:
    """True if they are one tensor, or views of the same memory."""
    return a is b or storage_key(a) == storage_key(b) != 0


def converted(x: Tensor, forward: FloatFormat | None, backward: FloatFormat | None) -> Tensor:
    """A sparse or a nested tensor, as torch converts it. NotImplementedError: it has no such conversion."""
    if forward is None and backward is None:
        return x
    if forward is None or forward.dtype not in EXACT_IN_TORCH or backward not in (None, forward):
        kind = "nested" if x.is_nested else str(x.layout).removeprefix("torch.")
        raise NotImplementedError(
            f"a {kind} tensor is to be rounded, forward to {forward}, backward to {backward or FP32}, but only 16-bit "
            "formats, the same for both, are emulated there; make it dense (x.to_dense(), x.to_padded_tensor(0.0))."
        )
    return x.to(forward.dtype).to(x.dtype)
