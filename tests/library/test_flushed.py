"""The measured step: it counts what emulation counts, in the steps whose turn it is, and leaves no trace."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from oracles.reference_models import images, labels
from torch import Tensor, nn

from mpkit import LossScaler, NoScaling, Policy, StaticScale, StepRecord, fit
from mpkit.training import Batches, Run
from mpkit.training.flushed import flushed_counts

TINY = 2.0**-18  # of the loss: many FP16 gradients become zero


class Drawing(nn.Sequential):
    """Random numbers in every forward pass, buffers that each forward pass changes, and a loss with a small weight."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return TINY * nn.functional.cross_entropy(output.float(), target)


def run(policy: str = "fp16-mixed", steps: int = 12, scale: float | None = None, **settings: Any) -> Run:
    model = Drawing()
    rule = NoScaling() if scale is None else StaticScale(scale)
    return fit(model, Batches(images(), labels(), 16), optimizer=torch.optim.SGD(model.parameters(), lr=10.0),
               steps=steps, policy=Policy.preset(policy), scaler=LossScaler(rule), **settings)  # fmt: skip


def take(some: Run, steps: int = 12) -> list[StepRecord]:
    """Its next records, with the same random numbers for everybody."""
    torch.manual_seed(1)
    return [next(some) for _ in range(steps)]


def shares(records: list[StepRecord]) -> list[float | None]:
    return [record.flushed for record in records]


def test_it_measures_in_step_0_and_then_every_so_often() -> None:
    found = shares(list(run(engine="native", measure_flushed=True, measure_every=5)))
    assert [step for step, share in enumerate(found) if share is not None] == [0, 5, 10]
    assert shares(list(run(engine="native", measure_flushed=True, steps=21)))[20] is not None, "20 is the default"
    assert set(shares(list(run(engine="native")))) == {None}, "nobody asked"


def test_it_counts_what_emulation_counts() -> None:
    emulated, measured = run(steps=1), run(steps=1, engine="native", measure_flushed=True)
    first = take(emulated, 1)[0].flushed
    assert first == take(measured, 1)[0].flushed
    assert first is not None
    assert 0.05 < first < 0.95
    scaled = take(run(scale=2.0**14, engine="native", measure_flushed=True), 1)[0].flushed
    assert scaled is not None
    assert scaled < first / 10, "at the step's own loss scale"


@pytest.mark.parametrize("policy", ["fp32", "article"])
def test_what_rounds_no_gradient_flushes_none_in_every_step(policy: str) -> None:
    assert shares(list(run(policy, engine="native", measure_flushed=True))) == [0.0] * 12


@pytest.mark.parametrize("policy", ["fp16-mixed", "bf16-true"])
def test_it_leaves_no_trace(policy: str) -> None:
    """Weights, batch norm's buffers, random numbers and records are as without it; only the share is there."""
    plain, measured = run(policy, engine="native"), run(policy, engine="native", measure_flushed=True, measure_every=3)
    a, b = take(plain), take(measured)
    assert a == [dataclasses.replace(record, flushed=None) for record in b]
    assert len({record.loss for record in a}) == 12
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, measured.model.state_dict()[name]), name
    assert any(name.endswith("running_mean") for name in plain.model.state_dict())


def test_a_resumed_run_measures_in_the_same_steps() -> None:
    whole = take(run(engine="native", measure_flushed=True, measure_every=4))
    first = run(engine="native", measure_flushed=True, measure_every=4)
    take(first, 6)
    state = first.state_dict()
    second = run(engine="native", measure_flushed=True, measure_every=4)
    second.load_state_dict(state)
    assert list(second) == whole[6:]


def test_gradients_stay_where_they_are() -> None:
    work, (inputs, targets) = run(engine="native").work, Batches(images(), labels(), 16).batch(0)
    work(inputs, targets)
    before = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in work.model.parameters()]
    nonzero, kept = flushed_counts(work, inputs, targets).tolist()
    assert nonzero > kept > 0
    for p, grad, value in before:
        assert p.grad is grad
        assert grad is not None
        assert value is not None
        assert torch.equal(grad, value)
