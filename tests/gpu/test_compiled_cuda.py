"""A step that torch.compile made kernels of and a CUDA graph replays: the same training, and no wait."""

from __future__ import annotations

import gc
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import BF16, DynamicScale, LossScaler, Policy, StepRecord, fit
from mpkit.course.nets.models import MLP
from mpkit.course.nets.transformer import Transformer
from mpkit.optim import MasterWeights
from mpkit.training import CapturedStep, Run, TrainStep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),  # a policy says whether TF32 is used
]


class Shifted:
    """Eight batches on the device whose classes can be told apart; `seed` draws them."""

    def __init__(self, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        centres = torch.randn(10, 64, generator=torch.Generator().manual_seed(99))
        self.targets = torch.randint(0, 10, (8, 64), generator=draw)
        self.inputs = (centres[self.targets] + torch.randn(8, 64, 64, generator=draw)).cuda()
        self.targets = self.targets.cuda()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        return self.inputs[step % 8], self.targets[step % 8]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def net(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.LayerNorm(96), nn.Dropout(dropout), nn.Linear(96, 10)).cuda()


def run(policy: str = "fp16-mixed", steps: int = 60, seed: int = 0, make: Callable[..., Any] = sgd,
        dropout: float = 0.0, scale: float = 2.0**26, **settings: Any) -> Run:  # fmt: skip
    model = net(seed, dropout)
    scaler = LossScaler(DynamicScale(scale, growth_interval=12))
    return fit(model, Shifted(seed), optimizer=make(model), steps=steps, policy=Policy.preset(policy), scaler=scaler,
               engine="native", **settings)  # fmt: skip


BOTH = {"compile": True, "capture": True}


def skips(records: list[StepRecord]) -> int:
    return sum(record.skipped for record in records)


@pytest.mark.parametrize("make", [sgd, adam])
@pytest.mark.parametrize("policy", ["fp16-mixed", "bf16-mixed", "fp32", "tf32", "fp16-true"])
def test_it_trains_as_eager_within_the_spread_of_the_seeds(policy: str, make: Callable[..., Any]) -> None:
    """Paired by seed. The last losses differ by less than a fifth of what the seeds do.

    A step more or less is skipped where the scale grows until it is too large: kernels that add in another order.
    """

    def last(records: list[StepRecord]) -> float:
        return statistics.fmean(record.loss for record in records[-10:])

    eager = [list(run(policy, seed=seed, make=make)) for seed in range(5)]
    ours = [list(run(policy, seed=seed, make=make, **BOTH)) for seed in range(5)]
    spread = statistics.stdev(map(last, eager))
    for a, b in zip(eager, ours, strict=True):
        assert abs(last(a) - last(b)) < spread / 5
        assert abs(skips(a) - skips(b)) <= 1
    assert any(r.skipped for r in ours[0]) == (policy in ("fp16-mixed", "fp16-true"))


def test_the_spread_would_show_dropped_updates() -> None:
    """The control: with every fourth update left out, the same comparison fails."""

    class Lazy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            self.calls = getattr(self, "calls", 0) + 1
            return None if self.calls % 4 == 0 else super().step(closure)

    def lazy(model: nn.Module) -> torch.optim.Optimizer:
        return Lazy(model.parameters(), lr=0.05, momentum=0.9, fused=True)

    last = [
        [r.loss for r in run("bf16-mixed", seed=seed, make=make)][-10:] for make in (sgd, lazy) for seed in range(5)
    ]
    means = [statistics.fmean(losses) for losses in last]
    spread = statistics.stdev(means[:5])
    assert any(abs(a - b) >= spread / 5 for a, b in zip(means[:5], means[5:], strict=True))


@pytest.mark.parametrize("settings", [{"max_norm": 0.1}, {"micro_batches": 4}, {"max_norm": 0.1, "micro_batches": 2}])
def test_clipping_and_micro_batches_in_the_graph(settings: dict[str, Any]) -> None:
    eager, ours = list(run(**settings)), list(run(**settings, **BOTH))
    assert abs(skips(eager) - skips(ours)) <= 1
    assert [r.loss for r in eager[:20]] == pytest.approx([r.loss for r in ours[:20]], rel=5e-2)
    plain = list(run(**BOTH))
    if "max_norm" in settings:
        assert plain[-1].loss < 0.9 * ours[-1].loss, "clipped that much, it learns slower"


def test_a_batch_with_inf_is_skipped_and_the_scale_follows() -> None:
    """Where nothing is near a limit, skips and scales are those of the uncompiled step exactly."""

    class Faulty(Shifted):
        def batch(self, step: int) -> tuple[Tensor, Tensor]:
            inputs, targets = super().batch(step)
            return (inputs * torch.inf if step % 7 == 3 else inputs), targets

    def train(**settings: Any) -> Run:
        model = net()
        return fit(model, Faulty(), optimizer=sgd(model), steps=40, policy=Policy.preset("fp16-mixed"),
                   scaler=LossScaler(DynamicScale(2.0**8, growth_interval=4)), engine="native", **settings)  # fmt: skip

    eager, ours = list(train()), list(train(**BOTH))
    assert [(r.scale, r.skipped) for r in eager] == [(r.scale, r.skipped) for r in ours]
    assert [r.step for r in ours if r.skipped] == list(range(3, 40, 7))
    stopped = train(**BOTH)
    for record in stopped:
        if record.step == 2:
            before = [p.detach().clone() for p in stopped.model.parameters()]
        if record.step == 3:
            break
    assert all(torch.equal(p, q) for p, q in zip(before, stopped.model.parameters(), strict=True))


def test_bf16_after_fp16_is_bf16() -> None:
    """Torch before 2.13 takes the program of the first for the second, whose gradients then overflow."""
    half, other = (list(run(policy, scale=2.0**40, steps=4, **BOTH)) for policy in ("fp16-mixed", "bf16-mixed"))
    assert all(record.skipped for record in half)
    assert not any(record.skipped for record in other)


def test_a_resumed_run_is_bit_equal() -> None:
    whole, first, second = run(**BOTH), run(**BOTH), run(**BOTH)
    records = list(whole)
    for _ in range(25):
        next(first)
    second.load_state_dict(first.state_dict())
    assert list(second) == records[25:]


def test_dropout_draws_anew_in_every_replay() -> None:
    model, (x, y) = net(dropout=0.5), Shifted().batch(0)
    still = torch.optim.SGD(model.parameters(), lr=0.0, fused=True)
    step = CapturedStep(TrainStep(model, still, Policy.preset("bf16-mixed"), LossScaler(), F.cross_entropy, "native",
                                  compile=True), x, y)  # fmt: skip
    losses = {float(step(x, y)[0]) for _ in range(20)}
    assert len(losses) > 15


def test_it_never_waits() -> None:
    model = net()
    work = TrainStep(model, sgd(model), Policy.preset("fp16-mixed"), LossScaler(), F.cross_entropy, "native",
                     compile=True, max_norm=1.0, micro_batches=2)  # fmt: skip
    step, data = CapturedStep(work, *Shifted().batch(0)), Shifted()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for k in range(20):
                step(*data.batch(k))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not [one for one in caught if "synchroniz" in str(one.message)]


def test_wrappers_and_a_transformer() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 20, (8, 17), device="cuda")

    class Text:
        def batch(self, step: int) -> tuple[Tensor, Tensor]:
            return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def train(**settings: Any) -> list[StepRecord]:
        model = Transformer(20, seed=1).cuda()
        keeper = MasterWeights(torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True), BF16)
        return list(fit(model, Text(), optimizer=keeper, steps=40, policy=Policy.preset("bf16-mixed"), engine="native",
                        **settings))  # fmt: skip

    eager, ours = train(), train(**BOTH)
    assert [r.loss for r in eager[:20]] == pytest.approx([r.loss for r in ours[:20]], rel=2e-2)
    assert ours[-1].loss < 0.8 * ours[0].loss


def test_seeds_train_at_once() -> None:
    def train(**settings: Any) -> list[StepRecord]:
        model = MLP(seeds=range(3)).cuda()
        return list(fit(model, Shifted(), optimizer=sgd(model), steps=15, policy=Policy.preset("bf16-mixed"),
                        engine="native", **settings))  # fmt: skip

    for a, b in zip(train(), train(**BOTH), strict=True):
        assert a.losses == pytest.approx(b.losses, rel=5e-2)


def test_compiled_without_a_graph_and_measured() -> None:
    records = list(run(compile=True, steps=25, measure_flushed=True))
    assert [r.step for r in records if r.flushed is not None] == [0, 20]
    assert records[-1].loss < records[0].loss


def test_nothing_of_a_run_stays_on_the_device() -> None:
    list(run(steps=5, **BOTH))
    gc.collect()
    before = torch.cuda.memory_allocated()
    for seed in range(3):
        list(run(steps=5, seed=seed, **BOTH))
    gc.collect()
    assert torch.cuda.memory_allocated() <= before + 2**20
