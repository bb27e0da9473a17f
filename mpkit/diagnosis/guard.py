"""`mpkit.guard`: stays on for a whole training, withholds a bad step, and says where its Inf or NaN came from."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mpkit.diagnosis.buffers import Buffers
from mpkit.diagnosis.gate import Enough, Flag, Gate
from mpkit.diagnosis.random_numbers import random_state, set_random_state
from mpkit.diagnosis.snapshot import Snapshot, listed, optimizers_in
from mpkit.overflow import found_inf
from mpkit.scaling.agreement import reduce
from mpkit.tracing.event import TraceEvent
from mpkit.tracing.watch import trace
from mpkit.training.capture import CapturedStep

FINITE = "run again, it was finite: a race, or state outside of parameters and buffers, such as an iterator"
ELSEWHERE = "run again, it was finite here: the cause is on another rank, whose guard names it"
EARLIER = "run again, this call was finite: the cause is in a call before it that did not step, of which there were {}"
NOT_GIVEN = (
    "the step uses {}, which trains parameters of the model and which guard was not given: it steps on bad gradients "
    "too. Pass all of them: optimizer=[…]."
)


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

    Where gradients hold Inf or NaN the optimizer is not called (a scaler sees to that itself), and at that moment
    buffers, such as the averages of batch norm, are put back to before the call: what the step does afterwards finds
    the model as it was. It still does it, once: a scheduler steps, and an average of weights (`AveragedModel`, its
    buffers too) takes the same weights in once more. An average that is updated *before* the optimizer may have read
    bad buffers, which nobody can tell here: update it behind the optimizer.

    Then the step runs again under `mpkit.trace`, for its name alone, up to where the optimizer would step, and what it
    changed in the model, the optimizers, the scaler, the schedulers and the random numbers is put back too.
    `guard.events` has the last `keep` of them.

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
            optimizer that wraps another, whose groups it has, may stand for it. Of several optimizers a list: each is
            withheld for its own gradients, as with a GradScaler, because those of the others may be of another loss,
            or of the step before. One that trains the model and is not given steps on, with a warning.
        tell: what to do with each event, such as `print`; None: nothing.
        keep: how many events to keep.

    Raises:
        TypeError: `step` cannot be called, `model` is no module, `optimizer` no optimizer or list of them, or `scaler`
            no scaler.
        RuntimeError (at a call): the step gives the optimizer a closure.
    """

    def __init__(self, step: Callable[..., Any], model: nn.Module, optimizer: Any, scaler: Any = None,
                 tell: Callable[[GuardEvent], Any] | None = None, keep: int = 64) -> None:  # fmt: skip
        if not callable(step):
            raise TypeError(f"step must be a function that trains on a batch, but {type(step).__name__} came.")
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, but {type(model).__name__} came.")
        if scaler is not None and not hasattr(scaler, "is_enabled"):
            raise TypeError(f"scaler must be a LossScaler or a GradScaler, but {type(scaler).__name__} came.")
        self.optimizers = optimizers_in(optimizer if listed(optimizer) else [optimizer])
        self.step, self.model = step, model
        self.scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self.events: deque[GuardEvent] = deque(maxlen=keep)
        self.steps = 0
        self._tell, self._buffers = tell, Buffers(model)
        self._gates = [Gate(one, self.scaler, self._judged) for one in self.optimizers]
        self._met = set[int]()  # optimizers that were looked at
        self._pending = 0  # calls since the last one that reached the optimizer

    def __call__(self, *batch: Any, **options: Any) -> Any:
        """Train on a batch; returns what the step returns."""
        number, self.steps = self.steps, self.steps + 1
        if not self._pending:
            self._buffers.keep()
        before, scale = random_state(), self._scale()
        found: list[bool] = []  # one for each step of an optimizer: was it withheld?
        try:
            with self._listening(found):
                result = self.step(*batch, **options)
        except BaseException:
            self._pending = 0 if found else self._pending
            if bool(found_inf(b for b in self.model.buffers() if b.is_floating_point())):
                self._buffers.put_back()
            raise
        if isinstance(self.step, CapturedStep):
            bad, pending = bool(result[-2]), 0  # its numbers end with found_inf and the gradient's norm
        else:
            bad = any(found)
            pending, self._pending = self._pending, 0 if found else self._pending + 1
        if bad:
            self._buffers.put_back()  # once more: another optimizer's turn may have run the model since
            steps = found.index(True) if True in found else 0
            self._run_again(number, scale, before, pending, steps, batch, options)
        return result

    @contextmanager
    def _listening(self, found: list[bool]) -> Iterator[None]:
        with ExitStack() as stack:
            stack.callback(register_optimizer_step_pre_hook(lambda one, *_: self._meet(one)).remove)
            for gate in self._gates:
                stack.enter_context(gate.listening(found))
            yield

    def _meet(self, optimizer: Any) -> None:
        """Warn, once, of one that trains parameters of the model which those that were given do not."""
        if id(optimizer) in self._met:
            return
        self._met.add(id(optimizer))
        ours = {p for one in self.optimizers for group in one.param_groups for p in group["params"]}
        theirs = {p for group in optimizer.param_groups for p in group["params"]} - ours
        if not theirs.isdisjoint(self.model.parameters()):
            warnings.warn(NOT_GIVEN.format(type(optimizer).__name__), stacklevel=2)

    def _judged(self, flag: Tensor | Flag | bool) -> bool:
        """Is it bad, here or in another process? Then the buffers go back before the step goes on."""
        if bad := self._agreed(flag):
            self._buffers.put_back()
        return bad

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
            reduce(whole, [torch.distributed.group.WORLD])  # type: ignore[list-item]
            return bool(whole)
        return bool(flag)

    def _run_again(self, number: int, scale: Tensor | float, before: Any, pending: int, steps: int, batch: Any,
                   options: Any) -> None:  # fmt: skip
        step = self.step.work if isinstance(self.step, CapturedStep) else self.step
        snapshot, traced = Snapshot([self.model], self.optimizers, self.scaler, None), trace(self.model)
        otherwise, left = EARLIER.format(pending) if pending else FINITE, iter(range(steps))
        try:
            set_random_state(before)
            if (held := getattr(self.scaler, "_scale", None)) is not None:
                held.fill_(scale)
            with ExitStack() as stack:
                for gate in self._gates:
                    gate.clear()
                    stack.enter_context(gate.ending(left))
                stack.enter_context(snapshot.watching())
                stack.enter_context(traced)
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
