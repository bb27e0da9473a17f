"""Read a tensor once: the fastest way to a few numbers that show Inf, NaN and the largest magnitude."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

FEW = 4  # tensors that are read faster one by one than by one call for all


def memory_of(tensor: Tensor, name: str) -> Tensor:
    """What `in_memory_order` gives, of a tensor that is checked first: an error calls it `name`."""
    require_floating(tensor, name)
    return in_memory_order(tensor)


def in_memory_order(tensor: Tensor) -> Tensor:
    """The distinct values of a floating-point tensor, detached, in a dtype and an order that reductions read fast.

    Sparse tensors give their stored values, expanded ones every value once, channels_last ones are read in the order
    of memory, float8 (for which torch has no reductions) as float32.
    """
    values = tensor.detach() if tensor.requires_grad else tensor
    if values.layout != torch.strided:
        values = (values.coalesce() if values.layout == torch.sparse_coo else values).values()
    if not values.is_contiguous():
        if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
            values = values.permute(0, 2, 3, 1)  # what nearly all of a convolutional network is
        else:
            values = _sorted_by_stride(values)
    return values.float() if values.element_size() == 1 else values


def _sorted_by_stride(values: Tensor) -> Tensor:
    """In the order of memory, in which a transposed tensor is read as fast as any."""
    for dim, stride in enumerate(values.stride()):  # an expanded dimension holds one value many times: read it once
        if stride == 0 and values.shape[dim] > 1:
            values = values.narrow(dim, 0, 1)
    strides = values.stride()
    return values.permute(sorted(range(values.dim()), key=lambda d: -strides[d]))


def require_floating(tensor: Any, name: str) -> None:
    """Raise a TypeError with the cure unless `tensor` is a floating-point tensor; ValueError: it has no values yet."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is {type(tensor).__name__}, but a tensor is asked for; wrap it: torch.tensor(x).")
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer):  # is_lazy() is nothing for a compiler
        raise ValueError(f"{name} belongs to a lazy module and has no values yet; run the model once on a batch first.")
    if not tensor.is_floating_point():
        raise TypeError(
            f"floating-point tensors are asked for, but {name} is {tensor.dtype}; leave it out (integers are never Inf "
            "or NaN) or convert it: x.float(), for complex numbers torch.view_as_real(x)."
        )


def by_kind(tensors: list[Tensor]) -> list[list[int]]:
    """Places of the tensors that share a device and a dtype, so that one call can take them together."""
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for place, tensor in enumerate(tensors):
        kinds.setdefault((tensor.device, tensor.dtype), []).append(place)
    return list(kinds.values())


def extremes(group: list[Tensor]) -> list[Tensor]:
    """The same few numbers for each tensor of one device and dtype, through which Inf, NaN and amax show.

    Which call reads memory fastest was measured: on the H200 vector_norm takes 141 us for 4e8 bytes of float16 and
    foreach_norm, which is one call for many tensors, 218 us; on the host a call takes 24 us and 110 us. On CPU aminmax
    takes a twentieth of vector_norm.
    """
    if group[0].device.type == "cpu":
        return [extreme for tensor in group for extreme in torch.aminmax(tensor)]
    if len(group) <= FEW:
        return [torch.linalg.vector_norm(tensor, math.inf) for tensor in group]
    return list(torch._foreach_norm(group, math.inf))
