"""A compiled step: the same training, compiled once, apart from every other; and clipping and micro-batches.

Here torch.compile traces, and runs what it traced without making kernels of it: what needs no compiler for C++. With
kernels, and captured, it is tested in tests/gpu/test_compiled_cuda.py.
"""

from __future__ import annotations

import copy
import gc
import importlib
import math
import pickle
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from mpkit import DynamicScale, LossScaler, Policy, StaticScale, StepRecord, fit
from mpkit.course.nets.models import MLP
from mpkit.course.nets.transformer import Transformer
from mpkit.training import Batches, Run, TrainStep, compiling
from mpkit.training.flushed import flushed_counts

DRAW = torch.Generator().manual_seed(0)
DATA = Batches(torch.rand(256, 64, generator=DRAW), torch.randint(0, 10, (256,), generator=DRAW), 32)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """Counts what is compiled."""
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(compiling, "_inductor", counter)
    yield counter
    torch.compiler.reset()


def run(steps: int = 8, policy: str = "fp32", scale: float = 1.0, **settings: Any) -> Run:
    torch.manual_seed(3)
    model = MLP(seeds=range(2))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = LossScaler(DynamicScale(scale, growth_interval=3))
    return fit(model, DATA, optimizer=sgd, steps=steps, policy=Policy.preset(policy), scaler=scaler, **settings)


def alike(a: list[StepRecord], b: list[StepRecord]) -> None:
    assert [(r.step, r.scale, r.skipped) for r in a] == [(r.step, r.scale, r.skipped) for r in b]
    assert [r.loss for r in a] == pytest.approx([r.loss for r in b], rel=1e-3)
    assert [r.grad_norm for r in a] == pytest.approx([r.grad_norm for r in b], rel=2e-2, nan_ok=True)


@pytest.mark.parametrize(
    ("policy", "engine"),
    [("fp32", "emulated"), *((name, "native") for name in ("fp32", "bf16-mixed", "bf16-true", "fp16-mixed"))],
)  # fmt: skip
def test_it_trains_as_uncompiled_and_compiles_once(policy: str, engine: str, counter: Any) -> None:
    scale = 2.0**30 if policy == "fp16-mixed" else 1.0
    plain, ours = (list(run(policy=policy, scale=scale, engine=engine, compile=c)) for c in (False, True))
    alike(plain, ours)
    assert any(record.skipped for record in ours) == (policy == "fp16-mixed")
    assert counter.frame_count == 1


def test_the_own_loop_of_a_user_compiles_once_too(counter: Any) -> None:
    """A policy that stores the model in a low format changes the model in each block, in the same way."""
    model = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    program = torch.compile(lambda x: model(x).float().sum(), backend=counter)
    for _ in range(3):
        with Policy.preset("bf16-true").apply(model, engine="native"):
            program(DATA.inputs[:4]).backward()
    assert counter.frame_count == 1


def test_the_ninth_model_is_compiled_as_well(counter: Any) -> None:
    """Torch keeps at most eight versions of one code."""
    for width in range(9):
        model = Transformer(5, width=8 * (width + 1), layers=1, heads=2, context=4)
        tokens = torch.zeros(2, 4, dtype=torch.int64)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        TrainStep(model, sgd, Policy(), LossScaler(StaticScale(1.0)), model.loss, compile=True)(tokens, tokens)
    assert counter.frame_count == 9


def test_what_was_compiled_ends_with_its_step(counter: Any) -> None:
    training = run(compile=True)
    next(training)
    model = weakref.ref(training.model)
    del training
    gc.collect()
    assert model() is None


def test_what_is_compiled_resumes_to_the_bit(counter: Any) -> None:
    whole, first, second = (run(policy="bf16-mixed", engine="native", compile=True) for _ in range(3))
    records = list(whole)
    for _ in range(4):
        next(first)
    second.load_state_dict(first.state_dict())
    assert list(second) == records[4:]


