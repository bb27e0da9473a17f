"""Read many tensors with one wait: their largest magnitudes stay on the device until somebody asks for all of them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor as is_wrapped

from mpkit.extremes import by_kind, extremes, in_memory_order
from mpkit.trees import bare, is_distributed, is_gone, leaves_in

Glance = list[list[Tensor]]  # one or two numbers for each tensor
PLAIN = (Tensor, nn.Parameter)
NOTHING_IN = (type(None), int, bool, str)
IMMEDIATE = {"cpu"}  # devices whose numbers can be read without waiting


def glance(tensors: Sequence[Tensor]) -> Glance:
    """One pass over each tensor; the numbers stay on their device. No tensor may be empty."""
    values = [in_memory_order(t) for t in map(still_there, tensors)]
    seen: Glance = [[] for _ in tensors]
    for places in by_kind(values):
        numbers = extremes([values[place] for place in places])
        each = len(numbers) // len(places)
        for i, place in enumerate(places):
            seen[place] = numbers[each * i : each * (i + 1)]
    return seen


def still_there(x: Tensor) -> Tensor:
    """`x`, or a zero if its memory was given back.

    Such weights are looked at as the model's parameters before the pass, each process at its own part.
    """
    return torch.zeros((), dtype=x.dtype, device=x.device) if is_gone(x) else x


def magnitudes(glances: Sequence[list[Tensor]]) -> list[float]:
    """Largest magnitude of each tensor, NaN if it holds one. Waits for the device once for each dtype."""
    numbers = [number for glance in glances for number in glance]
    values: list[float] = [0.0] * len(numbers)
    for places in by_kind(numbers):
        some = [numbers[place] for place in places]
        # Two calls of item() are faster than stack and tolist, where nothing has to be waited for.
        read = [one.item() for one in some] if reads_at_once(some[0].device) else torch.stack(some).tolist()
        for place, value in zip(places, read, strict=True):
            values[place] = value
    if len(numbers) == len(glances):  # one for each tensor
        return list(map(abs, values))
    remaining = iter(values)
    return [largest([next(remaining) for _ in glance]) for glance in glances]


def largest(values: list[float]) -> float:
    """Largest magnitude; NaN if there is one, 0.0 for none at all."""
    return math.nan if any(math.isnan(v) for v in values) else max((abs(v) for v in values), default=0.0)


def reads_at_once(device: torch.device) -> bool:
    """True if reading a number from this device interrupts nothing."""
    return device.type in IMMEDIATE


def floating_tensors(tree: Any) -> list[Tensor]:
    """All floating-point tensors that hold anything, in nested lists, tuples and dicts, as dense ones to be read."""
    return floating(all_tensors(tree))


def all_tensors(tree: Any) -> list[Tensor]:
    """What `tensors_in` gives, as a list: a generator takes ten times as long, and every operation asks twice."""
    return [tree] if type(tree) in PLAIN else gathered(tree)[0]


def gathered(tree: Any) -> tuple[list[Tensor], list[float]]:
    """The tensors in nested containers, and the floating-point numbers of Python."""
    tensors: list[Tensor] = []
    scalars: list[float] = []
    _gather(tree, tensors, scalars)
    return tensors, scalars


def _gather(tree: Any, tensors: list[Tensor], scalars: list[float]) -> None:
    if isinstance(tree, list | tuple):
        for branch in tree:
            if (kind := type(branch)) in PLAIN:  # most of them; the others are asked in a call
                tensors.append(branch)
            elif kind not in NOTHING_IN:
                _gather(branch, tensors, scalars)
    elif isinstance(tree, Tensor):
        tensors.append(tree)
    elif isinstance(tree, dict):
        _gather([*tree.values()], tensors, scalars)
    elif isinstance(tree, float):
        scalars.append(tree)


def floating(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Those of `tensors` that are floating-point and hold anything, as dense ones to be read."""
    found = []
    for x in tensors:
        dtype = x.dtype
        if not (dtype.is_floating_point or dtype.is_complex) or x.is_meta or not x.numel():
            continue
        if type(x) not in PLAIN or dtype.is_complex or x.layout is not torch.strided or x.is_nested or is_wrapped(x):
            x = _dense(x)
            if not x.numel():
                continue
        found.append(x)
    return found


def _dense(x: Tensor) -> Tensor:
    """The values of `x` in this process's memory.

    Of what torch.func wraps, all elements of a batch; of a sparse or a nested tensor those that are stored; of a
    DTensor its own part; of complex numbers both parts.
    """
    x = bare(x)
    if is_distributed(x):
        x = x.detach().to_local()  # type: ignore[attr-defined]
    if x.layout == torch.sparse_coo:
        x = x.detach()._values()
    elif x.layout != torch.strided or x.is_nested:
        x = x.detach().values()
    return torch.view_as_real(x.detach().resolve_conj()) if x.is_complex() else x


def everything_in(tree: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """All tensors in nested containers and in the attributes of objects in them: a data class, a cache of keys."""
    seen = set() if seen is None else seen
    for leaf in leaves_in(tree):
        if isinstance(leaf, Tensor):
            yield leaf
        elif id(leaf) not in seen and not isinstance(leaf, type | nn.Module) and not callable(leaf):
            seen.add(id(leaf))
            yield from everything_in(list(getattr(leaf, "__dict__", {}).values()), seen)


def others(tensors: Iterable[Tensor], known: Iterable[Tensor | None]) -> list[Tensor]:
    """Those of `tensors` that are not among `known`, by identity: == would compare their values."""
    ids = set(map(id, known))
    return [tensor for tensor in tensors if id(tensor) not in ids]


def suspicious(tensor: Tensor, amax: float) -> bool:
    """Anything bad but a tensor whose only flaw is -Inf, as in an attention mask."""
    there = still_there(tensor)
    return math.isfinite(amax) or bool((there.isnan() | (there == math.inf)).any())


def within_noise(result: Tensor, amax: float, inputs: Sequence[Tensor], largest_input: float) -> bool:
    """True if the result is a sum over some dimensions whose rounding errors may be all that it holds.

    n terms of at most `a` leave an error of up to n · eps · a (Higham 2002, Accuracy and Stability of Numerical
    Algorithms, section 4.2). The gradient of attention's key bias is such a sum: 0 in mathematics.
    """
    terms = max((t.numel() for t in inputs if t.dim() > result.dim()), default=0) / max(result.numel(), 1)
    return terms > 1 and amax <= terms * torch.finfo(result.dtype).eps * largest_input
