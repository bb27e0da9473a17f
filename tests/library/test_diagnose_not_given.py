"""`diagnose` puts back what a step uses and nobody named: its scaler is examined all the same, an average is kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mpkit import LossScaler, diagnose


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(64, 16, generator=draw), torch.randint(0, 4, (64,), generator=draw)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 4))


def scaled(model: nn.Module, optimizer: Any, scaler: Any, between: Callable[[], object] = lambda: None) -> Any:
    def step(given: tuple[Tensor, Tensor]) -> Tensor:
        x, y = given
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        between()
        scaler.step(optimizer)
        scaler.update()
        return loss

    return step


def torch_scaler(exponent: int) -> Any:
    return torch.amp.GradScaler("cpu", init_scale=2.0**exponent)


def own_scaler(exponent: int) -> Any:
    return LossScaler("cpu", init_scale=2.0**exponent)


@pytest.mark.parametrize("make", [torch_scaler, own_scaler])
@pytest.mark.parametrize("exponent", range(19, 24))
@pytest.mark.parametrize("ran", [0, 2])
def test_a_scaler_that_was_not_given_is_found_by_its_calls(make: Any, exponent: int, ran: int, recwarn: Any) -> None:
    """The oracle is the same diagnosis with the scaler given, and the scaler's own state before and after."""
    told = []
    for given in (True, False):
        model, scaler = net(), make(exponent)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        step = scaled(model, optimizer, scaler)
        for _ in range(ran):
            step(batch())
        state = copy.deepcopy(scaler.state_dict())
        options = {"scaler": scaler} if given else {}
        found = diagnose(step, model=model, optimizer=optimizer, batch=batch(), **options)
        told.append(str(found))
        assert found.healthy, str(found)
        assert str(scaler.state_dict()) == str(state)
        step(batch())  # as an iteration that begins anew
    assert told[0] == told[1]
    assert not recwarn.list


def test_a_fault_of_the_loop_is_found_without_the_scaler() -> None:
    model, scaler = net(), torch_scaler(16)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    step = scaled(model, optimizer, scaler, lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.1))
    found = diagnose(step, model=model, optimizer=optimizer, batch=batch())
    assert (found.kind, found.where) == ("order", "clip_grad_norm_ (before unscale_)"), str(found)
    assert scaler.state_dict() == torch_scaler(16).state_dict()


def test_a_second_scaler_is_named_and_put_back() -> None:
    model, scaler, other = net(), torch_scaler(16), torch_scaler(10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    inner = scaled(model, optimizer, scaler)

    def step(given: tuple[Tensor, Tensor]) -> Tensor:
        loss: Tensor = inner(given)
        other.scale(loss.detach())
        other.update(1.0)
        return loss

    with pytest.warns(UserWarning, match="the step uses GradScaler, which diagnose was not given"):
        assert diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=batch()).healthy
    assert other.get_scale() == 2.0**10


@pytest.mark.parametrize("bad", [math.nan, 0.5])
def test_an_average_that_was_not_given(bad: float) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average.update_parameters(model)
    x, y = batch()
    x[0, 0] = bad

    def step(given: tuple[Tensor, Tensor]) -> Tensor:
        loss = F.cross_entropy(model(given[0]), given[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)
        return loss

    before = {name: t.clone() for name, t in average.state_dict().items()}
    with pytest.warns(UserWarning, match="the step uses AveragedModel, which diagnose was not given.*ema="):
        found = diagnose(step, model=model, optimizer=optimizer, batch=(x, y))
    assert found.kind == ("data" if math.isnan(bad) else "healthy"), str(found)
    after = average.state_dict()
    assert all(torch.equal(after[name], t) for name, t in before.items())
    assert int(average.n_averaged) == 1
