"""The backward pass: a hook on every node of the graph that computes new gradients."""

import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor as is_wrapped

from mpkit.tracing import names
from mpkit.tracing.event import Where
from mpkit.tracing.glance import floating
from mpkit.tracing.ledger import Ledger
from mpkit.tracing.look import Look
from mpkit.trees import bare
from mpkit.unwatched import aside


class Gradients:
    """Watches the nodes that it is told of. `awake` says whether the trace wants to know just now."""

    def __init__(self, ledger: Ledger, awake: Callable[[], bool]) -> None:
        self._ledger, self._awake = ledger, awake
        self._handles: list[Any] = []
        self._mark = object()  # tells the nodes of this use from those of an earlier one
        self._task = -1  # number of the last backward pass

    def watch(self, tensor: Tensor, where: Where, module: str) -> Where | None:
        """Hook every node of the backward graph between this result and what was seen before.

        Returns where a user's autograd.Function is, if one is among them: no mode is asked about it.
        """
        unseen = None
        stack: list[Any] = [tensor.grad_fn]
        if is_wrapped(tensor):  # a transform of torch.func has a graph of its own
            stack.append(bare(tensor).grad_fn)
        while stack:
            node = stack.pop()
            if node is None or (metadata := node.metadata).get("mpkit") is self._mark:
                continue
            metadata["mpkit"] = self._mark  # kept by the node: an id may belong to another node a moment later
            if (role := names.role_of(node)) == "end":
                continue
            ways = [following for following, _ in node.next_functions]
            stack += ways
            if role == "makes":  # the hook knows the nodes after its own, which makes no circle
                see = partial(self._see, where, names.where_of(node, where, module), metadata, ways)
                self._handles.append(node.register_hook(see))
                unseen = unseen or names.forward_of(node, where, module)
        return unseen

    def forget_the_dead(self) -> None:
        """Let go of the handles of hooks whose nodes are gone."""
        self._handles = [h for h in self._handles if h.hooks_dict_ref() is not None]

    def stop(self) -> None:
        """Take all hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _see(
        self, made_by: Where, where: Where, metadata: dict[Any, Any], ways: list[Any], results: Any, given: Any
    ) -> None:
        """One node's results, each of which goes one of the `ways`, and the gradients that were given to it."""
        if not self._awake():
            return
        with aside():
            task = torch._C._current_graph_task_id()
            if task > self._task:  # the first node of a backward pass: the loss is its forward result
                self._task = task
                self._ledger.add(Look(made_by, "loss"))
                # gradients may be unscaled or clipped as soon as it has ended
                torch.autograd.Variable._execution_engine.queue_callback(self._ledger.read)
            new: list[Tensor] = []
            new_ways, passed = [], []
            same = set(map(id, given))
            for gradient, way in zip(results, ways, strict=True):
                if gradient is None:
                    continue
                if id(gradient) in same:
                    passed.append(way)
                elif read := floating((gradient,)):
                    new += read
                    new_ways.append(way)
            inputs = floating([one for one in given if one is not None]) if new else ()
            self._ledger.add(Look(where, "backward", new, inputs, node=metadata, ways=new_ways, passed=passed))


def in_backward() -> bool:
    """True while autograd works in this thread, be it that it runs a checkpointed part of the forward pass again."""
    return torch._C._current_graph_task_id() != -1


def elsewhere(home: int) -> bool:
    """True where no mode is asked: while autograd runs a part again, and, with a warning, in threads but `home`."""
    if (backward := in_backward()) or threading.get_ident() == home:
        return backward
    text = "the traced model runs in another thread, where trace sees nothing; enter the trace in that thread."
    warnings.warn(text, UserWarning, stacklevel=2)
    return True
