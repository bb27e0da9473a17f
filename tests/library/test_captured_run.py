"""What a run does around its captured steps: blocks of records, interrupts, states, and going on without a graph.

No GPU is needed: the graph is replaced by the step itself. What a real one does, tests/gpu/test_capture_cuda.py says.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mpkit import DynamicScale, LossScaler, Policy, StepRecord, fit
from mpkit.course.nets.models import MLP
from mpkit.training import Batches, Run, loop, run
from mpkit.training.capture import outdated


class Graph:
    """The step itself. `refuses`: it cannot be captured. `stale_after`: so many calls later a setting has changed."""

    refuses = False
    stale_after = 10**9

    def __init__(self, work: Any, inputs: Tensor, targets: Tensor) -> None:
        if self.refuses:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        self.work, self.calls = work, 0

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        if self.calls >= self.stale_after:
            raise ValueError("lr changed, but …")
        self.calls += 1
        numbers: Tensor = self.work(inputs, targets).numbers
        return numbers


@pytest.fixture(autouse=True)
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CapturedStep", Graph)
    monkeypatch.setattr(loop, "why_not", lambda optimizer, rule: None)


class Data:
    """Batches that can fail once."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.batches = Batches(torch.rand(256, 64, generator=draw), torch.randint(0, 10, (256,), generator=draw), 32)
        self.fails_at: int | None = None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        if step == self.fails_at:
            self.fails_at = None
            raise KeyboardInterrupt
        return self.batches.batch(step)


def training(steps: int = 60, capture: Any = True, read_every: int = 20, **settings: Any) -> Run:
    model = MLP(seeds=range(2))
    return fit(
        model, Data(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), steps=steps,
        policy=Policy.preset("fp16-mixed"), scaler=LossScaler(DynamicScale(2.0**26, growth_interval=4)),
        capture=capture, read_every=read_every, **settings,
    )  # fmt: skip


def plain() -> list[StepRecord]:
    return list(training(capture=False, read_every=1, measure_flushed=False))


@pytest.mark.parametrize("read_every", [1, 7, 20, 100])
def test_records_are_those_of_single_steps(read_every: int) -> None:
    assert list(training(read_every=read_every)) == plain()


@pytest.mark.parametrize("at", [20, 27, 39])
def test_a_state_saved_inside_a_block_is_the_models(at: int) -> None:
    """The model is at the block's end, and so the rest begins there."""
    first = training()
    for _ in range(at):
        next(first)
    state = first.state_dict()
    assert state["step"] == -20 * (-at // 20)
    second = training()
    second.load_state_dict(state)
    assert list(second) == plain()[state["step"] :]
    assert list(first) == plain()[at:], "what was saved goes on as well"


def test_an_interrupted_block_trains_no_step_twice() -> None:
    interrupted = training()
    data: Any = interrupted.data
    data.fails_at = 27
    records = [next(interrupted) for _ in range(20)]
    with pytest.raises(KeyboardInterrupt):
        next(interrupted)
    assert interrupted.state_dict()["step"] == 27
    assert records + list(interrupted) == plain()


def test_an_interrupt_while_the_host_waits_loses_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """■ arrives in the wait at a block's end more often than not."""
    honest, waits = torch.stack, iter([True])

    def interrupted(rows: Any) -> Tensor:
        if rows and len(rows) == 20 and next(waits, False):
            raise KeyboardInterrupt
        return honest(rows)

    stopped = training()
    records = [next(stopped) for _ in range(20)]
    monkeypatch.setattr(run.torch, "stack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(stopped)
    assert stopped.state_dict()["step"] == 40
    assert records + list(stopped) == plain()


def test_a_batch_of_another_shape_under_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a CPU trains on it: uncaptured from there on, each step once, each measured once."""
    monkeypatch.setattr(Graph, "stale_after", 7)
    passes: list[int] = []
    honest = run.flushed_counts
    monkeypatch.setattr(run, "flushed_counts", lambda *batch: (passes.append(1), honest(*batch))[1])
    auto = training(capture="auto", measure_flushed=True, measure_every=7)
    records = list(auto)
    assert [record.losses for record in records] == [record.losses for record in plain()]
    assert [r.step for r in records if r.flushed is not None] == list(range(0, 60, 7))
    assert len(passes) == 9


def test_measured_steps_keep_their_places_in_blocks() -> None:
    records = list(training(read_every=7, measure_flushed=True, measure_every=10))
    assert [r.step for r in records if r.flushed is not None] == [0, 10, 20, 30, 40, 50]
    everywhere = list(training(capture=False, read_every=1, measure_flushed=True))
    assert [r.flushed for r in records if r.flushed is not None] == [r.flushed for r in everywhere[::10]]


def test_auto_goes_on_where_the_model_cannot_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Graph, "refuses", True)
    auto = training(capture="auto")
    assert list(auto) == plain()
    assert (auto.captured, auto.uncaptured_because) == (False, "operation not permitted when stream is capturing")
    with pytest.raises(RuntimeError, match="operation not permitted"):
        next(training(capture=True))


@pytest.mark.parametrize("after", [20, 27])
def test_auto_goes_on_where_a_setting_changes(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Graph, "stale_after", after)
    auto = training(capture="auto")
    assert list(auto) == plain()
    assert (auto.captured, auto.uncaptured_because) == (False, "lr changed, but …")


def test_the_cure_is_for_what_changed() -> None:
    assert outdated("lr").startswith("lr changed, but the graph has the old number in it; make it a tensor")
    for changed in ("betas", "the scaler's rule"):
        assert outdated(changed).endswith("old number in it; capture again: CapturedStep(work, inputs, targets).")
