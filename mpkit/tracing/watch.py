"""Where did the first Inf or NaN come from? `trace(model)` watches a training step and names the cause.

Every result is read once, while it is still in the cache (torch.aminmax on CPU). Only where something is wrong are the
inputs read as well: finite in and Inf or NaN out is a cause, everything after that is a consequence.
On a GPU nothing waits for the host after each operation: findings are read in batches (see `Ledger`).
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook as after_step
from torch.optim.optimizer import register_optimizer_step_pre_hook as before_step

from mpkit.formats import FloatFormat, require_format
from mpkit.hook import around_modules
from mpkit.policy.operations import UNINITIALISED, is_in_place
from mpkit.tracing import names
from mpkit.tracing.descent import fresh
from mpkit.tracing.event import TraceEvent, Where
from mpkit.tracing.glance import all_tensors, everything_in, floating, floating_tensors
from mpkit.tracing.gradients import Gradients, elsewhere, in_backward
from mpkit.tracing.ledger import Ledger
from mpkit.tracing.look import Look, converted, look_at_operands, look_at_start, look_before, modules_of
from mpkit.tracing.mode import Mode
from mpkit.tracing.rest import Rest
from mpkit.unwatched import aside, uncompiled


class Trace:
    """Watch `model`, its loss and their gradients: `with mpkit.trace(model) as trace: loss = …; loss.backward()`.

    Afterwards `trace.first` is the first TraceEvent, or None if nothing went wrong; `trace.events` are the last `keep`.
    What counts are bad values that an output of the model, the loss given to backward() or a parameter's gradient
    descends from. The others are in `trace.harmless`: log(0) that `where` or `.to(long)` discards, an attention mask.
    Before its pass has come to that end (as when forward raises), and outside the model if no backward pass follows,
    a finding counts. With `fmt` nothing becomes Inf, so a value that would overflow counts unless `where`, `min`,
    `clamp` or the like discard it. Where an operation is hidden (a kernel of one's own), what is bad around it counts.
    An autograd.Function of a user is named as a whole, unless an operation of torch inside it is the cause.

    Not causes: what an optimizer's step() does (a parameter that it breaks is named at the next forward pass), results
    of a scalar Inf, NaN or finfo.min that the code itself names, such as masked_fill(mask, -inf), and data or buffers
    whose only flaw is -Inf, which is what attention masks look like. A function of torch.nn.functional is one
    operation, even if it holds a whole layer (multi_head_attention_forward): an Inf that it makes and loses again (the
    norm in F.normalize) is not seen. Its backward pass is seen step by step.
    A checkpointed part is watched when it runs first, not when it runs again. What a hook makes of a tensor's gradient
    appears as a sum of gradients at the operation that is given it, and what NumPy or a kernel without a Function made
    as a bad input of the operation that reads it. A compiled model runs as it is written, uncompiled. Of DTensors this
    process's part is read. Only the thread that entered the trace is watched; a model that runs in another one says so
    in a UserWarning. Enter a trace outside policy.apply or autocast, `with mpkit.trace(model) as trace,
    policy.apply(model):`, so that a cast itself can be named.

    Args:
        model: the module whose parameters, inputs and submodules are watched.
        fmt: if given, results are also held against this format as if each one were stored in it: an FP32 run on a
            laptop then predicts where FP16 or FP8 would overflow, saturate or underflow. Operations that autocast keeps
            in FP32 are held against it too, such as the product of a loss and a GradScaler's scale.
        keep: how many events to keep, at least 1.

    It can be used again; each use starts from nothing.

    Raises:
        TypeError: `model` is not an nn.Module, or `fmt` is not a FloatFormat.
        ValueError: `keep` is less than 1.
        RuntimeError: a trace is entered while it is active.
    """

    def __init__(self, model: nn.Module, fmt: FloatFormat | None = None, keep: int = 64) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"trace asks for an nn.Module, but {type(model).__name__} came; pass the model itself.")
        if keep < 1:
            raise ValueError(f"keep={keep} events is asked for; keep at least 1.")
        self._model, self._fmt, self._keep = model, None if fmt is None else require_format(fmt), keep
        self._used, self._rest = False, Rest()
        self._inside: ExitStack | None = None  # what ends with the with-block
        self._start()

    @property
    def first(self) -> TraceEvent | None:
        """The first cause, or None."""
        self._ledger.settle()
        return self._ledger.findings.first

    @property
    def events(self) -> list[TraceEvent]:
        """The last `keep` events that count, oldest first."""
        self._ledger.settle()
        return self._ledger.findings.events

    @property
    def harmless(self) -> list[TraceEvent]:
        """The last `keep` events that reached no output, no loss and no gradient, oldest first."""
        self._ledger.settle()
        return self._ledger.findings.harmless

    def __repr__(self) -> str:
        unused = "not used yet: put the forward and backward pass into a with block"
        harmless = f"; {len(self.harmless)} harmless, see .harmless" if self.harmless else ""
        return f"Trace({(self.first or f'nothing went wrong{harmless}') if self._used else unused})"

    def __enter__(self) -> Self:
        if self._inside is not None:
            raise RuntimeError("this trace is active already; leave its with-block first, or make a second trace.")
        self._used = True
        self._start()
        with ExitStack() as inside:
            hooks = around_modules(modules_of(self._model), self._enter_module, self._leave_module)
            hooks += [before_step(partial(self._pause, True)), after_step(partial(self._pause, False))]
            inside.callback(lambda: [hook.remove() for hook in hooks])
            inside.enter_context(uncompiled())
            inside.enter_context(Mode(self._observe))
            self._inside = inside.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._inside is not None:
            self._inside.close()
        self._inside = None
        self._gradients.stop()
        self._rest.end()
        self._ledger.settle()

    def _start(self) -> None:
        self._ledger = Ledger(self._fmt, self._keep)
        self._gradients = Gradients(self._ledger, lambda: self._inside is not None and not self._paused)
        self._operations: dict[Callable[..., Any], names.Operation] = {}  # that were met
        self._path: list[str] = []
        self._paused = False
        self._last: Where | None = None
        self._thread = threading.get_ident()

    def _pause(self, pause: bool, *_: Any) -> None:
        self._paused = pause
        self._ledger.settle()  # before an optimizer changes anything
        self._rest.end()

    def _enter_module(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if elsewhere(self._thread):
            return
        if not self._path:
            self._begin(name, module, args, kwargs)
        self._path.append(name or "(model)")

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self._path or elsewhere(self._thread):
            return
        name = self._path.pop()
        where = self._last or Where(name, type(module).__name__, names.readable_line(names.locate()))
        for tensor in all_tensors(output):  # what emulation adds after the last operation belongs to that operation
            if (hidden := self._gradients.watch(tensor, where, name)) is not None:
                with aside():
                    look = Look(hidden, "unseen", floating_tensors(tensor), floating_tensors(args))
                    self._ledger.add(look)
        if not self._path:
            with aside():
                phase = "part" if output is None else "output"  # None: it raised, so nothing is harmless yet
                self._ledger.add(Look(where, phase, inputs=floating_tensors(list(everything_in(output)))))

    def _begin(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A new forward pass: look at what goes in."""
        self._rest.end()
        self._ledger.start_pass()
        self._paused = False  # a forward pass inside step() (a closure), or after a step() that raised
        self._gradients.forget_the_dead()
        where = Where(name or "(model)", "", names.readable_line(names.locate()))
        with aside():
            self._ledger.add(look_at_start(where, name, module, args, kwargs))
            self._ledger.read()  # a batch norm changes its buffers, and a sharded model its parameters, unseen
        self._rest.begin()

    def _observe(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Run one torch function and look at its result."""
        operation = self._operations.get(func)
        if operation is None:
            operation = self._operations[func] = names.operation(func)
        name, look = operation.name, None
        if self._paused or not name or in_backward():
            return func(*args, **kwargs)
        reads = self._fmt is not None or name not in names.NEVER_WORSE
        if operation.in_place and args and isinstance(args[0], Tensor) and args[0].dtype in names.WHOLE:
            return func(*args, **kwargs)  # a counter, as batch norm has
        if operation.in_place or (kwargs and is_in_place(name, kwargs)):
            with aside():
                look = look_before(operation, args, kwargs, reads)
                if look.changes:
                    self._ledger.changes(look.changes)
        out = func(*args, **kwargs)
        if look is None and not isinstance(out, Tensor | list | tuple | dict):  # dim(), item()
            return out
        with aside():
            results = all_tensors(out if operation.phase != "write" else args[:1])
            if results and name not in UNINITIALISED:
                look = look or look_at_operands(operation, args, kwargs)
                if look.has_operands or look.overwritten:
                    self._inspect(look, results, args, reads)
        return out

    def _inspect(self, look: Look, results: list[Tensor], args: Any, reads: bool) -> None:
        floats = floating(results)
        if not floats and not any(t.requires_grad for t in results):  # integers; what is empty has a graph, too
            return
        new: Sequence[Tensor] = look.overwritten or fresh(floats, look.inputs)
        if look.phase == "write":
            look.outputs, look.unread = converted(*args), new
        else:
            look.outputs, look.unread = (new, ()) if reads else ((), new)
        where = look.where
        where.module = self._path[-1] if self._path else names.OUTSIDE
        where.line = names.readable_line(names.locate())
        for tensor in results:
            look.unseen = self._gradients.watch(tensor, where, where.module) or look.unseen
        if look.outputs or look.unread:
            self._ledger.add(look)
        self._last = where


trace = Trace  # the verb: `with mpkit.trace(model) as trace`
