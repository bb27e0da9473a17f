"""`Run`: a training run in progress. It yields a record a step, stops when asked, and resumes to the bit."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mpkit.formats import FP32
from mpkit.policy.meter import flushed_share
from mpkit.policy.policy import Policy
from mpkit.scaling.loss_scaler import LossScaler
from mpkit.training.batches import StepData
from mpkit.training.capture import CapturedStep
from mpkit.training.flushed import flushed_counts
from mpkit.training.record import StepRecord
from mpkit.training.step import TrainStep


class Run:
    """A training run in progress; made by `fit`. Iterate over it to train.

    `read_every`: 0 trains step by step; from 1 on the step is captured, and so many are trained between two reads.
    `measure_every`: in every so-manieth step a second, emulated backward pass counts what is flushed; 0 for never.
    `uncaptured_because`: why it is not captured although that was wished, "" otherwise.
    `may_go_on`: if it turns out that the step cannot be captured, or that its settings change, it goes on uncaptured.
    """

    def __init__(
        self,
        work: TrainStep,
        data: StepData,
        steps: int,
        read_every: int = 0,
        measure_every: int = 0,
        uncaptured_because: str = "",
        may_go_on: bool = False,
    ) -> None:
        self.work, self.data, self.steps = work, data, steps
        self.uncaptured_because, self._may_go_on = uncaptured_because, may_go_on
        self.step = 0
        self.measure_every = measure_every
        self._stopped = False
        self._every = read_every
        self._captured: CapturedStep | None = None
        self._counted: tuple[int, Tensor | None] = -1, None  # the last step that asked to be measured
        self._waiting: list[StepRecord] = []
        self._unread: list[tuple[Tensor, Tensor | None]] = []  # of trained steps: numbers, and counts of flushed values

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

    @property
    def captured(self) -> bool:
        """Whether its steps are replayed from a CUDA graph."""
        return self._every > 0

    def __iter__(self) -> Run:
        return self

    def __next__(self) -> StepRecord:
        if self._stopped or self.step >= self.steps:
            raise StopIteration
        if not self._waiting and not self._every:
            self._read()  # of a block that was interrupted
        train = self._replay if self._every else self._train_one_step
        record = self._waiting.pop(0) if self._waiting else train()
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
        counts = self._count(self.step, inputs, targets)
        numbers = self.work(inputs, targets).numbers.tolist()
        flushed = meter.flushed if meter else self._share(counts)
        return StepRecord.of(self.step, numbers, self.scaler.rule.skips, time.perf_counter() - start, flushed)

    def _replay(self) -> StepRecord:
        """Train `read_every` captured steps, wait for the device once, and return the first one's record."""
        start = time.perf_counter()
        for step in range(self.step + len(self._unread), min(self.step + self._every, self.steps)):
            inputs, targets = self.data.batch(step)
            counts = self._count(step, inputs, targets)
            if (numbers := self._captured_step(inputs, targets)) is None:
                break
            self._unread.append((numbers, counts))  # kept if a later step is interrupted: this one was trained
        if not self._unread:
            return self._train_one_step()
        self._read((time.perf_counter() - start) / len(self._unread))
        return self._waiting.pop(0)

    def _captured_step(self, inputs: Tensor, targets: Tensor) -> Tensor | None:
        """Train on a batch by the graph, which is made at the first; None if that cannot be and need not."""
        try:
            if self._captured is None:
                self._captured = CapturedStep(self.work, inputs, targets)
            return self._captured(inputs, targets).clone()
        except (RuntimeError, ValueError) as error:  # a batch of another shape, a setting that changed: nothing trained
            if not self._may_go_on:
                raise
            self._captured, self._every, self.uncaptured_because = None, 0, str(error).splitlines()[0]
            return None

    def _read(self, seconds: float = math.nan) -> None:
        """Wait for the device, and make records of the steps that were trained and not read yet."""
        if not self._unread:
            return
        numbers, skips = torch.stack([row for row, _ in self._unread]).tolist(), self.scaler.rule.skips
        counts = [None if count is None else count.tolist() for _, count in self._unread]
        records = [
            StepRecord.of(self.step + n, row, skips, seconds, self._share(count))
            for n, (row, count) in enumerate(zip(numbers, counts, strict=True))
        ]
        self._waiting, self._unread = records, []

    def _count(self, step: int, inputs: Tensor, targets: Tensor) -> Tensor | None:
        """In a step whose turn it is to be measured: what the policy keeps of its gradients, on the device. Once."""
        if self._counted[0] != step:
            due = self.measure_every and step % self.measure_every == 0 and self.policy.backward != FP32
            self._counted = step, flushed_counts(self.work, inputs, targets) if due else None
        return self._counted[1]

    def _share(self, counts: Tensor | Sequence[int] | None) -> float | None:
        if self.measure_every and self.policy.backward == FP32:
            return 0.0  # nothing is rounded
        return None if counts is None else flushed_share(*map(int, counts))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, as a copy that further training does not touch."""
        state = {
            "step": self.step + len(self._waiting) + len(self._unread),
            "model": self.model.state_dict(),
            "optimizer": self.work.optimizer.state_dict(),
            "optimizer's kind": type(self.work.optimizer).__name__,
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was saved; the records from here on equal those of an uninterrupted run.

        ValueError: it was saved by a run with another optimizer or another rule for the scale. The weights change last,
        so that they are as they were then.
        """
        state, here = copy.deepcopy(state), type(self.work.optimizer).__name__
        if (saved := state.get("optimizer's kind", here)) != here:
            raise ValueError(
                f"this state was saved by a run with {saved}, but this one steps with {here}, which remembers other "
                f"things; build the run with {saved}, or load only the weights: model.load_state_dict(state['model'])."
            )
        self.scaler.load_state_dict(state["scaler"])
        self.work.optimizer.load_state_dict(state["optimizer"])
        self.model.load_state_dict(state["model"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self.step = state["step"]
        # The optimizer's state lies in other memory now; a graph that was captured before would go on with the old one.
        self._stopped, self._waiting, self._unread, self._captured = False, [], [], None
        self._counted = -1, None
