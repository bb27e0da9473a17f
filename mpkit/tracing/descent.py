"""What a bad tensor descends from: marks on memory on the way forward, on the nodes of the graph on the way back."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from mpkit.tracing import names
from mpkit.tracing.findings import NOTHING, Causes
from mpkit.tracing.glance import others


class Marks:
    """Memory that holds bad values, and the findings that these come from. Views share the mark of their base.

    A mark ends with its memory: while a StorageWeakRef lives, no other storage gets the same address.
    Nothing is marked in a healthy run, so `if marks` is all that it costs there.
    """

    def __init__(self) -> None:
        self._marks: dict[int, tuple[StorageWeakRef, Causes]] = {}

    def __bool__(self) -> bool:
        return bool(self._marks)

    def of(self, tensor: Tensor) -> Causes:
        """What the bad values in this tensor's memory come from; nothing for a healthy one or an unknown cause."""
        found = self._marks.get(memory(tensor)) if self._marks else None
        return found[1] if found else NOTHING

    def set(self, tensor: Tensor, causes: Causes, written: bool = True) -> None:
        """Mark the memory of a tensor anew. Where only a part of it was `written`, what was there before stays."""
        if not (causes or self._marks) or tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        if not written or tensor.nbytes < storage.nbytes():
            causes |= self.of(tensor)
        if causes:
            self._marks[memory(tensor)] = (StorageWeakRef(storage), causes)  # type: ignore[no-untyped-call]
        else:
            self._marks.pop(memory(tensor), None)

    def all(self) -> Causes:
        """What all bad values come from that were there the last time that the dead were forgotten."""
        return union(causes for _, causes in self._marks.values())

    def forget_the_dead(self) -> None:
        """Let go of marks whose memory is gone."""
        dead = [key for key, (storage, _) in self._marks.items() if storage.expired()]  # type: ignore[no-untyped-call]
        for key in dead:
            del self._marks[key]


def memory(tensor: Tensor) -> int:
    """Something that two tensors share if they share memory; a tensor without a storage has only itself.

    No transform of torch.func may be wrapped around it.
    """
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return id(tensor)


def sharing(tensors: Iterable[Tensor], others: Iterable[Tensor]) -> list[Tensor]:
    """Those of `tensors` that share memory with one of `others`."""
    places = {memory(tensor) for tensor in others}
    return [tensor for tensor in tensors if memory(tensor) in places]


def fresh(results: list[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Results in memory of their own: not an input, and no view of one. A view of something new is new."""
    new = others(results, inputs)
    if not any(map(Tensor._is_view, new)):
        return new
    places = {memory(tensor) for tensor in inputs}
    return [t for t in new if not (t._is_view() and memory(t) in places)]


def union(causes: Iterable[Causes]) -> Causes:
    """All of them together."""
    return NOTHING.union(*causes)


def arrived(metadata: dict[Any, Any], key: object) -> Causes:
    """What `pass_on` has left at a node."""
    found: Causes = metadata.get(key, NOTHING)
    return found


def pass_on(node: Any, causes: Causes, key: object) -> bool:
    """A bad gradient goes to this node of the graph: leave its causes there. True if it is a parameter's gradient.

    Nodes that only hand their gradient on are not watched; they are passed through.
    """
    stack, ends = [node], False
    while stack:
        node = stack.pop()
        if node is None:
            continue
        role = names.role_of(node)
        if role == "end":
            ends = True
        elif role == "hands on":
            stack += [following for following, _ in node.next_functions]
        else:
            node.metadata[key] = arrived(node.metadata, key) | causes
    return ends