def test_flushed_gradients_are_counted_by_emulation_all_the_same(counter: Any) -> None:
    plain, ours = (run(policy="fp16-mixed", engine="native", compile=c) for c in (False, True))
    batch = DATA.batch(0)
    assert torch.equal(flushed_counts(plain.work, *batch), flushed_counts(ours.work, *batch))
    assert counter.frame_count == 0


def test_torchs_cache_of_training_graphs_is_used_only_where_it_knows_the_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before torch 2.13 it takes a program that was made under FP16 for one under BF16."""
    from torch._functorch import config
    from torch._inductor import compile_fx

    seen: list[bool] = []
    monkeypatch.setattr(compile_fx, "compile_fx", lambda *_: seen.append(config.enable_autograd_cache))
    for knows in (False, True):
        monkeypatch.setattr(compiling, "KNOWS_AUTOCAST", knows)
        with config.patch(enable_autograd_cache=True):
            compiling._inductor(None, None)
    assert seen == [False, True]
    assert compiling.KNOWS_AUTOCAST or torch.__version__ < "2.13"


@pytest.mark.parametrize(("version", "knows"), [("2.9.1", False), ("2.11.0+cu130", False), ("2.13.0+cpu", True)])
def test_versions_are_compared_as_versions(version: str, knows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    assert knows == importlib.reload(compiling).KNOWS_AUTOCAST
    monkeypatch.undo()
    importlib.reload(compiling)


def test_the_backward_pass_is_outside_of_autocast() -> None:
    """As torch's documentation has it: inside, sums of gradients would be cast to FP32 and back."""
    model = nn.Sequential(nn.Linear(64, 8), Watch(), nn.Linear(8, 10))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    TrainStep(model, sgd, Policy.preset("bf16-mixed"), LossScaler(), F.cross_entropy, "native")(*DATA.batch(0))
    assert Watch.seen == {"forward": True, "backward": False}


class Watch(nn.Module):
    """Notes whether autocast is on where it computes."""

    seen: dict[str, bool] = {}  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        self.seen["forward"] = torch.is_autocast_enabled("cpu")
        x.register_hook(lambda _: self.seen.update(backward=torch.is_autocast_enabled("cpu")))
        return x * 1


def test_what_cannot_be_compiled() -> None:
    with pytest.raises(
        ValueError, match='emulation rounds in Python, where a compiler does not see it; use engine="na'
    ):
        run(policy="fp16-mixed", compile=True)
    with pytest.raises(ValueError, match=r'in another format than the forward pass \(the policy "article"\); use Poli'):
        run(policy="article", engine="native", compile=True)


def by_hand(parts: int, max_norm: float) -> tuple[list[Tensor], float]:
    """Torch's documentation: the loss divided, one backward pass a part, clip_grad_norm_, one step."""
    model = run().model
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss_fn: Callable[..., Tensor] = model.loss  # type: ignore[assignment]
    for x, y in zip(*(t.chunk(parts) for t in DATA.batch(0)), strict=True):
        (loss_fn(model(x), y).sum() / parts).backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    sgd.step()
    return [p.detach() for p in model.parameters()], float(norm)


