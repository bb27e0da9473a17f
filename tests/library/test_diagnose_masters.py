"""A step that keeps FP32 master weights by hand, as Apex and Megatron do, is healthy; one that forgets them is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import diagnose


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(64, 16, generator=draw), torch.randint(0, 4, (64,), generator=draw)


def net(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 4)
    )
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)  # equal to any other bias of this shape
    return model.to(dtype)


def training(dtype: torch.dtype, rate: float, copied_back: bool = True, scale: float = 1.0) -> Any:
    model = net(dtype)
    masters = [p.detach().float().clone().requires_grad_() for p in model.parameters()]
    twins = list(zip(masters, model.parameters(), strict=True))
    decayed = [t for t in masters if t.dim() > 1]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": [t for t in masters if t.dim() < 2]}], rate)

    def step(given: tuple[Tensor, Tensor]) -> Tensor:
        x, y = given
        loss = F.cross_entropy(model(x.to(dtype)).float(), y)
        model.zero_grad()
        (loss * scale).backward()
        for master, p in twins:
            assert p.grad is not None
            master.grad = p.grad.float() / scale
        optimizer.step()
        with torch.no_grad():
            for master, p in twins if copied_back else ():
                p.copy_(master)
        return loss

    return model, masters, optimizer, step


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rate", [0.0, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("ran", [0, 3])
def test_masters_that_are_copied_back_are_healthy(dtype: torch.dtype, rate: float, ran: int) -> None:
    """The oracle: over 200 steps the loss falls wherever the rate is one that trains. All state is bit-equal after."""
    model, masters, optimizer, step = training(dtype, rate)
    for _ in range(ran):
        step(batch())
    before = [t.detach().clone() for t in (*model.parameters(), *masters)]
    state = str(copy.deepcopy(optimizer.state_dict()))
    found = diagnose(step, model=model, optimizer=optimizer, batch=batch())
    assert found.healthy, str(found)
    assert all(torch.equal(a, b) for a, b in zip(before, (*model.parameters(), *masters), strict=True))
    assert str(optimizer.state_dict()) == state
    if rate >= 1e-4:
        first = float(step(batch()).detach())
        for _ in range(200):
            last = float(step(batch()).detach())
        assert last < first


def test_masters_that_are_not_copied_back() -> None:
    model, _, optimizer, step = training(torch.bfloat16, 1e-2, copied_back=False)
    assert diagnose(step, model=model, optimizer=optimizer, batch=batch()).kind == "not trained"


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_norm_that_was_replaced_is_no_master(set_to_none: bool) -> None:
    """The old one, which the optimizer holds, is equal to the new one: both are as they were built."""
    model = net(torch.float32)
    for p in model.parameters():
        p.requires_grad_(False)
    model[2].requires_grad_(True)
    optimizer = torch.optim.SGD(model[2].parameters(), 0.1)
    F.cross_entropy(model(batch()[0]), batch()[1]).backward()
    model[2] = nn.LayerNorm(64)

    def step(given: tuple[Tensor, Tensor]) -> Tensor:
        loss = F.cross_entropy(model(given[0]), given[1])
        optimizer.zero_grad(set_to_none=set_to_none)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    found = diagnose(step, model=model, optimizer=optimizer, batch=batch())
    assert (found.kind, found.where) == ("not trained", "2.weight, 2.bias"), str(found)


def test_gradients_that_are_0_in_fp16_are_found_in_front_of_masters() -> None:
    model, _, optimizer, step = training(torch.float16, 1e-3, scale=2.0**-16)
    found = diagnose(step, model=model, optimizer=optimizer, batch=batch())
    assert found.kind == "underflow", str(found)
