"""`diagnose` puts back what a step changes: also what was assigned anew, what is a tensor, and what nobody named."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import LossScaler, diagnose, guard, optim
from mpkit.formats import BF16


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(64, 8, generator=draw), torch.randint(0, 4, (64,), generator=draw)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def loop(model: nn.Module, optimizer: Any, *after: Any) -> Any:
    """A healthy iteration; `after` step behind the optimizer."""
    x, y = batch()

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        for one in after:
            one.step()
        return loss

    return step


class Average(nn.Module):
    """Keeps a mean of its outputs in a buffer that is a new tensor each time, and that takes part."""

    avg: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 4)
        self.register_buffer("avg", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        self.avg = 0.5 * self.avg + 0.5 * y.detach().mean(0)
        return y + self.avg


def test_a_buffer_that_is_assigned_anew() -> None:
    torch.manual_seed(0)
    model = Average()
    optimizer, before = torch.optim.SGD(model.parameters(), lr=0.1), model.avg
    found = diagnose(loop(model, optimizer), model=model, optimizer=optimizer)
    assert found.healthy, str(found)
    assert model.avg is before
    assert not bool(before.any())


def test_a_learning_rate_that_is_a_tensor() -> None:
    model, rate = net(), torch.tensor(0.01)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, foreach=False)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    step = loop(model, optimizer, scheduler)
    step()
    groups, last = copy.deepcopy(optimizer.state_dict()["param_groups"]), scheduler.get_last_lr()
    assert diagnose(step, model=model, optimizer=optimizer, scheduler=scheduler).healthy
    assert optimizer.param_groups[0]["lr"] is rate
    assert optimizer.state_dict()["param_groups"] == groups
    assert scheduler.get_last_lr() == last


def test_inside_autocast_the_next_forward_pass_uses_the_weights_that_are_there() -> None:
    """A cast of a stepped weight may not stay in autocast's cache."""
    model, x = net(), batch()[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        diagnose(loop(model, optimizer), model=model, optimizer=optimizer)
        after = model(x)
        torch.clear_autocast_cache()
        assert torch.equal(after, model(x))


def gan() -> tuple[nn.ModuleList, torch.optim.Adam, torch.optim.Adam, Any, Any]:
    torch.manual_seed(0)
    model, critic = nn.Linear(8, 8), nn.Linear(8, 1)
    optimizer, other = torch.optim.Adam(model.parameters(), 0.01), torch.optim.Adam(critic.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(other, 1, 0.5)
    real, noise = batch()[0], torch.randn(64, 8)

    def step() -> Tensor:
        other.zero_grad()
        (F.softplus(-critic(real)).mean() + F.softplus(critic(model(noise).detach())).mean()).backward()
        other.step()
        scheduler.step()
        optimizer.zero_grad()
        loss = F.softplus(-critic(model(noise))).mean()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(3):
        step()
    return nn.ModuleList([model, critic]), optimizer, other, scheduler, step


@pytest.mark.parametrize("whole", [False, True])
def test_an_optimizer_and_a_scheduler_that_were_not_given(whole: bool) -> None:
    modules, optimizer, other, scheduler, step = gan()
    before, moments = copy.deepcopy(modules.state_dict()), str(other.state_dict())
    with pytest.warns(UserWarning, match=r"the step uses Adam, StepLR, which diagnose was not given: .* Pass all"):
        found = diagnose(step, model=modules if whole else modules[0], optimizer=optimizer)
    assert found.healthy, str(found)
    assert all(torch.equal(v, before[k]) for k, v in modules.state_dict().items())
    assert str(other.state_dict()) == moments
    assert scheduler.last_epoch == 3


@pytest.mark.parametrize("kind", [list, tuple])
def test_several_optimizers_and_schedulers(kind: Any, recwarn: Any) -> None:
    modules, optimizer, other, scheduler, step = gan()
    moments = str(other.state_dict())
    found = diagnose(step, model=modules, optimizer=kind([optimizer, other]), scheduler=kind([scheduler]))
    assert found.healthy, str(found)
    assert (str(other.state_dict()), scheduler.last_epoch) == (moments, 3)
    assert not [str(w.message) for w in recwarn if "diagnose" in str(w.message)]


def test_the_moments_of_every_optimizer_are_looked_at() -> None:
    modules, optimizer, other, scheduler, step = gan()
    other.state[modules[1].weight]["exp_avg"].fill_(torch.inf)  # type: ignore[index]
    found = diagnose(step, model=modules, optimizer=[optimizer, other], scheduler=scheduler)
    assert (found.kind, found.where) == ("poisoned state", "moment 1.weight.exp_avg")


def test_what_is_no_optimizer_is_refused() -> None:
    model = net()
    with pytest.raises(TypeError, match=r"optimizer must be a torch optimizer or a list of them, but int came\."):
        diagnose(print, model=model, optimizer=[torch.optim.SGD(model.parameters()), 3])


def test_numpys_random_numbers() -> None:
    model, (x, y) = net(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x + torch.from_numpy(np.random.randn(64, 8)).float()), y)
        loss.backward()
        optimizer.step()
        return loss

    np.random.seed(0)
    assert diagnose(step, model=model, optimizer=optimizer).healthy
    drawn = np.random.rand()
    np.random.seed(0)
    assert drawn == np.random.rand()


def test_a_step_that_draws_a_new_batch_each_time() -> None:
    model, (x, y) = net(), batch()
    optimizer, batches = torch.optim.SGD(model.parameters(), lr=0.1), iter([(x * k, y) for k in range(1, 30)])

    def step() -> Tensor:
        optimizer.zero_grad()
        inputs, targets = next(batches)
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss

    found = diagnose(step, model=model, optimizer=optimizer)
    assert (found.kind, found.where) == ("not repeatable", "the batch")
    assert "the step draws a new batch each time" in found.cause
    assert "pass it: batch=" in found.cure


def test_a_group_that_the_step_adds_goes_again() -> None:
    model = net()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    scaler, random = torch.amp.GradScaler("cpu", init_scale=64.0), torch.get_rng_state()
    inner = loop(model, optimizer)

    def step() -> Tensor:
        if len(optimizer.param_groups) == 1:
            optimizer.add_param_group({"params": list(model[2].parameters())})
        return inner()  # type: ignore[no-any-return]

    group = optimizer.param_groups[0]
    assert diagnose(step, model=model, optimizer=optimizer, scaler=scaler).kind in ("healthy", "order")
    assert optimizer.param_groups == [group]
    assert optimizer.param_groups[0] is group
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_was_frozen_before_an_error(error: type[BaseException]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inner, before = loop(model, optimizer), copy.deepcopy(model.state_dict())

    def step() -> None:
        inner()
        model[0].weight.requires_grad_(False)
        model.eval()
        raise error("no")

    with pytest.raises(error):
        diagnose(step, model=model, optimizer=optimizer)
    assert model[0].weight.requires_grad
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_what_a_wrapper_keeps_beside_the_weights() -> None:
    """Master weights, compensations, the generator of stochastic rounding."""
    x, y = batch()
    for wrap in (optim.MasterWeights, optim.Kahan, lambda inner, fmt: optim.Rounded(inner, fmt, "stochastic")):
        model = net().bfloat16()
        optimizer = wrap(torch.optim.SGD(model.parameters(), lr=0.1), BF16)  # type: ignore[operator]

        def step(model: Any = model, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.bfloat16()).float(), y)
            loss.backward()
            optimizer.step()
            return loss

        step()
        before = str(optimizer.state_dict())
        diagnose(step, model=model, optimizer=optimizer)
        assert str(optimizer.state_dict()) == before


def test_guard_puts_back_a_learning_rate_and_numpys_numbers() -> None:
    """What a bad step draws in its rerun is not drawn."""
    model, (x, y) = net(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = LossScaler()

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x * float(np.random.rand()) * torch.inf), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    guarded = guard(step, model, optimizer, scaler)
    np.random.seed(0)
    guarded()
    drawn = np.random.rand()
    np.random.seed(0)
    assert np.random.rand(2)[1] == drawn
    assert len(guarded.events) == 1