@pytest.mark.parametrize("parts", [1, 2, 8])
@pytest.mark.parametrize("max_norm", [0.01, 1e6])
@pytest.mark.parametrize("scale", [1.0, 2.0**10])
def test_clipping_and_micro_batches_are_those_of_the_documentation(parts: int, max_norm: float, scale: float) -> None:
    weights, norm = by_hand(parts, max_norm)
    training = run(scale=scale, max_norm=max_norm, micro_batches=parts)
    record = next(training)
    assert record.grad_norm == pytest.approx(norm, rel=1e-6), "the norm from before clipping"
    for mine, theirs in zip(training.model.parameters(), weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


def test_clipping_shows() -> None:
    free, clipped = run(), run(max_norm=0.01)
    next(free), next(clipped)
    assert not all(torch.equal(p, q) for p, q in zip(free.model.parameters(), clipped.model.parameters(), strict=True))


def test_a_loss_over_micro_batches_is_their_mean() -> None:
    whole, parts = run(measure_flushed=False), run(measure_flushed=False, micro_batches=4)
    alike(list(whole), list(parts))


def test_a_skipped_step_is_not_clipped_into_the_weights() -> None:
    training = run(policy="fp16-mixed", scale=2.0**40, max_norm=1.0, micro_batches=2)
    before = [p.detach().clone() for p in training.model.parameters()]
    assert next(training).skipped
    assert all(torch.equal(p, q) for p, q in zip(before, training.model.parameters(), strict=True))


def test_emulation_counts_what_each_micro_batch_flushes() -> None:
    """Shares of the parts differ from the whole's: a part's gradient is divided by their number."""
    one, four = (run(policy="fp16-mixed", micro_batches=parts, steps=1) for parts in (1, 4))
    flushed = next(four).flushed
    assert flushed is not None
    assert flushed != next(one).flushed
    kept = flushed_counts(run(policy="fp16-mixed", micro_batches=4).work, *DATA.batch(0)).tolist()
    assert flushed == pytest.approx(1 - kept[1] / kept[0], abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"max_norm": 0.0}, "max_norm=0.0; use a finite number above 0, or None for no clipping"),
        ({"max_norm": float("nan")}, "max_norm=nan; use a finite number above 0"),
        ({"max_norm": "1"}, "max_norm='1'; use a finite number above 0"),
        ({"max_norm": True}, "max_norm=True; use a finite number above 0"),
        ({"micro_batches": True}, "micro_batches=True; use a whole number from 1 on"),
        ({"micro_batches": 0}, "micro_batches=0; use a whole number from 1 on"),
        ({"micro_batches": 2.0}, "micro_batches=2.0; use a whole number from 1 on"),
    ],
)
def test_bad_numbers(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        run(**settings)


def test_a_batch_that_cannot_be_divided() -> None:
    with pytest.raises(
        ValueError, match="a batch of 32 cannot be divided into 5 equal micro-batches; use a number that"
    ):
        next(run(micro_batches=5))


def test_parameters_that_the_optimizer_does_not_step_start_at_zero_too() -> None:
    model = nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 10))
    sgd = torch.optim.SGD(model[1].parameters(), lr=0.1)
    training = fit(model, DATA, optimizer=sgd, steps=2)
    next(training)
    first = model[0].weight.grad
    assert first is not None
    next(training)
    assert model[0].weight.grad is not first


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda step: pickle.loads(pickle.dumps(step))], ids=["copy", "pickle"])
def test_a_step_that_was_used_can_be_copied(twin: Any) -> None:
    """What it has compiled and cached belongs to the model that it was made for."""
    first = TrainStep(
        nn.Linear(64, 2),
        None,
        Policy(),
        LossScaler(StaticScale(1.0)),
        F.cross_entropy,  # type: ignore[arg-type]
    )
    step = replace(first, optimizer=torch.optim.SGD(first.model.parameters(), lr=0.1))
    inputs, targets = DATA.inputs[:8], torch.zeros(8, dtype=torch.int64)
    step(inputs, targets)
    before = [p.clone() for p in step.model.parameters()]
    other = twin(step)
    other(inputs, targets)
    assert all(map(torch.equal, before, step.model.parameters())), "the original is not trained"
    assert not torch.equal(before[0], next(other.model.parameters()))


def test_one_batch_may_be_whatever_the_model_takes() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 2)

        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            out: Tensor = self.layer(inputs["a"] + inputs["b"])
            return out

    model, none = Pair(), torch.zeros(0)
    sgd = torch.optim.SGD(model.parameters(), lr=0.001)
    step = TrainStep(model, sgd, Policy(), LossScaler(StaticScale(1.0)), lambda out, _: out.square().mean())
    losses = [float(step({"a": DATA.inputs[:8], "b": DATA.inputs[:8]}, none).losses.detach()) for _ in range(3)]  # type: ignore[arg-type]
    assert losses[2] < losses[0]


