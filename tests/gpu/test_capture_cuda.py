"""A captured step trains as an uncaptured one does, skips included, and the host does not wait inside it."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpkit import BF16, FP16, DynamicScale, LossScaler, Policy, StepRecord, fit
from mpkit.course.nets.models import MLP
from mpkit.course.nets.transformer import Transformer
from mpkit.optim import Kahan, MasterWeights, Rounded
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
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def run(optimizer: Callable[[nn.Module], torch.optim.Optimizer] = sgd, steps: int = 60, policy: str = "fp16-mixed",
        dropout: bool = False, **settings: Any) -> Run:  # fmt: skip
    torch.manual_seed(7)
    model: nn.Module = MLP(seeds=range(3))
    if dropout:
        model.append(nn.Dropout(0.2))  # type: ignore[operator]
    model.cuda()
    scaler = LossScaler(settings.pop("rule", DynamicScale(2.0**30, growth_interval=5)))
    settings.setdefault("engine", "native")
    return fit(model, FixedSize(), optimizer=optimizer(model), steps=steps, policy=Policy.preset(policy), scaler=scaler,
               **settings)  # fmt: skip


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
    with pytest.raises(ValueError, match="Adam asks the host whether to skip; use a fused one"):
        CapturedStep(work(lambda m: torch.optim.Adam(m.parameters(), capturable=True)), *batch)
    with pytest.raises(ValueError, match="Adam asks the host whether to skip; use a fused one"):  # inside a wrapper
        CapturedStep(work(lambda m: MasterWeights(torch.optim.Adam(m.parameters()), BF16)), *batch)
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
    with pytest.raises(ValueError, match="lr changed, but the graph has the old number in it"):
        step(*batch)
    step = CapturedStep(work(), *batch)
    step(*batch)
    step.work.scaler.set_growth_interval(3)
    with pytest.raises(ValueError, match="the scaler's rule changed, but the graph has the old number in it"):
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


WRAPPERS: dict[str, Callable[[torch.optim.Optimizer], torch.optim.Optimizer]] = {
    "nearest": lambda opt: Rounded(opt, BF16),
    "Kahan": lambda opt: Kahan(opt, BF16),
    "master": lambda opt: MasterWeights(opt, FP16),
    "stochastic": lambda opt: Rounded(opt, BF16, "stochastic"),
}


@pytest.mark.parametrize("inner", [sgd, adam])
@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_train_captured_as_uncaptured(name: str, inner: Callable[[nn.Module], torch.optim.Optimizer]) -> None:
    """Skips, weights, what is kept beside them, and the count of lost updates."""
    eager, captured = (run(lambda model: WRAPPERS[name](inner(model)), capture=capture) for capture in (False, True))
    a, b = list(eager), list(captured)
    assert [(r.scale, r.skipped) for r in a] == [(r.scale, r.skipped) for r in b]
    assert a[0].skipped, (
        "the first steps are skipped: moments must not be made in the graph, where they would be made anew"
    )
    close = 0.05 if name == "stochastic" else 1e-2
    assert [r.loss for r in a] == pytest.approx([r.loss for r in b], rel=close, nan_ok=True)
    shares = [one.work.optimizer.updates.lost_share for one in (eager, captured)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)
    assert shares[0] < 1
    assert any(record.loss < a[0].loss for record in b[-5:])


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_captured_wrapper_skips_on_the_device_and_changes_nothing(name: str) -> None:
    """Gradients are Inf: weights, what is kept beside them, moments and counts stay, and the host does not wait."""
    step = work(lambda model: WRAPPERS[name](adam(model)), rule=preset("none"))
    inputs, targets = FixedSize().batch(0)
    captured = CapturedStep(step, inputs, targets)
    captured(inputs, targets)
    keeper: Any = step.optimizer

    def everything() -> list[Tensor]:
        moments = [t for state in keeper.state.values() for t in state.values()]
        return [t.clone() for t in [*step.model.parameters(), *moments, *keeper.held()]]

    before = everything()
    assert int(keeper.updates.moved) > 0, "the first step moved something"
    bad = inputs * float("inf")
    assert count_waits(lambda: captured(bad, targets)) == 0
    assert all(torch.equal(p, q) for p, q in zip(before, everything(), strict=True))
    captured(inputs, targets)
    assert not all(torch.equal(p, q) for p, q in zip(before, everything(), strict=True))


def test_stochastic_rounding_draws_anew_in_every_replay() -> None:
    captured = CapturedStep(work(lambda m: Rounded(torch.optim.SGD(m.parameters(), lr=1e-4, fused=True), BF16,
                                                   "stochastic")), *FixedSize().batch(0))  # fmt: skip
    params = list(captured.work.model.parameters())
    moved = []
    for _ in range(3):
        before = [p.detach().clone() for p in params]
        captured(*FixedSize().batch(0))
        moved.append(torch.cat([(p != q).flatten() for p, q in zip(before, params, strict=True)]))
    assert not torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[1], moved[2])


@pytest.mark.parametrize("name", ["torch", "keras", "megatron", "paddle", "torch-fsdp", "apex-amp", "mindspore"])
def test_rules_of_libraries_can_be_captured(name: str) -> None:
    same(list(run(rule=preset(name))), list(run(rule=preset(name), capture=True, read_every=7)))


def test_auto_says_why_it_does_not_capture() -> None:
    caught = run(rule=preset("openseq2seq-logmax"), capture="auto", read_every=20, steps=5)
    assert (caught.captured, len(list(caught))) == (False, 5)
    assert caught.uncaptured_because.startswith("LogMaxScale decides on the host")
    free = run(capture="auto", read_every=20, steps=5)
    assert (free.captured, free.uncaptured_because, len(list(free))) == (True, "", 5)


@pytest.mark.parametrize("policy", ["fp16-mixed", "bf16-true", "article"])
def test_emulation_can_be_captured(policy: str) -> None:
    eager = run(policy=policy, engine="emulated", measure_flushed=False)
    same(list(eager), list(run(policy=policy, engine="emulated", capture=True, read_every=10)))


def test_a_captured_run_measures_what_is_flushed_and_leaves_no_trace() -> None:
    """The share is that of an emulated step; records and weights are those of a run that does not measure."""
    plain = run(capture=True, read_every=10, dropout=True, policy="fp16-mixed", rule=preset("none"))
    measured = run(capture=True, read_every=10, dropout=True, policy="fp16-mixed", rule=preset("none"),
                   measure_flushed=True, measure_every=20)  # fmt: skip
    torch.manual_seed(5)
    a = list(plain)
    torch.manual_seed(5)
    b = list(measured)
    assert [r.step for r in b if r.flushed is not None] == [0, 20, 40]
    assert {r.flushed for r in a} == {None}
    assert [r.losses for r in a] == [r.losses for r in b]
    assert all(torch.equal(p, q) for p, q in zip(plain.model.parameters(), measured.model.parameters(), strict=True))


def test_a_resumed_captured_run_is_bit_equal() -> None:
    whole = list(run(adam, capture=True, read_every=5))
    first = run(adam, capture=True, read_every=5)
    for _ in range(30):
        next(first)
    second = run(adam, capture=True, read_every=5)
    second.load_state_dict(first.state_dict())
    assert list(second) == whole[30:]


def test_a_transformer_of_the_course_is_captured() -> None:
    """Embeddings, fused attention, layer norms; and what was captured is freed with the run."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 50, (64, 33), generator=draw).cuda()
    data = Batches(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), 16)
    ends = {}
    for capture in (False, True):
        net = Transformer(50, seed=3).cuda()
        training = fit(net, data, optimizer=adam(net), steps=40, policy=Policy.preset("fp16-mixed"), engine="auto",
                       scaler=LossScaler(DynamicScale()), capture=capture, measure_flushed=False)  # fmt: skip
        ends[capture] = list(training)[-1].loss
    assert ends[True] == pytest.approx(ends[False], rel=2e-2)


