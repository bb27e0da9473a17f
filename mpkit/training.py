"""One legible training loop: it yields a record a step, stops when asked, and resumes to the bit."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit.data import StepData
from mpkit.loss_scaler import LossScaler
from mpkit.meter import Meter
from mpkit.policy import Policy
from mpkit.scaling import NoScaling


@dataclass(frozen=True, eq=False)
class StepRecord:
    """What happened in one training step.

    Two records are equal if everything but `seconds` is, to the bit; NaN equals NaN here.

    Attributes:
        step: counted from 0.
        loss: unscaled training loss before the update; the mean over seeds.
        losses: the same for each seed.
        scale: the loss scale that this step used.
        skipped: True if a gradient was Inf or NaN, so that the weights stayed as they were.
        flushed: share (0 to 1) of the non-zero gradient values, in the whole backward pass, that rounding turned
            into zero; 0 if the policy does not round gradients.
        grad_norm: Euclidean norm of the unscaled gradient of all of the optimizer's parameters (all seeds together);
            not finite in a skipped step.
        seconds: wall-clock time of the step.
    """

    step: int
    loss: float
    losses: tuple[float, ...]
    scale: float
    skipped: bool
    flushed: float
    grad_norm: float
    seconds: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StepRecord) and self._bits() == other._bits()

    def __hash__(self) -> int:
        return hash(self._bits())

    def _bits(self) -> str:
        return repr(replace(self, seconds=0.0))  # Python writes floats with all their digits


LossFunction = Callable[[Any, Tensor], Tensor]


class Run:
    """A training run in progress; made by `fit`. Iterate over it to train."""

    def __init__(
        self,
        model: nn.Module,
        data: StepData,
        optimizer: torch.optim.Optimizer,
        steps: int,
        policy: Policy,
        scaler: LossScaler,
        loss_fn: LossFunction,
        measure_flushed: bool,
    ) -> None:
        self.model, self.data, self.optimizer, self.steps = model, data, optimizer, steps
        self.policy, self.scaler, self.loss_fn = policy, scaler, loss_fn
        self.step = 0
        self._meter = Meter() if measure_flushed else None
        self._stopped = False

    def __iter__(self) -> Run:
        return self

    def __next__(self) -> StepRecord:
        if self._stopped or self.step >= self.steps:
            raise StopIteration
        try:
            record = self._train_one_step()
        except BaseException:
            self.scaler.abandon()  # an interrupted step must not block the next one
            raise
        self.step += 1
        return record

    def stop(self) -> None:
        """End the iteration before the next step. Nothing is left open; the state can still be saved."""
        self._stopped = True

    def _train_one_step(self) -> StepRecord:
        start = time.perf_counter()
        inputs, targets = self.data.batch(self.step)
        if self._meter:
            self._meter.reset()
        self.model.zero_grad()
        self.optimizer.zero_grad()
        with self.policy.apply(self.model, meter=self._meter):
            losses = self.loss_fn(self.model(inputs), targets)  # () or (seeds,)
            # Seeds share no weights, so the gradient of the sum is each seed's own gradient.
            self.scaler.scale(losses.sum()).backward()
        self.scaler.unscale_(self.optimizer)
        grad_norm = total_norm(self.optimizer)
        result = self.scaler.step(self.optimizer)
        self.scaler.update()
        self.policy.store_(self.model.parameters())
        values = tuple(losses.detach().reshape(-1).tolist())
        return StepRecord(
            step=self.step,
            loss=sum(values) / len(values),
            losses=values,
            scale=result.scale,
            skipped=not result.stepped,
            flushed=self._meter.flushed if self._meter else 0.0,
            grad_norm=float(grad_norm),
            seconds=time.perf_counter() - start,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, as a copy that further training does not touch."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was saved; the records from here on equal those of an uninterrupted run."""
        state = copy.deepcopy(state)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self.step = state["step"]
        self._stopped = False


def fit(
    model: nn.Module,
    data: StepData,
    *,
    optimizer: torch.optim.Optimizer,
    steps: int,
    policy: Policy | None = None,
    scaler: LossScaler | None = None,
    loss_fn: LossFunction | None = None,
    measure_flushed: bool = True,
) -> Run:
    """Train `model` and yield a `StepRecord` for every step.

    Args:
        model: float32 parameters. If its output has one slice a seed and `loss_fn` returns one loss a seed, as the
            models in `mpkit.models` do, all seeds train at once; they share the scaler and its skips.
        data: anything with `batch(step) -> (inputs, targets)`, such as `mpkit.data.Batches`.
        optimizer: any torch optimizer over the model's parameters.
        steps: total number of steps, skipped ones included.
        policy: which stage uses which format; None is FP32.
        scaler: None scales by 1. It skips a step with a non-finite gradient in every case.
        loss_fn: (output, targets) → loss of shape () or (seeds,). Default: `model.loss` if there is one, else
            cross-entropy.
        measure_flushed: count flushed gradients (costs about a fifth of the step on a CPU).

    Returns:
        A `Run`: an iterator with `stop()`, `state_dict()` and `load_state_dict()`.

    Raises:
        TypeError: `data` has no `batch` method, or policy, scaler or optimizer is of another kind.
        ValueError: `steps` is negative or no whole number.
    """
    if not callable(getattr(data, "batch", None)):
        raise TypeError(
            f"data is asked to have batch(step) -> (inputs, targets), but a {type(data).__name__} came; "
            "wrap tensors as mpkit.data.Batches(inputs, targets, batch_size)."
        )
    if not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps={steps!r}; use 0 or more, and a whole number.")
    _require_kind("policy", policy, Policy, 'mpkit.Policy.preset("fp16-mixed")')
    _require_kind("scaler", scaler, LossScaler, "mpkit.LossScaler(mpkit.DynamicScale())")
    if isinstance(getattr(optimizer, "optimizer", optimizer), torch.optim.LBFGS):  # a wrapper's own, too
        raise TypeError(
            "LBFGS needs a closure, which fit does not make; use an optimizer that steps once, such as SGD."
        )
    policy = policy or Policy()
    scaler = scaler or LossScaler(NoScaling())
    loss_fn = loss_fn or getattr(model, "loss", None) or F.cross_entropy
    return Run(model, data, optimizer, steps, policy, scaler, loss_fn, measure_flushed)


def _require_kind(name: str, value: Any, kind: type, example: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} is asked to be a {kind.__name__}, but a {type(value).__name__} came; write {example}.")


def total_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """Euclidean norm of all gradients that the optimizer uses, on the device: a 0-dim tensor."""
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norms: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    return norms
