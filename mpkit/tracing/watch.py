"""Where did the first Inf or NaN come from? `trace(model)` watches a training step and names the cause.

Every result is read once, while it is still in the cache (torch.aminmax on CPU). Only where something is wrong are the
inputs read as well: finite in and Inf or NaN out is a cause, everything after that is a consequence.
On a GPU nothing waits for the host after each operation: findings are read in batches (see `Ledger`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from mpkit.formats import FloatFormat, require_format
from mpkit.policy.operations import is_in_place
from mpkit.tracing import names
from mpkit.tracing.event import TraceEvent, Where
from mpkit.tracing.glance import Glance, floating_tensors, glance, others
from mpkit.tracing.ledger import Ledger, Look


class Trace:
    """Watch `model`, its loss and their gradients: `with mpkit.trace(model) as trace: loss = …; loss.backward()`.

    Afterwards `trace.first` is the first TraceEvent, or None if nothing went wrong; `trace.events` are the last `keep`.
    Not causes: what an optimizer's step() does (a parameter that it breaks is named at the next forward pass), results
    of a scalar Inf or NaN that the code itself names, such as masked_fill(mask, -inf), and data or buffers whose only
    flaw is -Inf, which is what attention masks look like. A function of torch.nn.functional is one operation, even if
    it holds a whole layer (multi_head_attention_forward); its backward pass is seen step by step.

    Enter it outside policy.apply or autocast, `with mpkit.trace(model) as trace, policy.apply(model):`, so that a cast
    itself can be named. Entered inside, it names the operation that holds the cast.

    Args:
        model: the module whose parameters, inputs and submodules are watched.
        fmt: if given, results are also held against this format as if each one were stored in it: an FP32 run on a
            laptop then predicts where FP16 or FP8 would overflow, saturate or underflow. Operations that autocast keeps
            in FP32 are held against it too.
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
        self._used = False
        self._mode: _Mode | None = None
        self._handles: list[Any] = []
        self._node_handles: list[Any] = []
        self._start()

    @property
    def first(self) -> TraceEvent | None:
        """The first cause, or None."""
        self._ledger.settle()
        return self._ledger.first

    @property
    def events(self) -> list[TraceEvent]:
        """The last `keep` events, oldest first."""
        self._ledger.settle()
        return list(self._ledger.events)

    def __repr__(self) -> str:
        unused = "not used yet: put the forward and backward pass into a with block"
        return f"Trace({(self.first or 'nothing went wrong') if self._used else unused})"

    def __enter__(self) -> Self:
        if self._mode is not None:
            raise RuntimeError("this trace is active already; leave its with-block first, or make a second trace.")
        self._used = True
        self._start()
        for name, module in self._model.named_modules():
            before = module.register_forward_pre_hook(partial(self._enter_module, name), with_kwargs=True)
            # always_call: also when forward raises, so that the path stays right for someone who catches it
            after = module.register_forward_hook(self._leave_module, always_call=True)
            self._handles += [before, after]
        self._handles.append(register_optimizer_step_pre_hook(self._pause))
        self._handles.append(register_optimizer_step_post_hook(self._resume))
        self._mode = _Mode(self)
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        if self._mode is not None:
            self._mode.__exit__(*error)  # type: ignore[no-untyped-call]
            self._mode = None
        for handle in [*self._handles, *self._node_handles]:
            handle.remove()
        self._handles, self._node_handles = [], []
        self._ledger.settle()

    def _start(self) -> None:
        self._ledger = Ledger(self._fmt, self._keep)
        self._path: list[str] = []
        self._paused = False
        self._last: Where | None = None
        self._mark = object()  # tells the nodes of this use from those of an earlier one

    def _pause(self, *_: Any) -> None:
        self._paused = True

    def _resume(self, *_: Any) -> None:
        self._paused = False

    def _enter_module(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not self._path:
            self._begin(name, module, args, kwargs)
        self._path.append(name or "(model)")

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._path:
            self._path.pop()
        if self._last is not None:  # what emulation adds after the last operation belongs to that operation
            for tensor in floating_tensors(output):
                self._watch_gradients(tensor, self._last)

    def _begin(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A new forward pass: look at what goes in."""
        self._ledger.start_pass()
        self._paused = False  # a forward pass inside step() (a closure), or after a step() that raised
        self._node_handles = [h for h in self._node_handles if h.hooks_dict_ref() is not None]
        prefix = f"{name}." if name else ""
        given: list[tuple[str, Any]] = [(f"parameter {prefix}{key}", p) for key, p in module.named_parameters()]
        given += [(f"buffer {prefix}{key}", b) for key, b in module.named_buffers()]
        given += [(f"input {key}", tree) for key, tree in [*enumerate(args), *kwargs.items()]]
        with torch._C.DisableTorchFunction():
            named = [(what, tensor) for what, tree in given for tensor in floating_tensors(tree)]
            if named:
                where = Where(name or "(model)", "", names.readable_line(names.locate()))
                self._ledger.add(Look(where, "input", [t for _, t in named], [], names=[what for what, _ in named]))

    def _observe(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Run one torch function and look at its result."""
        name = names.operation_name(func)
        if self._paused or name is None:
            return func(*args, **kwargs)
        overwritten: list[Tensor] = []
        before: Glance = []
        reads = self._fmt is not None or name not in names.NEVER_WORSE
        if reads and is_in_place(name, kwargs):
            overwritten = floating_tensors(kwargs.get("out", args[:1]))
            with torch._C.DisableTorchFunction():
                before = glance(overwritten)
        out = func(*args, **kwargs)
        results = floating_tensors(out)
        if results:
            with torch._C.DisableTorchFunction():
                inputs = others(floating_tensors((args, kwargs)), overwritten)
                if (inputs or overwritten) and name not in names.UNINITIALISED:
                    new = overwritten or [t for t in others(results, inputs) if not t._is_view()]
                    where = names.operation(func, name, args)
                    look = Look(where, "forward", new if reads else [], inputs, before, (args, kwargs))
                    self._inspect(look, results)
        return out

    def _inspect(self, look: Look, results: list[Tensor]) -> None:
        where = look.where
        where.module = self._path[-1] if self._path else "(outside the model)"
        where.line = names.readable_line(names.locate())
        if look.outputs:
            self._ledger.add(look)
        for tensor in results:
            self._watch_gradients(tensor, where)
        self._last = where

    def _watch_gradients(self, tensor: Tensor, where: Where) -> None:
        """Hook every node of the backward graph between this result and what was seen before."""
        stack = [tensor.grad_fn] if tensor.grad_fn is not None else []
        while stack:
            node: Any = stack.pop()
            name = node.name()
            if name.endswith("AccumulateGrad") or node.metadata.get("mpkit") is self._mark:
                continue
            node.metadata["mpkit"] = self._mark  # kept by the node: an id may belong to another node a moment later
            stack += [following for following, _ in node.next_functions if following is not None]
            if not name.startswith(names.SAME_VALUES):
                self._node_handles.append(node.register_hook(partial(self._see_gradients, names.where_of(node, where))))

    def _see_gradients(self, where: Where, grad_inputs: Any, grad_outputs: Any) -> None:
        if self._mode is None or self._paused:
            return
        with torch._C.DisableTorchFunction():
            new = others(floating_tensors(grad_inputs), grad_outputs)
            if new:
                self._ledger.add(Look(where, "backward", new, floating_tensors(grad_outputs)))


trace = Trace  # the verb: `with mpkit.trace(model) as trace`


class _Mode(TorchFunctionMode):
    """Hands every torch function to the trace."""

    def __init__(self, owner: Trace) -> None:
        super().__init__()
        self.owner = owner

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Torch calls this for every function of its own while the mode is active, for reading attributes as well."""
        if func.__name__ == "__get__":  # most calls, and nothing is computed
            return func(*args)
        return self.owner._observe(func, args, kwargs or {})