def test_a_model_that_reads_the_device_goes_on_without_a_graph() -> None:
    class Reading(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1.0 if float(x.sum()) > -1e9 else 0.5)

    model = Reading(64, 10).cuda()
    training = fit(model, FixedSize(), optimizer=sgd(model), steps=6, capture="auto", read_every=3)
    records = list(training)
    assert (len(records), training.captured) == (6, False)
    assert "captur" in training.uncaptured_because
    assert torch.rand(3, device="cuda").shape == (3,), "random numbers still come"
    assert records[-1].loss < records[0].loss


def test_a_schedule_under_auto_goes_on_without_a_graph() -> None:
    ends = []
    for capture in (False, "auto"):
        model = MLP(seeds=[0]).cuda()
        optimizer = sgd(model)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        training = fit(model, FixedSize(), optimizer=optimizer, steps=20, engine="native", capture=capture)
        losses = [(record.loss, schedule.step())[0] for record in training]  # type: ignore[func-returns-value]
        ends.append(losses[-1])
    assert ends[0] == pytest.approx(ends[1], rel=1e-3)
    assert training.uncaptured_because.startswith("lr changed, but the graph has the old number in it")


class Long:
    """Sums over 65,536 products, which cuBLAS splits, and whose parts it keeps in a workspace."""

    def __init__(self) -> None:
        draw = torch.Generator("cuda").manual_seed(3)
        self.inputs = torch.randn(32, 2**16, generator=draw, device="cuda")
        self.targets = torch.randint(0, 10, (32,), generator=draw, device="cuda")

    def captured(self) -> CapturedStep:
        torch.manual_seed(7)
        model = nn.Linear(2**16, 64).cuda()
        policy, scaler = Policy.preset("fp16-mixed"), LossScaler(DynamicScale())
        step = TrainStep(model, sgd(model), policy, scaler, nn.functional.cross_entropy, "native")
        return CapturedStep(step, self.inputs, self.targets)

    def train(self, step: CapturedStep) -> list[list[float]]:
        return [step(self.inputs, self.targets).tolist() for _ in range(5)]


