"""`guard` and what else a loop has: averages of weights, schedulers, and several optimizers."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mpkit import guard

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
SCALED = pytest.mark.parametrize("scaled", [False, True])
FUSED = pytest.mark.parametrize("fused", [False, True])


def parts(scaled: bool, fused: bool = False) -> tuple[nn.Sequential, list[torch.optim.SGD], torch.amp.GradScaler]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    split = [model[0].parameters(), [*model[1].parameters(), *model[3].parameters()]]
    optimizers = [torch.optim.SGD(some, 0.01, momentum=0.9, fused=fused) for some in split]
    return model, optimizers, torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)


def finite(module: nn.Module) -> bool:
    return all(bool(t.isfinite().all()) for t in module.state_dict().values())


@FUSED
@SCALED
@pytest.mark.parametrize("given", ["one", "a list"])
def test_an_average_with_buffers_stays_finite(scaled: bool, fused: bool, given: str) -> None:
    """It reads the buffers inside of the step, behind the optimizer: they are back by then."""
    model, optimizers, scaler = parts(scaled, fused)
    average = AveragedModel(model, avg_fn=lambda old, new, _: 0.9 * old + 0.1 * new, use_buffers=True)
    if given == "one":
        optimizers = [torch.optim.SGD(model.parameters(), 0.01, fused=fused)]

    def step(x: Tensor) -> None:
        model.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = model(x).float().square().mean()
        scaler.scale(loss).backward()
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        average.update_parameters(model)

    guarded = guard(step, model, optimizers if given == "a list" else optimizers[0], scaler)
    for number in range(6):
        before = [b.clone() for b in model.buffers()]
        guarded(X * 1e6 if number == 3 else X)
        assert number != 3 or all(map(torch.equal, before, model.buffers()))
    assert len(guarded.events) == 1
    assert finite(model)
    assert finite(average)
    assert int(average.n_averaged) == 6  # what follows the optimizer happens once


def one_loss(model: nn.Sequential, optimizers: list[Any], scaler: Any) -> Any:
    def step(x: Tensor) -> None:
        model.zero_grad()
        scaler.scale(model(x).square().mean()).backward()
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()

    return step


@SCALED
def test_each_of_several_optimizers_is_withheld_for_its_own_gradients(scaled: bool) -> None:
    """As torch's GradScaler does it, with a scaler and without one; both, where the loss is NaN."""
    model, optimizers, scaler = parts(scaled)
    guarded = guard(one_loss(model, optimizers, scaler), model, optimizers, scaler)
    guarded(X)
    for bad in (X * float("nan"), torch.full_like(X, float("inf"))):
        before = {name: t.clone() for name, t in model.state_dict().items()}
        guarded(bad)
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert [event.first is not None for event in guarded.events] == [True, True]


@SCALED
@pytest.mark.parametrize("whose", [0, 1])
def test_the_rerun_ends_at_the_optimizer_whose_gradients_were_bad(whose: int, scaled: bool) -> None:
    """Two turns, as of a critic and a generator: the other one's step is taken, once, and the cause is named."""
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(8, 1), nn.Linear(8, 1)])
    optimizers = [torch.optim.Adam(one.parameters(), 0.01) for one in model]
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=scaled)

    def step(x: Tensor, bad: bool = False) -> None:
        for number, (one, optimizer) in enumerate(zip(model, optimizers, strict=True)):
            optimizer.zero_grad()
            loss = one(x).square().mean()
            scaler.scale((loss - loss.detach()).sqrt() if bad and number == whose else loss).backward()
            scaler.step(optimizer)
        scaler.update()

    guarded = guard(step, model, optimizers, scaler)
    guarded(X)
    before = [one.weight.detach().clone() for one in model]
    guarded(X, bad=True)
    moved = [not torch.equal(was, one.weight) for was, one in zip(before, model, strict=True)]
    assert moved == [whose == 1, whose == 0]
    assert [int(one.state[p]["step"]) for one, p in zip(optimizers, (m.weight for m in model), strict=True)] == [
        1 + moved[0], 1 + moved[1]
    ]  # fmt: skip
    [event] = guarded.events
    assert event.first is not None
    assert event.first.operation == "sqrt"


def test_one_that_was_not_given_is_told_of_once() -> None:
    model, optimizers, scaler = parts(False)
    guarded = guard(one_loss(model, optimizers, scaler), model, optimizers[0])
    with pytest.warns(UserWarning, match=r"uses SGD, which trains parameters of the model .* optimizer=\[…\]\."):
        guarded(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guarded(X)
        guard(one_loss(model, optimizers, scaler), model, optimizers)(X)
    with pytest.raises(TypeError, match=r"optimizer must be a torch optimizer or a list of them, but int came\."):
        guard(print, model, [optimizers[0], 3])
