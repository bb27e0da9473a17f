"""What a step is given to train on: found in whatever holds it, kept, put back, and tried without its bad values."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mpkit.unwatched import aside


def data_in(thing: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every tensor that it holds: in mappings, sequences, NumPy arrays (as tensors of the same memory), objects with
    attributes, and what a function has closed over. Not what is trained, nor what has a state of its own.
    """
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, nn.Parameter | type | str | bytes) or hasattr(thing, "state_dict"):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif type(thing).__module__ == "numpy" and getattr(getattr(thing, "flags", None), "writeable", False):
        if thing.dtype.kind in "fiub":
            yield torch.from_numpy(thing)
    else:
        for part in _parts(thing):
            yield from data_in(part, seen)


def _parts(thing: Any) -> Iterable[Any]:
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, list | tuple | set | frozenset):
        return thing
    if isinstance(thing, types.FunctionType):
        return [cell.cell_contents for cell in thing.__closure__ or () if cell != types.CellType()]
    if isinstance(thing, types.MethodType):
        return [thing.__self__]
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, types.ModuleType):
        return ()
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*vars(thing).values()] if hasattr(thing, "__dict__") else [getattr(thing, n, None) for n in slots]


class Kept:
    """The values of these tensors, to put back. What cannot be written to in place is left alone."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        with aside():
            self._kept = [(t.detach(), t.detach().clone()) for t in tensors if _writable(t)]

    def put_back(self) -> None:
        """They hold again what they held."""
        with aside(), torch.no_grad():
            for tensor, was in self._kept:
                tensor.copy_(was)

    def changed(self) -> bool:
        """Does one of them hold something else? Waits for the device."""
        with aside():
            return any(not bool(((t == was) | ((t != t) & (was != was))).all()) for t, was in self._kept)


def _writable(tensor: Tensor) -> bool:
    spread = any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)) if (
        tensor.layout == torch.strided) else True  # fmt: skip
    return not (spread or tensor.is_inference())


@contextmanager
def filled(marked: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Inside, each of these tensors is 0 where its mask is true."""
    kept = Kept(tensor for tensor, _ in marked)
    try:
        with aside(), torch.no_grad():
            for tensor, mask in marked:
                if _writable(tensor):
                    tensor.detach().masked_fill_(mask, 0)
        yield
    finally:
        kept.put_back()
