"""The science of lesson 03 with five seeds: which updates arrive, and who needs a master copy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch.optim import Optimizer

from mpkit import BF16, FP16, Policy, cast, fit
from mpkit.course.nets.digits import Digits, digits
from mpkit.course.nets.models import MLP, SeedsNet
from mpkit.course.runs.experiments import Outcome, Variant, compare
from mpkit.optim.wrappers import Kahan, MasterWeights, Rounded

SEEDS = range(5)
FP32 = Policy()
KEEPERS: dict[str, Callable[[Optimizer], Optimizer]] = {
    "nearest": lambda optimizer: Rounded(optimizer, BF16),
    "stochastic": lambda optimizer: Rounded(optimizer, BF16, "stochastic"),
    "Kahan": lambda optimizer: Kahan(optimizer, BF16),
    "FP32 master": lambda optimizer: MasterWeights(optimizer, BF16),
}


@cache
def images() -> Digits:
    return digits()


def train(names: list[str], optimizer: Callable[[SeedsNet], Optimizer], steps: int) -> dict[str, Outcome]:
    """FP32 and these keepers of BF16 weights; the score is the accuracy in percent."""
    return compare(
        [Variant("FP32", FP32), *(Variant(name, FP32, wrap=KEEPERS[name]) for name in names)],
        lambda: MLP(seeds=SEEDS), images().classification(), optimizer, steps,
        score=lambda net: 100 * net.accuracy(images().test_images, images().test_labels),  # type: ignore[operator]
        measure_flushed=False,
    )  # fmt: skip


def points_lost(runs: dict[str, Outcome], name: str) -> np.ndarray:
    """Accuracy in FP32 minus accuracy of this run, seed by seed."""
    return np.subtract(runs["FP32"].scores, runs[name].scores)


def test_with_adam_bf16_weights_need_a_keeper_and_any_of_the_three_will_do() -> None:
    runs = train(list(KEEPERS), lambda net: torch.optim.Adam(net.parameters(), lr=1e-4, fused=True), steps=200)
    assert min(points_lost(runs, "nearest")) > 10
    for name in ("stochastic", "Kahan", "FP32 master"):
        assert max(abs(points_lost(runs, name))) < 1.5, name
    lost = {name: run.lost for name, run in runs.items()}
    assert lost.pop("FP32") is None
    assert lost["nearest"] > 0.75
    assert 0.5 < lost["stochastic"] < lost["nearest"], "the weight stays as often as not, and nothing is missing"
    assert max(lost["Kahan"], lost["FP32 master"]) < 0.02


def test_sgd_loses_half_of_its_updates_and_less_than_a_point() -> None:
    runs = train(["nearest"], lambda net: torch.optim.SGD(net.parameters(), lr=0.1), steps=420)
    assert min(runs["FP32"].scores) > 93, "and it is not because nothing was learned"
    assert (runs["nearest"].lost or 0) > 0.48
    assert max(abs(points_lost(runs, "nearest"))) < 1


def test_sgd_with_a_tenth_of_the_learning_rate_loses_most_of_what_fp32_learns() -> None:
    runs = train(["nearest"], lambda net: torch.optim.SGD(net.parameters(), lr=0.01), steps=420)
    assert min(runs["FP32"].scores) > 35
    assert (runs["nearest"].lost or 0) > 0.9
    assert min(points_lost(runs, "nearest")) > 15


def last_update(optimizer: Callable[[SeedsNet], Optimizer], steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All weights before the last of some steps, and what that step adds to them."""
    net = MLP(seeds=SEEDS)
    before = torch.empty(0)
    for record in fit(net, images().classification(), optimizer=optimizer(net), steps=steps, measure_flushed=False):
        if record.step == steps - 2:
            before = torch.cat([p.detach().flatten() for p in net.parameters()])
    after = torch.cat([p.detach().flatten() for p in net.parameters()])
    return before, after - before


def lost_in_one_step(optimizer: Callable[[SeedsNet], Optimizer], steps: int) -> tuple[float, float]:
    """Share of the updates and share of the way that BF16 loses in the last of some steps."""
    before, update = last_update(optimizer, steps)
    weight = before.bfloat16().float()
    lost = (update != 0) & ((weight + update).bfloat16().float() == weight)
    return float(lost.sum() / (update != 0).sum()), float(update[lost].abs().sum() / update.abs().sum())


