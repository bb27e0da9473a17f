"""`guard`: a bad step changes nothing and is named; a good one is what it would have been."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import LossScaler, guard
from mpkit.diagnosis import Guard, GuardEvent
from mpkit.scaling import DynamicScale

BAD = 5


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.dropout = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.2)
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.norm(self.inner(x)).relu()))  # type: ignore[no-any-return]


def data() -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    batches = [torch.randn(32, 8, generator=draw) for _ in range(10)]
    batches[BAD] = batches[BAD] * 4e5
    return [(x, x.sum(1, keepdim=True).clamp(-9, 9)) for x in batches]


def training(kind: str, fused: bool = False) -> tuple[nn.Module, Any, Any, Any]:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, fused=fused)
    scaler: Any = {"none": None, "GradScaler": torch.amp.GradScaler("cpu", init_scale=1024.0),
                   "LossScaler": LossScaler(DynamicScale(1024.0))}[kind]  # fmt: skip

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = F.mse_loss(model(batch[0]).float(), batch[1])
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return loss.detach()

    return model, optimizer, scaler, step


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", ["none", "GradScaler", "LossScaler"])
def test_a_bad_step_is_withheld_and_named_and_the_others_are_as_without(kind: str, fused: bool) -> None:
    """The control trains without the bad batch, and ends where the guarded one does, but for other dropout masks."""
    plain, _, plain_scaler, plain_step = training(kind, fused)
    model, optimizer, scaler, step = training(kind, fused)
    guarded = guard(step, model, optimizer, scaler)
    torch.manual_seed(2)
    for number, batch in enumerate(data()):
        state = torch.get_rng_state()
        loss = guarded(batch)
        if number == BAD:
            after = torch.get_rng_state()
            continue
        torch.set_rng_state(state)
        assert torch.equal(loss, plain_step(batch)) or number > BAD
    assert after is not None
    [event] = guarded.events
    assert (event.step, event.scale) == (BAD, 1.0 if kind == "none" else 1024.0)
    assert event.first is not None
    assert event.first.module == "inner"
    assert str(event).startswith(f"step {BAD} withheld at scale")
    assert all(bool(t.isfinite().all()) for t in model.state_dict().values())
    for (name, ours), theirs in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        if "num_batches" not in name:
            torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)
    if scaler is not None:
        assert scaler.get_scale() == plain_scaler.get_scale() / 2


def test_without_it_the_same_batch_ruins_the_model() -> None:
    """Power of the test above: the average of batch norm, and without a scaler the weights."""
    for kind in ("none", "GradScaler"):
        model, _, _, step = training(kind)
        for batch in data():
            step(batch)
        assert not bool(model.norm.running_mean.isfinite().all())  # type: ignore[operator, union-attr]


def test_the_rerun_leaves_no_trace() -> None:
    """Right after a bad step: everything is as before it, but for the scaler, which has adapted."""
    model, optimizer, scaler, step = training("GradScaler")
    guarded = guard(step, model, optimizer, scaler)
    for batch in data()[:BAD]:
        guarded(batch)
    before, moments = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    guarded(data()[BAD])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for p, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(v, moments["state"][p][k]) for k, v in state.items())
    assert scaler.get_scale() == 512.0
    assert not model._forward_hooks
    assert "step" not in vars(optimizer)


def test_it_tells_and_keeps() -> None:
    model, optimizer, scaler, step = training("LossScaler")
    told: list[GuardEvent] = []
    guarded = Guard(step, model, optimizer, scaler, tell=told.append, keep=2)
    for _ in range(3):
        guarded(data()[BAD])
    assert [event.step for event in told] == [0, 1, 2]
    assert [event.step for event in guarded.events] == [1, 2]


def test_a_step_that_is_finite_when_it_runs_again_says_so() -> None:
    model, optimizer, scaler, step = training("GradScaler")
    flaw = [float("inf"), 1.0]

    def flawed(batch: Any) -> Tensor:
        return step((batch[0] * flaw.pop(0), batch[1]))  # type: ignore[no-any-return]

    guarded = guard(flawed, model, optimizer, scaler)
    guarded(data()[0])
    assert "run again, it was finite" in str(guarded.events[0])


@pytest.mark.parametrize(("arguments", "text"), [
    ((3, nn.Linear(1, 1), None), r"step must be a function that trains on a batch, but int came\."),
    ((print, 3, None), r"model must be an nn\.Module, but int came\."),
    ((print, nn.Linear(1, 1), None), r"optimizer must be a torch optimizer or a list of them, but NoneType came\."),
])  # fmt: skip
def test_bad_arguments_are_refused(arguments: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        guard(*arguments)
