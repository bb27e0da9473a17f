"""`mpkit.guard`: stays on for a whole training, withholds a bad step, and says where its Inf or NaN came from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mpkit.diagnosis.patching import replaced
from mpkit.diagnosis.snapshot import Snapshot, random_state, set_random_state
from mpkit.overflow import found_inf
from mpkit.tracing.event import TraceEvent
from mpkit.tracing.watch import trace
from mpkit.training.capture import CapturedStep


@dataclass(frozen=True)
class GuardEvent:
    """A step that was withheld.

    Attributes:
        step: its number, from 0.
        scale: the loss scale that it ran with; 1.0 without a scaler.
        first: the first cause, as `mpkit.trace` names it; None: run again, the step was finite.
        events: all that counted.
    """

    step: int
    scale: float
    first: TraceEvent | None
    events: tuple[TraceEvent, ...]

    def __str__(self) -> str:
        said = self.first or "run again, it was finite: a race, or state outside of parameters and buffers"
        return f"step {self.step} withheld at scale {self.scale:g}: {said}"


class Guard:
    """Call it in place of your step: `guard = mpkit.guard(step, model, optimizer, scaler)`, then `guard(batch)`.

    A step whose gradients hold Inf or NaN changes nothing: the optimizer is not called (a scaler sees to that itself),
    and buffers, such as the averages of batch norm, are put back. Then the step runs again under `mpkit.trace`, for its
    name alone, and everything it changed is put back too. `guard.events` has the last `keep` of them.

    A clean step costs one read of one number, which a scaler makes in any case where its optimizer is not fused, and
    a copy of the buffers. With several processes of `torch.distributed` they agree on that number, so that all withhold
    a step and all run it again.

    Args:
        step: the whole iteration: forward, backward, and the calls of scaler and optimizer; or a `CapturedStep`, whose
            `work` then runs again.
        model, optimizer, scaler: those of the step; scaler: None, a `LossScaler` or a `torch.amp.GradScaler`.
        tell: what to do with each event, such as `print`; None: nothing.
        keep: how many events to keep.

    Raises:
        TypeError: `step` cannot be called, `model` is no module or `optimizer` no optimizer.
    """

    def __init__(self, step: Callable[..., Any], model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any = None,
                 tell: Callable[[GuardEvent], Any] | None = None, keep: int = 64) -> None:  # fmt: skip
        if not callable(step):
            raise TypeError(f"step must be a function that trains on a batch, but {type(step).__name__} came.")
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, but {type(model).__name__} came.")
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(f"optimizer must be a torch optimizer, but {type(optimizer).__name__} came.")
        self.step, self.model, self.optimizer = step, model, optimizer
        self.scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self.events: deque[GuardEvent] = deque(maxlen=keep)
        self.steps = 0
        self._tell = tell
        self._kept: list[Tensor] = []

    def __call__(self, *batch: Any, **options: Any) -> Any:
        """Train on a batch; returns what the step returns."""
        number, self.steps = self.steps, self.steps + 1
        buffers, before = self._keep_buffers(), random_state()
        scale = None if (held := getattr(self.scaler, "_scale", None)) is None else held.clone()
        found: list[Tensor | bool] = []
        with replaced(self.optimizer, "step", lambda step: self._guarded(step, found)):
            result = self.step(*batch, **options)
        if self._bad(found, result):
            with torch.no_grad():
                for buffer, was in zip(buffers, self._kept, strict=True):
                    buffer.copy_(was)
            self._run_again(number, scale, before, batch, options)
        return result

    def _keep_buffers(self) -> list[Tensor]:
        buffers = [b for b in self.model.buffers() if b.numel()]
        if [(t.shape, t.dtype, t.device) for t in buffers] != [(t.shape, t.dtype, t.device) for t in self._kept]:
            self._kept = [torch.empty_like(b) for b in buffers]
        if buffers:
            torch._foreach_copy_(self._kept, buffers)
        return buffers

    def _guarded(self, step: Callable[..., Any], found: list[Tensor | bool]) -> Callable[..., Any]:
        """The optimizer's step, which is not taken if there is no scaler and a gradient is bad."""

        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.scaler is not None:
                inside = getattr(self.optimizer, "found_inf", None)  # a fused optimizer skips by itself
                found.append(False if inside is None else inside.clone())
                return step(*args, **kwargs)
            grads = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
            bad = self._agreed(found_inf(grads)) if grads else False
            found.append(bad)
            return None if bad else step(*args, **kwargs)

        return guarded

    def _bad(self, found: list[Tensor | bool], result: Any) -> bool:
        if isinstance(self.step, CapturedStep):
            return bool(result[-2])  # its numbers end with found_inf and the gradient's norm
        if self.scaler is not None and not found:
            return self._agreed(torch.ones(()))  # the scaler did not call the optimizer
        return any(bool(one) if self.scaler is None else self._agreed(one) for one in found)

    def _agreed(self, flag: Tensor | bool) -> bool:
        """Whether any process found something."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            device = next(self.model.parameters()).device
            flag = torch.as_tensor(flag, dtype=torch.float32).to(device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag)

    def _run_again(self, number: int, scale: Tensor | None, before: Any, batch: Any, options: Any) -> None:
        step = self.step.work if isinstance(self.step, CapturedStep) else self.step
        snapshot = Snapshot([self.model], self.optimizer, self.scaler, None)
        events: tuple[TraceEvent, ...] = ()
        try:
            set_random_state(before)
            if self.scaler is not None and scale is not None:
                self.scaler._scale.copy_(scale)
            for group in self.optimizer.param_groups:
                for p in group["params"]:
                    p.grad = None
            with replaced(self.optimizer, "step", lambda _: lambda *a, **k: None), trace(self.model) as traced:
                step(*batch, **options)
            events = tuple(traced.events)
        finally:
            snapshot.restore()
        event = GuardEvent(number, 1.0 if scale is None else float(scale), events[0] if events else None, events)
        self.events.append(event)
        if self._tell is not None:
            self._tell(event)


guard = Guard  # the verb: `guard = mpkit.guard(step, model, optimizer, scaler)`