def test_a_sum_over_micro_batches_is_their_mean_as_is_said() -> None:
    def gradient(loss: Any, parts: int) -> Tensor:
        torch.manual_seed(0)
        model = nn.Linear(64, 2)
        sgd = torch.optim.SGD(model.parameters(), lr=0.0)
        step = TrainStep(model, sgd, Policy(), LossScaler(StaticScale(1.0)), loss, micro_batches=parts)
        step(DATA.inputs[:8], torch.zeros(8, dtype=torch.int64))
        assert model.weight.grad is not None
        return model.weight.grad

    def summed(out: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(out, targets, reduction="sum")

    torch.testing.assert_close(gradient(F.cross_entropy, 4), gradient(F.cross_entropy, 1))
    torch.testing.assert_close(4 * gradient(summed, 4), gradient(summed, 1))


def linear_step(policy: str = "fp32", scale: float = 1.0, **settings: Any) -> TrainStep:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = LossScaler(DynamicScale(scale))
    return TrainStep(model, sgd, Policy.preset(policy), scaler, F.cross_entropy, **settings)


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("policy", ["fp16-master", "fp16-mixed", "bf16-true"])
def test_the_mean_over_micro_batches_is_not_rounded(policy: str, parts: int) -> None:
    """A loss in FP32 stays in FP32 when it is divided, and its gradient too, which is the scale."""
    step = linear_step(policy, scale=2.0**17, micro_batches=parts)
    whole = linear_step(policy, scale=2.0**17)
    left, right = step(*DATA.batch(0)), whole(*DATA.batch(0))
    assert float(left.result.outcome[1]) == float(right.result.outcome[1])
    assert float(left.losses.detach()) == pytest.approx(float(right.losses.detach()), rel=1e-3)


def test_a_step_that_was_interrupted_can_be_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    step = linear_step()
    with monkeypatch.context() as patch:
        patch.setattr(step.optimizer, "step", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            step(*DATA.batch(0))
    assert math.isfinite(float(step(*DATA.batch(0)).losses.detach()))


def test_a_policy_around_a_step_has_no_say_in_it() -> None:
    alone, inside = linear_step("bf16-mixed", 2.0**16, max_norm=0.1), linear_step("bf16-mixed", 2.0**16, max_norm=0.1)
    batches = [DATA.batch(k) for k in range(3)]
    numbers = [alone(*batch).numbers for batch in batches]
    with Policy.preset("fp16-master").apply(nn.Linear(2, 2)):
        again = [inside(*batch).numbers for batch in batches]
    assert torch.equal(torch.stack(numbers), torch.stack(again))


@pytest.mark.parametrize("policy", ["fp16-true", "fp16-master", "bf16-mixed"])
@pytest.mark.parametrize("keyword", [False, True])
def test_an_optimizer_with_a_closure_steps_as_one_without(policy: str, keyword: bool) -> None:
    def trained(closed: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        adam = torch.optim.Adam(model.parameters(), lr=0.01)

        def closure() -> Tensor:
            adam.zero_grad()
            loss = F.cross_entropy(model(DATA.inputs[:32]), DATA.targets[:32])
            loss.backward()
            return loss

        with Policy.preset(policy).apply(model):
            for _ in range(3):
                if not closed:
                    closure()
                if not closed:
                    adam.step()
                elif keyword:
                    adam.step(closure=closure)
                else:
                    adam.step(closure)
        return list(model.parameters())

    assert all(map(torch.equal, trained(True), trained(False)))


def test_weights_are_stored_low_after_a_step_behind_the_block() -> None:
    step = linear_step("bf16-true")
    step(*DATA.batch(0))
    assert all(torch.equal(p, p.bfloat16().float()) for p in step.model.parameters())
