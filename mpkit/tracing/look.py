"""A look at one operation, until it is judged."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mpkit.policy.operations import is_in_place
from mpkit.tracing import names
from mpkit.tracing.descent import sharing
from mpkit.tracing.event import Where, deliberate
from mpkit.tracing.glance import Glance, floating_tensors, glance, others


@dataclass
class Look:
    """One operation's results and inputs. phase: input, forward, write, output, part, loss, backward or gradients."""

    where: Where
    phase: str
    outputs: list[Tensor] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    changes: list[Tensor] = field(default_factory=list)  # what an operation in place writes into,
    overwritten: list[Tensor] = field(default_factory=list)  # as far as that is looked at;
    was: list[Tensor] = field(default_factory=list)  # those of them that are operands, too,
    before: Glance = field(default_factory=list)  # and their numbers before
    unread: list[Tensor] = field(default_factory=list)  # results that are bad only if an input is
    arguments: Any = ()  # all of them, for scalars that ask for Inf
    labels: list[str] = field(default_factory=list)  # of the tensors, for phase "input"
    after: Glance = field(default_factory=list)  # of the outputs
    node: dict[Any, Any] = field(default_factory=dict)  # metadata of the graph's node, for phase "backward";
    ways: list[Any] = field(default_factory=list)  # the nodes to which its results go,
    passed: list[Any] = field(default_factory=list)  # and those to which gradients go that it hands on as they are

    def tensors(self) -> list[Tensor]:
        """All that it holds on to."""
        return [*self.outputs, *self.inputs, *self.was, *self.unread]

    def detach(self) -> None:
        """Hold the values only, not the graph that made them.

        Results are always held by another name: autograd takes a gradient that nobody else has for .grad, uncopied.
        """
        self.arguments = (math.inf,) if deliberate(self.arguments) else ()
        self.changes = self.overwritten = []
        self.outputs = [t.detach() for t in self.outputs]
        self.inputs, self.was, self.unread = (
            [t if t.is_leaf else t.detach() for t in tensors] for tensors in (self.inputs, self.was, self.unread)
        )


def look_before(func: Callable[..., Any], name: str, args: Any, kwargs: dict[str, Any], reads: bool) -> Look:
    """What goes into an operation, and how large it is where it will be overwritten."""
    phase = {"grad": "gradients", "__setitem__": "write"}.get(name, "forward")
    look = Look(names.operation(func, name, args), phase, arguments=(args, kwargs))
    into = kwargs.get("out")
    given = floating_tensors((args, kwargs if into is None else {**kwargs, "out": None}))
    if phase == "write" or is_in_place(name, kwargs):
        look.changes = floating_tensors(args[:1] if into is None else into)
    if phase == "write" or reads:
        look.overwritten = look.changes
    if phase != "write" and look.overwritten:
        # What `out` holds goes nowhere, unless it is an operand, too.
        look.was = look.overwritten if into is None else sharing(look.overwritten, given)
        look.before = glance(look.was)
    look.inputs = others(given, look.overwritten)
    return look


def look_at_start(where: Where, prefix: str, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Look:
    """All that is there before a forward pass."""
    given: list[tuple[str, Any]] = [(f"parameter {prefix}{key}", p) for key, p in module.named_parameters()]
    given += [(f"buffer {prefix}{key}", b) for key, b in module.named_buffers()]
    given += [(f"input {key}", tree) for key, tree in [*enumerate(args), *kwargs.items()]]
    named = [(what, tensor) for what, tree in given for tensor in floating_tensors(tree)]
    return Look(where, "input", [tensor for _, tensor in named], labels=[what for what, _ in named])
