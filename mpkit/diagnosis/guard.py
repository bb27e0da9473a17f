"""`mpkit.guard`: stays on for a whole training, withholds a bad step, and says where its Inf or NaN came from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mpkit.diagnosis.buffers import Buffers
from mpkit.diagnosis.gate import Enough, Flag, Gate
from mpkit.diagnosis.snapshot import Snapshot, random_state, set_random_state
from mpkit.overflow import found_inf
from mpkit.tracing.event import TraceEvent
from mpkit.tracing.watch import trace
from mpkit.training.capture import CapturedStep

FINITE = "run again, it was finite: a race, or state outside of parameters and buffers, such as an iterator"
ELSEWHERE = "run again, it was finite here: the cause is on another rank, whose guard names it"
EARLIER = "run again, this call was finite: the cause is in a call before it that did not step, of which there were {}"


@dataclass(frozen=True)
class GuardEvent:
    """A step that was withheld.

    Attributes:
        step: its number, from 0.
        scale: the loss scale that it ran with; 1.0 without a scaler.
        first: the first cause, as `mpkit.trace` names it; None: run again, the step showed none.
        events: all that counted.
        otherwise: what to say where there is no first cause.
    """

    step: int
    scale: float
    first: TraceEvent | None
    events: tuple[TraceEvent, ...]
    otherwise: str = FINITE

    def __str__(self) -> str:
        return f"step {self.step} withheld at scale {self.scale:g}: {self.first or self.otherwise}"


class Guard:
    """Call it in place of your step: `guard = mpkit.guard(step, model, optimizer, scaler)`, then `guard(batch)`.

    A step whose gradients hold Inf or NaN changes nothing: the optimizer is not called (a scaler sees to that itself),
    and buffers, such as the averages of batch norm, are put back. Then the step runs again under `mpkit.trace`, for its
    name alone, up to where the optimizer would step, and what it changed in the model, the optimizers, the scaler, the
    schedulers and the random numbers is put back too. `guard.events` has the last `keep` of them.

    What the step keeps elsewhere cannot be put back: a counter, a list of losses or an iterator moves on once more. So
    pass the batch in, and count and log behind the call of the optimizer or outside of the step.

    A clean step costs a copy of the buffers, and no wait that the scaler does not make. Only where its optimizer is
    fused does a scaler make none: there guard reads one number, which is on its way before the optimizer begins. With
    several processes of `torch.distributed` they agree on that number, so that all withhold a step and all run it
    again. Calls that only add to the gradients (micro-batches) are judged with the step that ends them: if it is bad,
    the buffers go back to before the first of them. They do too if a step raises and leaves Inf or NaN in them.

    Args:
        step: the whole iteration: forward, backward, and the calls of scaler and optimizer; or a `CapturedStep`, whose
            `work` then runs again.
        model, optimizer, scaler: those of the step; scaler: None, a `LossScaler` or a `torch.amp.GradScaler`. An
            optimizer that wraps another, whose groups it has, may stand for it.
        tell: what to do with each event, such as `print`; None: nothing.
        keep: how many events to keep.

    Raises:
        TypeError: `step` cannot be called, `model` is no module or `optimizer` no optimizer.
        RuntimeError (at a call): the step gives the optimizer a closure.
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
        self._tell, self._gate = tell, Gate(optimizer, self.scaler, self._agreed)
        self._buffers = Buffers(model)
        self._pending = 0  # calls since the last one that reached the optimizer

    def __call__(self, *batch: Any, **options: Any) -> Any:
        """Train on a batch; returns what the step returns."""
        number, self.steps = self.steps, self.steps + 1
        if not self._pending:
            self._buffers.keep()
        before, scale = random_state(), self._scale()
        found: list[Flag | bool] = []
        try:
            with self._gate.listening(found):
                result = self.step(*batch, **options)
        except BaseException:
            self._pending = 0 if found else self._pending
            if bool(found_inf(b for b in self.model.buffers() if b.is_floating_point())):
                self._buffers.put_back()
            raise
        if isinstance(self.step, CapturedStep):
            bad, pending = bool(result[-2]), 0  # its numbers end with found_inf and the gradient's norm
        else:
            bad = any(bool(one) if self.scaler is None else self._agreed(one) for one in found)
            pending, self._pending = self._pending, 0 if found else self._pending + 1
        if bad:
            self._buffers.put_back()
            self._run_again(number, scale, before, pending, batch, options)
        return result

    def _scale(self) -> Tensor | float:
        """That of this step, without a wait: before its first loss a scaler has it on the host."""
        if (held := getattr(self.scaler, "_scale", None)) is not None:
            return held.clone()  # type: ignore[no-any-return]
        return 1.0 if self.scaler is None else float(self.scaler.get_scale())

    def _agreed(self, flag: Tensor | Flag | bool) -> bool:
        """Whether any process found something."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            device = next(self.model.parameters()).device
            whole = torch.tensor(float(bool(flag)), device=device)
            torch.distributed.all_reduce(whole, torch.distributed.ReduceOp.MAX)
            return bool(whole)
        return bool(flag)

    def _run_again(
        self, number: int, scale: Tensor | float, before: Any, pending: int, batch: Any, options: Any
    ) -> None:
        step = self.step.work if isinstance(self.step, CapturedStep) else self.step
        snapshot, traced = Snapshot([self.model], self.optimizer, self.scaler, None), trace(self.model)
        otherwise = EARLIER.format(pending) if pending else FINITE
        try:
            set_random_state(before)
            if (held := getattr(self.scaler, "_scale", None)) is not None:
                held.fill_(scale)
            for group in self.optimizer.param_groups:
                for p in group["params"]:
                    p.grad = None
            with self._gate.ending(), snapshot.watching(), traced:
                step(*batch, **options)
        except Enough:
            pass
        except Exception as error:
            otherwise = f"run again, it raised {type(error).__name__}: {error}"
        finally:
            snapshot.restore()
        events = tuple(traced.events)
        if step is self.step and self._agreed(bool(events)) and not events:  # captured ranks decide each for itself
            otherwise = ELSEWHERE
        event = GuardEvent(number, float(scale), events[0] if events else None, events, otherwise)
        self.events.append(event)
        if self._tell is not None:
            self._tell(event)


guard = Guard  # the verb: `guard = mpkit.guard(step, model, optimizer, scaler)`
