"""The book of what a trace has seen: reads the largest magnitudes, judges them, keeps the events."""

import math
from collections import deque
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mpkit.formats import FP32, FloatFormat
from mpkit.overflow import tally
from mpkit.tracing.event import CONSEQUENCE, WORST_FIRST, TraceEvent, Where, condition, judge
from mpkit.tracing.glance import Glance, glance, largest, magnitudes, reads_at_once
from mpkit.trees import leaves_in

# On a GPU every read waits for all that was started before it, so looks are collected and read together: until there
# are this many, or until the results that they hold on to take this share of the device's memory.
PATIENCE = 256
HELD_SHARE = 1 / 32


@dataclass
class Look:
    """One operation's results and inputs, until they are judged. phase: input, forward or backward."""

    where: Where
    phase: str
    outputs: list[Tensor]
    inputs: list[Tensor]
    before: Glance = field(default_factory=list)  # of inputs that an operation in place has overwritten
    arguments: Any = ()  # all of them, for scalars that are Inf or NaN
    names: list[str] = field(default_factory=list)  # of the tensors, for phase "input"
    after: Glance = field(default_factory=list)


class Ledger:
    """Events of one use of a trace. `first` is kept even when `events`, which holds the last `keep`, has lost it."""

    def __init__(self, fmt: FloatFormat | None, keep: int) -> None:
        self.fmt = fmt
        self.first: TraceEvent | None = None
        self.events: deque[TraceEvent] = deque(maxlen=keep)
        self._pending: list[Look] = []
        self._held = 0
        self._explained = False  # an event of this pass explains Inf and NaN that turn up later
        self._named: set[str] = set()

    def start_pass(self) -> None:
        """A new forward pass begins: what was wrong in the last one explains nothing any more."""
        self.settle()
        self._explained = False

    def add(self, look: Look) -> None:
        """Judge a look: at once on the CPU, later elsewhere."""
        look.after = glance(look.outputs)
        self._pending.append(look)
        if reads_at_once(look.outputs[0].device):
            return self.settle()
        look.outputs, look.inputs = [t.detach() for t in look.outputs], [t.detach() for t in look.inputs]
        if look.phase == "forward":
            look.arguments = (math.inf,) if deliberate(look.arguments) else ()  # and no tensor is kept alive
        self._held += sum(t.nbytes for t in look.outputs)
        if len(self._pending) >= PATIENCE or self._held > _held_limit(look.outputs[0].device):
            self.settle()
        return None

    def settle(self) -> None:
        """Judge what is pending and let go of its tensors."""
        looks, self._pending, self._held = self._pending, [], 0
        if not looks:
            return
        with torch._C.DisableTorchFunction():
            amaxes = iter(magnitudes([numbers for look in looks for numbers in look.after]))
            for look in looks:
                after = [next(amaxes) for _ in look.after]
                if any(condition(amax, self._limits(look)) != "fine" for amax in after):
                    self._judge(look, after)

    def _limits(self, look: Look) -> FloatFormat | None:
        return None if look.where.is_cast else self.fmt

    def _judge(self, look: Look, after: list[float]) -> None:
        if look.phase == "input":
            return self._judge_inputs(look, after)
        before = magnitudes(look.before + glance(look.inputs))
        kind = judge(after, before, self._limits(look), self._explained)
        wild = not all(math.isfinite(amax) for amax in after)
        large = wild or any(condition(amax, self._limits(look)) == "over" for amax in after)
        if wild and not look.where.is_cast and deliberate(look.arguments):
            return None
        if large and look.phase == "forward":
            look.where.tainted = True
        elif large and look.where.tainted:
            return None
        if kind == CONSEQUENCE:
            if wild and not self._explained:
                self._blame_source(look, before)
        elif kind is not None:
            self._record(kind, look.where, look, look.outputs, after, before)
        return None

    def _judge_inputs(self, look: Look, after: list[float]) -> None:
        """Parameters, buffers and data that are bad before anything happened. Each is named once."""
        for name, tensor, amax in zip(look.names, look.outputs, after, strict=True):
            harmless = condition(amax, self.fmt) in ("fine", "under")
            if harmless or not (name.startswith("parameter") or self._suspicious(tensor, amax)):
                continue
            self._explained = True
            if name not in self._named:
                self._named.add(name)
                self._record("input", replace(look.where, operation=name), look, [tensor], [amax], [])

    def _suspicious(self, tensor: Tensor, amax: float) -> bool:
        """Anything bad but a tensor whose only flaw is -Inf, as in an attention mask."""
        return math.isfinite(amax) or bool((tensor.isnan() | (tensor == math.inf)).any())

    def _blame_source(self, look: Look, before: list[float]) -> None:
        """Bad values went into an operation, and no event explains them: they come from where nobody looked."""
        for place, (tensor, amax) in enumerate(zip(look.inputs, before[len(look.before) :], strict=True)):
            if not math.isfinite(amax) and self._suspicious(tensor, amax):
                kind, name = "input", f"tensor {place} of {look.where.operation}"
                if look.phase == "backward":  # autograd adds the gradients of a tensor with several uses by itself
                    kind = "overflow" if math.isinf(amax) else "invalid"
                    name = f"sum of gradients at {look.where.operation}"
                where = Where(look.where.module, name, look.where.line)
                return self._record(kind, where, look, [tensor], [amax], [])
        return None

    def _record(
        self, kind: str, where: Where, look: Look, outputs: list[Tensor], after: list[float], before: list[float]
    ) -> None:
        fmt = self._limits(look)
        pairs = zip(outputs, after, strict=True)
        tensor, amax = min(pairs, key=lambda pair: WORST_FIRST.index(condition(pair[1], fmt)))
        counts = tally(tensor, fmt or FP32)
        wild = counts.inf_count + counts.nan_count
        beyond = counts.flushed_count if kind == "underflow" else wild + counts.overflowed_count
        event = TraceEvent(
            kind=kind,
            phase="forward" if look.phase == "input" else look.phase,
            module=where.module,
            operation=where.operation,
            line=where.line,
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            count=beyond if fmt else wild,
            inf_count=counts.inf_count,
            nan_count=counts.nan_count,
            input_amax=largest(before),
            output_amax=amax,
            format=fmt.name if fmt else None,
        )
        self._explained = self._explained or wild > 0
        self.first = self.first or event
        self.events.append(event)


@cache
def _held_limit(device: torch.device) -> float:
    total = getattr(torch.get_device_module(device), "get_device_properties", None)
    return HELD_SHARE * float(total(device).total_memory) if total else 2.0**28


def deliberate(given: Any) -> bool:
    """True if a scalar among the arguments is Inf or NaN: then the code asked for such a result."""
    return any(isinstance(leaf, float) and not math.isfinite(leaf) for leaf in leaves_in(given))
