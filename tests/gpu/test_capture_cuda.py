"""A captured step trains as an uncaptured one does, skips included, and the host does not wait inside it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpkit import DynamicScale, LossScaler, Policy, StepRecord, fit
from mpkit.course.nets.models import MLP
from mpkit.scaling import preset
from mpkit.training.batches import Batches
from mpkit.training.capture import CapturedStep
from mpkit.training.run import Run
from mpkit.training.step import TrainStep

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


class FixedSize:
    """Batches that are on the device already."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(3)
        self.inputs = torch.randn(8, 64, 64, generator=draw).cuda()
        self.targets = torch.randint(0, 10, (8, 64), generator=draw).cuda()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        return self.inputs[step % 8], self.targets[step % 8]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True, capturable=True)


def run(optimizer: Callable[[nn.Module], torch.optim.Optimizer] = sgd, steps: int = 60, policy: str = "fp16-mixed",
        dropout: bool = False, **settings: Any) -> Run:  # fmt: skip
    torch.manual_seed(7)
    model: nn.Module = MLP(seeds=range(3))
    if dropout:
        model.append(nn.Dropout(0.2))  # type: ignore[operator]
    model.cuda()
    scaler = LossScaler(DynamicScale(2.0**30, growth_interval=5))
    return fit(model, FixedSize(), optimizer=optimizer(model), steps=steps, policy=Policy.preset(policy), scaler=scaler,
               engine="native", **settings)  # fmt: skip


def same(a: list[StepRecord], b: list[StepRecord]) -> None:
    assert [(r.step, r.scale, r.skipped) for r in a] == [(r.step, r.scale, r.skipped) for r in b]
    assert [r.loss for r in a] == pytest.approx([r.loss for r in b], rel=1e-3, nan_ok=True)


@pytest.mark.parametrize("optimizer", [sgd, adam])
@pytest.mark.parametrize("policy", ["fp16-mixed", "bf16-mixed", "article", "fp32", "fp16-true"])
def test_it_trains_as_without_capture(optimizer: Callable[[nn.Module], torch.optim.Optimizer], policy: str) -> None:
    eager, captured = run(optimizer, policy=policy), run(optimizer, policy=policy, capture=True)
    a, b = list(eager), list(captured)
    same(a, b)
    assert len(b) == 60
    if policy == "fp16-mixed":
        assert 5 < sum(record.skipped for record in b) < 40
    for p, q in zip(eager.model.parameters(), captured.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-2, atol=1e-4)


def test_records_can_be_read_many_at_a_time() -> None:
    same(list(run(capture=True)), list(run(capture=True, read_every=25)))


def test_a_captured_run_goes_on_from_a_saved_state() -> None:
    whole = list(run(capture=True))
    first = run(capture=True)
    for _ in range(30):
        next(first)
    second = run(capture=True)
    second.load_state_dict(first.state_dict())
    same(list(second), whole[30:])


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_a_captured_run_goes_back_to_a_state_of_its_own(
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
) -> None:
    """What it captured read the optimizer's state where that lay before; the loaded state lies elsewhere."""
    captured = run(optimizer, capture=True)
    for _ in range(20):
        next(captured)
    state = captured.state_dict()
    rest = list(captured)
    captured.load_state_dict(state)
    same(list(captured), rest)


def test_dropout_draws_anew_in_every_replay() -> None:
    captured = run(dropout=True, capture=True, steps=24)
    losses = [record.loss for record in captured]
    assert len(set(losses)) == 24


def work(optimizer: Callable[[nn.Module], torch.optim.Optimizer] = sgd, rule: Any = None) -> TrainStep:
    model = MLP(seeds=[0]).cuda()
    scaler = LossScaler(rule or DynamicScale())
    return TrainStep(model, optimizer(model), Policy.preset("fp16-mixed"), scaler, model.loss, "native")


def test_the_capture_itself_trains_nothing() -> None:
    step = work()
    before = [p.detach().clone() for p in step.model.parameters()]
    captured = CapturedStep(step, *FixedSize().batch(0))
    assert all(torch.equal(p, q) for p, q in zip(before, step.model.parameters(), strict=True))
    assert step.scaler.get_scale() == 2.0**16
    captured(*FixedSize().batch(0))
    assert not all(torch.equal(p, q) for p, q in zip(before, step.model.parameters(), strict=True))


def count_waits(train: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


def test_how_often_the_host_waits() -> None:
    data, captured = FixedSize(), run(capture=True, steps=101, read_every=50)
    next(captured)
    for _ in range(49):
        next(captured)
    assert count_waits(lambda: next(captured)) == 1, "fifty steps, one wait: to read their records"
    step = CapturedStep(work(), *data.batch(0))
    assert count_waits(lambda: [step(*data.batch(k)) for k in range(20)]) == 0
    eager = work()
    eager(*data.batch(0))
    assert count_waits(lambda: [eager(*data.batch(k)) for k in range(20)]) == 0, "the eager step does not wait either"
    assert count_waits(lambda: eager(*data.batch(0)).losses.item()) == 1, "and the counter counts"


def test_what_cannot_be_captured() -> None:
    batch = FixedSize().batch(0)
    with pytest.raises(ValueError, match="Adam counts its steps on the host; make it with capturable=True"):
        CapturedStep(work(lambda m: torch.optim.Adam(m.parameters(), fused=True)), *batch)
    with pytest.raises(ValueError, match="SGD asks the host whether to skip; use a fused one"):
        CapturedStep(work(lambda m: torch.optim.SGD(m.parameters(), lr=0.1)), *batch)
    with pytest.raises(ValueError, match="dampening treats the first step differently"):
        CapturedStep(
            work(lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.1, fused=True)), *batch
        )
    with pytest.raises(ValueError, match="LogMaxScale decides on the host"):
        CapturedStep(work(rule=preset("openseq2seq-logmax")), *batch)
    step = CapturedStep(work(), *batch)
    with pytest.raises(ValueError, match=r"captured for inputs of shape \(64, 64\), torch.float32, but \(63, 64\)"):
        step(batch[0][:63], batch[1])
    step.work.optimizer.param_groups[0]["lr"] = 0.01
    with pytest.raises(ValueError, match="a learning rate changed, but the graph has the old number in it"):
        step(*batch)


def test_a_learning_rate_that_is_a_tensor_may_change() -> None:
    rate = torch.tensor(0.0, device="cuda")
    step = work(lambda m: torch.optim.SGD(m.parameters(), lr=rate, fused=True))
    captured = CapturedStep(step, *FixedSize().batch(0))
    before = [p.detach().clone() for p in step.model.parameters()]
    captured(*FixedSize().batch(0))
    assert all(torch.equal(p, q) for p, q in zip(before, step.model.parameters(), strict=True))
    rate.fill_(0.1)
    captured(*FixedSize().batch(0))
    assert not all(torch.equal(p, q) for p, q in zip(before, step.model.parameters(), strict=True))


def test_batches_of_the_kit_can_be_captured() -> None:
    draw = torch.Generator().manual_seed(3)
    data = Batches(torch.randn(256, 64, generator=draw).cuda(), torch.randint(0, 10, (256,), generator=draw).cuda(), 64)
    model = MLP(seeds=[0]).cuda()
    records = list(fit(model, data, optimizer=sgd(model), steps=40, engine="native", capture=True))
    assert records[-1].loss < records[0].loss
