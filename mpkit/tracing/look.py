"""A look at one operation, until it is judged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mpkit.tracing import names
from mpkit.tracing.descent import memory, sharing
from mpkit.tracing.event import Where
from mpkit.tracing.glance import Glance, floating, floating_tensors, gathered, glance, others, suspicious
from mpkit.trees import bare


@dataclass(slots=True)
class Look:
    """One operation's results and inputs.

    phase: input, forward, unseen, write, output, part, loss, backward or gradients.
    """

    where: Where
    phase: str
    outputs: Sequence[Tensor] = ()
    inputs: Sequence[Tensor] = ()
    changes: Sequence[Tensor] = ()  # what an operation in place writes into,
    overwritten: Sequence[Tensor] = ()  # as far as that is looked at;
    was: Sequence[Tensor] = ()  # operands that are overwritten, at once or later,
    before: Sequence[list[Tensor]] = ()  # and their numbers before
    unread: Sequence[Tensor] = ()  # results that are bad only if an input is
    scalars: Sequence[float] = ()  # among its arguments: they may ask for Inf
    has_operands: bool = True  # whatever their dtype; else it makes numbers that no other explains
    unseen: Where | None = None  # a user's autograd.Function before it, whose kernels no mode sees
    labels: Sequence[str] = ()  # of the tensors, for phase "input"
    after: Sequence[list[Tensor]] = ()  # of the outputs
    node: dict[Any, Any] = field(default_factory=dict)  # metadata of the graph's node, for phase "backward";
    ways: Sequence[Any] = ()  # the nodes to which its results go,
    passed: Sequence[Any] = ()  # and those to which gradients go that it hands on as they are

    def one(self) -> Tensor | None:
        """One of the tensors that it holds on to, for their device."""
        tensors = self.outputs or self.inputs or self.was or self.unread
        return tensors[0] if tensors else None

    def numbers_before(self) -> Glance:
        """Of what went in: `was`, then `inputs`."""
        return [*self.before, *glance(self.inputs)]

    def keep(self, place: int) -> None:
        """What is in this memory is about to be overwritten: note the numbers of the inputs there."""
        changing = [t for t in self.inputs if memory(t) == place]
        self.inputs = others(self.inputs, changing)
        self.was, self.before = [*self.was, *changing], [*self.before, *glance(changing)]

    def detach(self) -> None:
        """Hold the values only, not the graph that made them.

        Results are always held by another name: autograd takes a gradient that nobody else has for .grad, uncopied.
        """
        self.changes = self.overwritten = ()
        self.outputs = list(map(Tensor.detach, self.outputs))
        self.inputs = [t if t.is_leaf else t.detach() for t in self.inputs]
        if self.was or self.unread:
            self.was, self.unread = ([t.detach() for t in tensors] for tensors in (self.was, self.unread))


def look_at_operands(operation: names.Operation, args: Any, kwargs: dict[str, Any]) -> Look:
    """What goes into an operation that overwrites nothing."""
    given, scalars = gathered((args, kwargs) if kwargs else args)
    return Look(
        operation.where(args), operation.phase, inputs=floating(given), scalars=scalars, has_operands=bool(given)
    )


def look_before(operation: names.Operation, args: Any, kwargs: dict[str, Any], reads: bool) -> Look:
    """What goes into an operation that overwrites something, and how large that is."""
    into = kwargs.get("out")
    given, scalars = gathered((args, kwargs if into is None else {**kwargs, "out": None}))
    look = Look(operation.where(args), operation.phase, scalars=scalars, has_operands=bool(given))
    changes, _ = gathered(args[:1] if into is None else into)
    look.changes = floating(changes)
    if look.phase == "write" or reads:
        look.overwritten = look.changes
    if look.phase != "write" and look.overwritten:
        # What `out` holds goes nowhere, unless it is an operand, too.
        look.was = look.overwritten if into is None else sharing(look.overwritten, floating(given))
        look.before = glance(look.was)
    look.inputs = floating(others(given, changes) if look.overwritten else given)
    return look


def converted(target: Tensor, place: Any, value: Any) -> list[Tensor]:
    """What `target[place] = value` has written, if it had another dtype: it may be bad now where `value` is not."""
    if not isinstance(value, Tensor) or value.dtype == target.dtype or bare(target) is not target:
        return []
    return floating_tensors(target.detach()[place])


def modules_of(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """What `module.named_modules(prefix=prefix)` gives, whose nested generators take ten times as long."""
    found: list[tuple[str, nn.Module]] = []
    met: set[int] = set()
    stack = [(prefix, module)]
    while stack:
        path, part = stack.pop()
        if id(part) not in met:
            met.add(id(part))
            found.append((path, part))
            start = f"{path}." if path else ""
            inner = [(start + name, child) for name, child in part._modules.items() if child is not None]
            stack += reversed(inner)
    return found


def look_at_start(where: Where, prefix: str, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Look:
    """All that is there before a forward pass."""
    parameters: dict[int, tuple[str, Tensor]] = {}
    buffers: dict[int, tuple[str, Tensor]] = {}
    for path, part in modules_of(module, prefix):
        start = f"{path}." if path else ""
        for kind, owned, seen in (("parameter", part._parameters, parameters), ("buffer", part._buffers, buffers)):
            for key, tensor in owned.items():
                if tensor is not None:
                    seen.setdefault(id(tensor), (f"{kind} {start}{key}", tensor))
    own = [*parameters.values(), *buffers.values()]
    named = [(what, read) for what, tensor in own for read in floating((tensor,))]
    for place, tree in [*enumerate(args), *kwargs.items()]:
        named += [(f"input {place}", read) for read in floating_tensors(tree)]
    return Look(where, "input", [tensor for _, tensor in named], labels=[what for what, _ in named])


def unexplained(look: Look, before: list[float]) -> tuple[str, Where, Tensor, float] | None:
    """Of an operation into which bad values went, the first input that has them: kind, name, values, their magnitude.

    None: only -Inf went in, of which masks are made.
    """
    for place, (tensor, amax) in enumerate(zip(look.inputs, before[len(look.before) :], strict=True)):
        if math.isfinite(amax):
            continue
        kind, name = "overflow" if math.isinf(amax) else "invalid", look.where.operation
        if look.phase == "backward":  # autograd adds the gradients of a tensor with several uses, and hooks change them
            return kind, Where(look.where.module, f"sum of gradients at {name}", look.where.line), tensor, amax
        if suspicious(tensor, amax):
            there = Where(look.where.module, f"tensor {place} of {name}", look.where.line)
            return ("input", there, tensor, amax) if look.unseen is None else (kind, look.unseen, tensor, amax)
    return None
