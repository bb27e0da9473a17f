"""One legible training loop: it yields a record a step, stops when asked, and resumes to the bit."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mpkit.policy.meter import Meter
from mpkit.policy.policy import Policy, require_engine
from mpkit.scaling import NoScaling
from mpkit.scaling.loss_scaler import LossScaler
from mpkit.training.batches import StepData
from mpkit.training.capture import CapturedStep
from mpkit.training.record import StepRecord
from mpkit.training.step import LossFunction, TrainStep


class Run:
    """A training run in progress; made by `fit`. Iterate over it to train.

    `read_every`: 0 trains step by step; from 1 on the step is captured, and so many are trained between two reads.
    """

    def __init__(self, work: TrainStep, data: StepData, steps: int, read_every: int = 0) -> None:
        self.work, self.data, self.steps = work, data, steps
        self.step = 0
        self._stopped = False
        self._every = read_every
        self._captured: CapturedStep | None = None
        self._waiting: list[StepRecord] = []

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.work.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that steps."""
        return self.work.optimizer

    @property
    def policy(self) -> Policy:
        """Which stage uses which format."""
        return self.work.policy

    @property
    def scaler(self) -> LossScaler:
        """The scaler that is driven."""
        return self.work.scaler

    def __iter__(self) -> Run:
        return self

    def __next__(self) -> StepRecord:
        if self._stopped or self.step >= self.steps:
            raise StopIteration
        try:
            record = self._replay() if self._every else self._train_one_step()
        except BaseException:
            self.scaler.abandon()  # an interrupted step must not block the next one
            raise
        self.step += 1
        return record

    def stop(self) -> None:
        """End the iteration before the next step. Nothing is left open; the state can still be saved."""
        self._stopped = True

    def _train_one_step(self) -> StepRecord:
        start, meter = time.perf_counter(), self.work.meter
        if meter:
            meter.reset()
        inputs, targets = self.data.batch(self.step)
        numbers = self.work(inputs, targets).numbers.tolist()
        flushed = meter.flushed if meter else 0.0
        return StepRecord.of(self.step, numbers, self.scaler.rule.skips, time.perf_counter() - start, flushed)

    def _replay(self) -> StepRecord:
        """One record of a captured run; when none waits, train `read_every` steps and wait for the device once."""
        if not self._waiting:
            start, rows = time.perf_counter(), []
            for step in range(self.step, min(self.step + self._every, self.steps)):
                inputs, targets = self.data.batch(step)
                if self._captured is None:
                    self._captured = CapturedStep(self.work, inputs, targets)
                rows.append(self._captured(inputs, targets).clone())
            numbers = torch.stack(rows).tolist()
            seconds = (time.perf_counter() - start) / len(rows)
            skips = self.scaler.rule.skips
            self._waiting = [StepRecord.of(self.step + n, row, skips, seconds) for n, row in enumerate(numbers)]
        return self._waiting.pop(0)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, as a copy that further training does not touch."""
        state = {
            "step": self.step + len(self._waiting),
            "model": self.model.state_dict(),
            "optimizer": self.work.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was saved; the records from here on equal those of an uninterrupted run."""
        state = copy.deepcopy(state)
        self.model.load_state_dict(state["model"])
        self.work.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self.step = state["step"]
        # The optimizer's state lies in other memory now; a graph that was captured before would go on with the old one.
        self._stopped, self._waiting, self._captured = False, [], None


def fit(
    model: nn.Module,
    data: StepData,
    *,
    optimizer: torch.optim.Optimizer,
    steps: int,
    policy: Policy | None = None,
    scaler: LossScaler | None = None,
    loss_fn: LossFunction | None = None,
    measure_flushed: bool | None = None,
    engine: str = "emulated",
    capture: bool = False,
    read_every: int = 1,
) -> Run:
    """Train `model` and yield a `StepRecord` for every step.

    Args:
        model: float32 parameters. If its output has one slice a seed and `loss_fn` returns one loss a seed, as the
            models in `mpkit.course.nets.models` do, all seeds train at once; they share the scaler and its skips.
        data: anything with `batch(step) -> (inputs, targets)`, such as `mpkit.Batches`.
        optimizer: any torch optimizer over the model's parameters.
        steps: total number of steps, skipped ones included.
        policy: which stage uses which format; None is FP32.
        scaler: None scales by 1. It skips a step with a non-finite gradient in every case.
        loss_fn: (output, targets) → loss of shape () or (seeds,). Default: `model.loss` if there is one, else
            cross-entropy.
        measure_flushed: count flushed gradients, which only emulation can (it costs about a fifth of the step on a
            CPU). None: where the engine can and nothing is captured.
        engine: "emulated" or "native", as for `Policy.apply`.
        capture: record the whole step (forward, backward, check, update, scale) in a CUDA graph at the first step and
            replay it: no Python between its kernels. Batches must keep their shape; see `mpkit.training.capture`.
        read_every: with `capture`, train so many steps before their records are read, so that the host waits once for
            all of them. The model is then up to so many steps ahead of the record in hand, and a state that is saved is
            the model's: a run that resumes from it goes on behind the records that were still to be read.

    Returns:
        A `Run`: an iterator with `stop()`, `state_dict()` and `load_state_dict()`.

    Raises:
        TypeError: `data` has no `batch` method, or policy, scaler or optimizer is of another kind.
        ValueError: unknown engine, `steps` is negative or no whole number, `read_every` is below 1 or above 1 without
            capture, or flushed gradients are to be measured where they cannot be.
    """
    if not callable(getattr(data, "batch", None)):
        raise TypeError(
            f"data is asked to have batch(step) -> (inputs, targets), but a {type(data).__name__} came; "
            "wrap tensors as mpkit.Batches(inputs, targets, batch_size)."
        )
    if not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps={steps!r}; use 0 or more, and a whole number.")
    _require_kind("policy", policy, Policy, 'mpkit.Policy.preset("fp16-mixed")')
    _require_kind("scaler", scaler, LossScaler, "mpkit.LossScaler(mpkit.DynamicScale())")
    _require_optimizer(optimizer)
    require_engine(engine)
    if read_every < 1 or (read_every > 1 and not capture):
        raise ValueError(f"read_every={read_every} needs capture=True and a number of 1 or more.")
    can_measure = engine == "emulated" and not capture
    if measure_flushed and not can_measure:
        raise ValueError("flushed gradients are counted by emulation, uncaptured; leave measure_flushed away here.")
    measure = can_measure if measure_flushed is None else measure_flushed
    work = TrainStep(
        model,
        optimizer,
        policy or Policy(),
        scaler or LossScaler(NoScaling()),
        loss_fn or getattr(model, "loss", None) or F.cross_entropy,
        engine,
        Meter() if measure else None,
    )
    return Run(work, data, steps, read_every if capture else 0)


def _require_kind(name: str, value: Any, kind: type, example: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} is asked to be a {kind.__name__}, but a {type(value).__name__} came; write {example}.")


def _require_optimizer(optimizer: Any) -> None:
    if not hasattr(optimizer, "param_groups"):
        came = f"optimizer is asked to have param_groups, but a {type(optimizer).__name__} came"
        raise TypeError(f"{came}; write torch.optim.Adam(model.parameters()).")
    if isinstance(getattr(optimizer, "optimizer", optimizer), torch.optim.LBFGS):  # a wrapper's own, too
        raise TypeError(
            "LBFGS needs a closure, which fit does not make; use an optimizer that steps once, such as SGD."
        )