def free_all_workspaces() -> None:
    torch._C._cuda_clearCublasWorkspaces()


def train_with_graphs_of_torch_compile() -> None:
    torch._dynamo.reset()
    model, data = MLP(seeds=[0]).cuda(), FixedSize()
    forward: Any = torch.compile(model, mode="reduce-overhead")
    for step in range(12):
        torch.compiler.cudagraph_mark_step_begin()
        inputs, targets = data.batch(step)
        model.loss(forward(inputs), targets).sum().backward()
        model.zero_grad()


def capture_another_and_drop_it() -> None:
    Long().captured()
    gc.collect()


@pytest.mark.parametrize("disturb", [
    free_all_workspaces, train_with_graphs_of_torch_compile, capture_another_and_drop_it
])  # fmt: skip
@pytest.mark.parametrize("one_before", [False, True])
def test_a_graph_writes_to_no_memory_that_others_may_free(disturb: Callable[[], None], one_before: bool) -> None:
    """What cuBLAS works in is the graph's own: whoever takes the memory that is free then keeps what is in it."""
    data = Long()
    undisturbed = data.train(data.captured())
    earlier = data.captured() if one_before else None
    captured = data.captured()
    del earlier
    gc.collect()
    disturb()
    torch.cuda.empty_cache()
    others = [torch.zeros(2**23, device="cuda") for _ in range(64)]
    assert data.train(captured) == undisturbed
    assert not any(bool(other.any()) for other in others)


def test_captures_leave_no_memory_behind() -> None:
    list(run(capture=True, steps=3))
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        list(run(adam, capture=True, steps=3))
    gc.collect()
    assert torch.cuda.memory_allocated() - before < 2**20


def test_a_graph_outlives_the_graphs_of_torch_compile_beside_it() -> None:
    """In a process of its own: with cuBLAS's common workspace this ended in an illegal memory access, and any error of
    that kind takes the whole process along."""
    rows = ["bench", "--device", "cuda", "--processes", "1", "--repeats", "3", "--only", "MLP, captured"]
    ended = subprocess.run([sys.executable, "-m", "mpkit", *rows], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "no figure:" not in ended.stdout, ended.stdout
    assert ended.stdout.count("FP16 step, MLP, captured") == 3