@pytest.mark.parametrize("steps", [51, 101, 201])
def test_sgd_loses_small_updates_and_adam_most_of_the_way(steps: int) -> None:
    count, way = lost_in_one_step(lambda net: torch.optim.SGD(net.parameters(), lr=0.1), steps)
    assert count > 0.4
    assert way < 0.2
    count, way = lost_in_one_step(lambda net: torch.optim.Adam(net.parameters(), lr=1e-4), steps)
    assert min(count, way) > 0.5


def test_adam_s_later_steps_are_shorter() -> None:
    _, update = last_update(lambda net: torch.optim.Adam(net.parameters(), lr=1e-4), steps=101)
    assert 0.4e-4 < update[update != 0].abs().median().item() < 0.75e-4, "after 100 steps of Adam"


def test_adam_s_first_step_is_the_learning_rate_for_every_weight() -> None:
    net = MLP(seeds=SEEDS)
    net.loss(net(images().train_images[:64]), images().train_labels[:64]).sum().backward()
    before = [p.detach().clone() for p in net.parameters()]
    torch.optim.Adam(net.parameters(), lr=1e-4).step()
    steps = torch.cat([(p - b)[p.grad != 0].abs() for p, b in zip(net.parameters(), before, strict=True)])
    assert float(((steps / 1e-4 - 1).abs() < 0.01).float().mean()) > 0.95


@pytest.mark.parametrize(
    ("fmt", "dtype", "widest", "finest"), [(BF16, torch.bfloat16, 256, 512), (FP16, torch.float16, 2048, 4096)]
)
def test_the_limit_lies_between_two_powers_of_two(fmt, dtype, widest, finest) -> None:  # type: ignore[no-untyped-def]
    """The lesson's table: |u| > 2^-(m+1) |w| always arrives, |u| < 2^-(m+2) |w| never does."""
    weights = torch.linspace(1, 2, 100)[:-1].to(dtype).double()
    for factor, arrives in ((1.001 / widest, True), (0.999 / finest, False)):
        changed = (weights + factor * weights).to(dtype).double() != weights
        assert changed.unique().tolist() == [arrives]
        assert torch.equal(cast(weights + factor * weights, fmt) != weights, changed)
    one = torch.tensor(1.0, dtype=dtype)
    assert (one.double() + 1 / widest).to(dtype) == one, "a tie at 1 goes to the even 1"


def test_updates_that_fp16_flushes_on_their_own() -> None:
    values = torch.tensor([2.0**-24, 1.01 * 2.0**-25, 2.0**-25])
    assert values.half().tolist() == cast(values, FP16).tolist() == [2.0**-24, 2.0**-24, 0.0]


@pytest.mark.parametrize("fmt", [BF16, FP16], ids=str)
def test_master_weights_are_what_mixed_precision_does_with_fp32_parameters(fmt: object) -> None:
    """Twenty steps of the emulated autocast: the same losses and the same weights in the forward pass, to the bit."""
    policy = Policy.preset("bf16-mixed" if fmt is BF16 else "fp16-mixed")

    def run(wrap: Callable[[Optimizer], Optimizer]) -> tuple[list[tuple[float, ...]], list[torch.Tensor]]:
        net = MLP(seeds=range(2))
        optimizer = wrap(torch.optim.Adam(net.parameters(), lr=1e-3))
        records = list(fit(net, images().classification(), optimizer=optimizer, steps=20, policy=policy))
        return [r.losses for r in records], [cast(p.detach(), fmt) for p in net.parameters()]  # type: ignore[arg-type]

    losses, weights = run(lambda adam: adam)
    kept_losses, kept = run(lambda adam: MasterWeights(adam, fmt))  # type: ignore[arg-type]
    assert losses == kept_losses
    assert all(map(torch.equal, weights, kept))


def test_torch_s_autocast_keeps_fp32_parameters() -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(64, 10), torch.rand(8, 64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-6)
    before = layer.weight.detach().clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = layer(x)
    result.float().sum().backward()
    optimizer.step()
    assert layer.weight.grad is not None
    assert (result.dtype, layer.weight.dtype, layer.weight.grad.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert float((layer.weight != before).float().mean()) > 0.99, "even so small an update arrives"
    assert float((layer.weight.bfloat16() != before.bfloat16()).float().mean()) < 0.1, "BF16 would hardly show it"
