"""What is in a model's buffers, kept at every step of a training: without a walk over its modules, in few calls."""

from __future__ import annotations

from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from mpkit.diagnosis.undo import reinstate
from mpkit.extremes import by_kind


class Buffers:
    """`keep` copies what the buffers of a model hold, and `put_back` gives them that again: the same objects too."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._held: list[tuple[nn.Module, dict[str, Tensor | None]]] = []  # every module, and its buffers
        self._seen: list[Any] = [None]  # what was in those modules when they were walked; as yet they were not
        self._groups: list[tuple[list[Tensor], list[Tensor]]] = []  # buffers of a kind, and the copies of them
        self._kinds: list[tuple[torch.Size, torch.dtype]] = []

    @torch.no_grad()
    def keep(self) -> None:
        """Copy them. One call for each device and dtype: in a mixed list torch copies tensor by tensor."""
        if not self._as_seen():
            self._walk()
        for buffers, copies in self._groups:
            torch._foreach_copy_(copies, buffers)

    @torch.no_grad()
    def put_back(self) -> None:
        """What was in them when they were kept last."""
        for module, held in self._held:
            reinstate(module, held)
        for buffers, copies in self._groups:
            torch._foreach_copy_(buffers, copies)

    def _as_seen(self) -> bool:
        """Is every module and buffer the same object under the same name, and of the same kind?"""
        now = self._contents()
        same = len(now) == len(self._seen) and all(map(is_, now, self._seen))
        return same and self._kinds_now() == self._kinds

    def _kinds_now(self) -> list[tuple[torch.Size, torch.dtype]]:
        return [(b.shape, b.dtype) for buffers, _ in self._groups for b in buffers]

    def _contents(self) -> list[Any]:
        inside: list[dict[str, Any]] = [one for module, _ in self._held for one in (module._modules, module._buffers)]
        return [*chain.from_iterable(inside), *chain.from_iterable(one.values() for one in inside)]

    def _walk(self) -> None:
        """Look for all of them, and make room for what they hold."""
        self._held = [(module, dict(module._buffers)) for module in self._model.modules()]
        buffers = [b for _, held in self._held for b in held.values() if b is not None and b.numel()]
        of_a_kind = [[buffers[place] for place in places] for places in by_kind(buffers)]
        self._groups = [(group, [torch.empty_like(b) for b in group]) for group in of_a_kind]
        self._seen, self._kinds = self._contents(), self._kinds_now()
