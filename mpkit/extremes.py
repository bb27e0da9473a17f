"""Read a tensor once: the fastest way to a few numbers that show Inf, NaN and the largest magnitude."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mpkit.trees import tensors_in

Glance = list[list[Tensor]]  # one or two numbers for each tensor
FEW = 4  # tensors that are read faster one by one than by one call for all
IMMEDIATE = {"cpu"}  # devices whose numbers can be read without waiting


def memory_of(tensor: Tensor, name: str) -> Tensor:
    """The distinct values of a tensor, detached, in a dtype and an order that reductions read fast.

    Sparse tensors give their stored values, expanded ones every value once, channels_last ones are read in the order
    of memory, float8 (for which torch has no reductions) as float32.
    """
    require_floating(tensor, name)
    values = tensor.detach()
    if values.layout != torch.strided:
        values = (values.coalesce() if values.layout == torch.sparse_coo else values).values()
    if not values.is_contiguous():
        if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
            return values.permute(0, 2, 3, 1)  # what nearly all of a convolutional network is
        for dim, stride in enumerate(values.stride()):  # an expanded dimension holds one value many times: read it once
            if stride == 0 and values.shape[dim] > 1:
                values = values.narrow(dim, 0, 1)
        strides = values.stride()  # in the order of memory, a transposed tensor is read as fast as any
        values = values.permute(sorted(range(values.dim()), key=lambda d: -strides[d]))
    return values.float() if values.element_size() == 1 else values


def require_floating(tensor: Any, name: str) -> None:
    """Raise a TypeError with the cure unless `tensor` is a floating-point tensor."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is {type(tensor).__name__}, but a tensor is asked for; wrap it: torch.tensor(x).")
        came = str(tensor.dtype)
        raise TypeError(
            f"floating-point tensors are asked for, but {name} is {came}; leave it out (integers are never Inf or "
            "NaN) or convert it: x.float(), for complex numbers torch.view_as_real(x)."
        )


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


def glance(tensors: list[Tensor]) -> Glance:
    """One pass over each tensor; the numbers stay on their device. No tensor may be empty."""
    values = [memory_of(tensor, "result") for tensor in tensors]
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for place, value in enumerate(values):
        groups.setdefault((value.device, value.dtype), []).append(place)
    seen: Glance = [[] for _ in tensors]
    for places in groups.values():
        numbers = extremes([values[place] for place in places])
        each = len(numbers) // len(places)
        for i, place in enumerate(places):
            seen[place] = numbers[each * i : each * (i + 1)]
    return seen


def magnitudes(glances: Glance) -> list[float]:
    """Largest magnitude of each tensor, NaN if it holds one. Waits for the device once for each dtype."""
    numbers = [number for glance in glances for number in glance]
    values: list[float] = [0.0] * len(numbers)
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for place, number in enumerate(numbers):
        if reads_at_once(number.device):
            values[place] = number.item()
        else:
            groups.setdefault((number.device, number.dtype), []).append(place)
    for places in groups.values():
        for place, value in zip(places, torch.stack([numbers[p] for p in places]).tolist(), strict=True):
            values[place] = value
    remaining = iter(values)
    return [largest([next(remaining) for _ in glance]) for glance in glances]


def largest(values: list[float]) -> float:
    """Largest magnitude; NaN if there is one, 0.0 for none at all."""
    return math.nan if any(math.isnan(v) for v in values) else max((abs(v) for v in values), default=0.0)


def reads_at_once(device: torch.device) -> bool:
    """True if reading a number from this device interrupts nothing."""
    return device.type in IMMEDIATE


def floating_tensors(tree: Any) -> list[Tensor]:
    """All floating-point tensors that hold anything, in nested lists, tuples and dicts."""
    return [t for t in tensors_in(tree) if t.is_floating_point() and not t.is_meta and t.numel()]


def others(tensors: list[Tensor], known: Iterable[Tensor | None]) -> list[Tensor]:
    """Those of `tensors` that are not among `known`, by identity: == would compare their values."""
    ids = {id(tensor) for tensor in known}
    return [tensor for tensor in tensors if id(tensor) not in ids]
