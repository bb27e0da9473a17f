"""Read many tensors with one wait: their largest magnitudes stay on the device until somebody asks for all of them."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mpkit.extremes import by_kind, extremes, memory_of
from mpkit.trees import tensors_in

Glance = list[list[Tensor]]  # one or two numbers for each tensor
IMMEDIATE = {"cpu"}  # devices whose numbers can be read without waiting


def glance(tensors: list[Tensor]) -> Glance:
    """One pass over each tensor; the numbers stay on their device. No tensor may be empty."""
    values = [memory_of(tensor, "result") for tensor in tensors]
    seen: Glance = [[] for _ in tensors]
    for places in by_kind(values):
        numbers = extremes([values[place] for place in places])
        each = len(numbers) // len(places)
        for i, place in enumerate(places):
            seen[place] = numbers[each * i : each * (i + 1)]
    return seen


def magnitudes(glances: Glance) -> list[float]:
    """Largest magnitude of each tensor, NaN if it holds one. Waits for the device once for each dtype."""
    numbers = [number for glance in glances for number in glance]
    values: list[float] = [0.0] * len(numbers)
    for places in by_kind(numbers):
        some = [numbers[place] for place in places]
        # Two calls of item() are faster than stack and tolist, where nothing has to be waited for.
        read = [one.item() for one in some] if reads_at_once(some[0].device) else torch.stack(some).tolist()
        for place, value in zip(places, read, strict=True):
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
