"""What `diagnose` remarks beside a diagnosis: gradients that nobody clears, and parameters that get none."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import diagnose

ADDS = "adds to gradients that were there"


class Cut(nn.Module):
    """Its first layer gets no gradient, if it is cut off."""

    def __init__(self, cut: bool) -> None:
        super().__init__()
        self.a, self.b, self.cut = nn.Linear(16, 32), nn.Linear(32, 4), cut

    def forward(self, x: Tensor) -> Tensor:
        inner = self.a(x)
        return self.b((inner.detach() if self.cut else inner).relu())  # type: ignore[no-any-return]


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(64, 16, generator=draw), torch.randint(0, 4, (64,), generator=draw)


def loop(cut: bool = False, cleared: str = "before", scaled: bool = False) -> tuple[Any, Any, Any, Any]:
    torch.manual_seed(0)
    model = Cut(cut)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)

    def step(given: tuple[Tensor, Tensor]) -> Tensor:
        if cleared == "before":
            optimizer.zero_grad()
        if cleared == "by hand":
            for p in model.parameters():
                p.grad = None
        with torch.autocast("cpu", torch.float16, enabled=scaled):
            loss = F.cross_entropy(model(given[0]), given[1])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if cleared == "after":
            model.zero_grad()
        return loss.detach()

    return model, optimizer, scaler if scaled else None, step


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("ran", [1, 5])
def test_gradients_that_are_never_cleared(scaled: bool, ran: int) -> None:
    """The oracle for the numbers: the norms by hand, of the step's gradients and of the batch's alone."""
    model, optimizer, scaler, step = loop(cleared="never", scaled=scaled)
    for _ in range(ran):
        step(batch())
    grads = [p.grad.clone() for p in model.parameters()]
    values = [p.detach().clone() for p in model.parameters()]
    found = diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=batch())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    assert all(torch.equal(p, v) for p, v in zip(model.parameters(), values, strict=True))
    assert found.steps <= 8
    if scaled:
        assert (found.kind, found.where) == ("order", "zero_grad (missing)"), str(found)
    else:
        assert found.healthy, str(found)
        assert ADDS in found.cause
        alone = torch.autograd.grad(F.cross_entropy(model(batch()[0]), batch()[1]), list(model.parameters()))
        whole = torch.cat([(a + b).flatten() for a, b in zip(alone, grads, strict=True)]).norm()
        one = torch.cat([a.flatten() for a in alone]).norm()
        said = re.search(r"norm is (\S+) after it, of this batch alone ([\d.]+)", found.cause)
        assert said, found.cause
        assert [float(n) for n in said.groups()] == pytest.approx([float(whole), float(one)], rel=1e-2)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("cleared", ["before", "after", "by hand"])
@pytest.mark.parametrize("ran", [0, 3])
def test_gradients_that_are_cleared(cleared: str, ran: int, scaled: bool) -> None:
    model, optimizer, scaler, step = loop(cleared=cleared, scaled=scaled)
    for _ in range(ran):
        step(batch())
    found = diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=batch())
    assert found.healthy, str(found)
    assert ADDS not in found.cause
    assert "No gradient reached" not in found.cause


def test_a_loop_that_clears_outside_of_the_step() -> None:
    """Before its first backward pass nothing is there: nothing is said of it."""
    model, optimizer, _, step = loop(cleared="never")
    step(batch())
    optimizer.zero_grad()
    found = diagnose(step, model=model, optimizer=optimizer, batch=batch())
    assert found.healthy, str(found)
    assert ADDS not in found.cause


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("cut", [False, True])
def test_parameters_that_get_no_gradient(cut: bool, scaled: bool) -> None:
    model, optimizer, scaler, step = loop(cut=cut, scaled=scaled)
    found = diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=batch())
    assert found.healthy, str(found)
    assert ("No gradient reached a.weight, a.bias, which the optimizer holds." in found.cause) == cut, str(found)
    model.a.requires_grad_(False)  # then it is meant
    quiet = diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=batch())
    assert "No gradient reached" not in quiet.cause


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("ran", [0, 2])
def test_what_an_optimizer_makes_in_16_bits_is_not_measured(kind: Any, half: bool, ran: int) -> None:
    torch.manual_seed(0)
    dtype = torch.bfloat16 if half else torch.float32
    model = Cut(False).to(dtype)
    optimizer = kind(model.parameters(), 0.3)

    def step(given: tuple[Tensor, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(given[0].to(dtype)).float(), given[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(ran):
        step(batch())
    found = diagnose(step, model=model, optimizer=optimizer, batch=batch())
    assert found.healthy, str(found)
    assert ("whether they move, not by how much." in found.proof) == half, str(found)
