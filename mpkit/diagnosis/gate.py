"""The moment at which a step's optimizer is about to step: look at it, forbid it, or end there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from mpkit.diagnosis.patching import replaced
from mpkit.diagnosis.turn import same_optimizer
from mpkit.overflow import found_inf

CLOSURE = (
    "guard looks at the gradients before optimizer.step, but a closure came, which computes them inside it. Call "
    "backward first and optimizer.step() without a closure, or train without guard."
)


class Enough(BaseException):
    """Ends a run where the optimizer would step: a trace needs the forward and the backward pass alone."""


class Flag:
    """A flag on its way from the device: reading it waits for what was queued before it, and for nothing after it."""

    def __init__(self, flag: Tensor) -> None:
        self._here = flag.clone().to("cpu", non_blocking=True)
        self._arrived: Any = None
        if flag.is_cuda:
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(flag.device))

    def __bool__(self) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._here)


class Gate:
    """In front of an optimizer, or of the scaler that calls it. `judged` makes a flag a verdict: are they bad?"""

    def __init__(self, optimizer: Any, scaler: Any, judged: Callable[[Tensor | Flag | bool], bool]) -> None:
        self._optimizer, self._scaler, self._judged = optimizer, scaler, judged

    def listening(self, found: list[bool]) -> AbstractContextManager[None]:
        """Inside, each step notes in `found` whether its gradients are bad; without a scaler it is not taken then."""
        if self._scaler is None:
            return replaced(self._optimizer, "step", lambda step: self._guarded(step, found))
        return replaced(self._scaler, "step", lambda step: self._overheard(step, found))

    def ending(self, left: Iterator[int]) -> AbstractContextManager[None]:
        """Inside, a step takes one of `left` and is taken; where none is left it raises `Enough`. Any other steps."""

        def ending(step: Callable[..., Any]) -> Callable[..., Any]:
            def end(*args: Any, **options: Any) -> Any:
                if (self._scaler is None or same_optimizer(args[0], self._optimizer)) and next(left, None) is None:
                    raise Enough
                return step(*args, **options)

            return end

        return replaced(self._optimizer if self._scaler is None else self._scaler, "step", ending)

    def clear(self) -> None:
        """No gradients for this optimizer, as before the first call."""
        for group in self._optimizer.param_groups:
            for p in group["params"]:
                p.grad = None

    def _guarded(self, step: Callable[..., Any], found: list[bool]) -> Callable[..., Any]:
        @functools.wraps(step)  # with the marks that schedulers leave on it
        def guarded(closure: Any = None, **options: Any) -> Any:
            if closure is not None:
                raise RuntimeError(CLOSURE)
            groups = self._optimizer.param_groups
            grads = [p.grad for group in groups for p in group["params"] if p.grad is not None]
            found.append(bad := self._judged(found_inf(grads)))
            return None if bad else step(**options)

        return guarded

    def _overheard(self, scaler_step: Callable[..., Any], found: list[bool]) -> Callable[..., Any]:
        """The scaler's step: bad if it does not call the optimizer, or tells it to skip, which a fused one can."""

        @functools.wraps(scaler_step)
        def overheard(optimizer: Any, *args: Any, **options: Any) -> Any:
            if not same_optimizer(optimizer, self._optimizer):
                return scaler_step(optimizer, *args, **options)
            told: list[Flag | bool] = []

            def noting(step: Callable[..., Any]) -> Callable[..., Any]:
                @functools.wraps(step)
                def noted(*args: Any, **options: Any) -> Any:
                    inside = getattr(optimizer, "found_inf", None)
                    told.append(inside is not None and Flag(inside))
                    return step(*args, **options)

                return noted

            with replaced(optimizer, "step", noting):
                result = scaler_step(optimizer, *args, **options)
            found.append(self._judged(told[0] if told else True))
            return result

        return overheard
