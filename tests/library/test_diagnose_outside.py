"""`diagnose` where a step makes -Inf before its model: a mask for softmax, and the cause of NaN for anything else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import diagnose

KINDS = {"gelu": nn.GELU, "tanh": nn.Tanh, "relu": nn.ReLU}


def batch(worst: float) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(64, 16, generator=draw).abs() + 0.1
    x[7, 3] = worst
    return x, torch.randint(0, 4, (64,), generator=draw)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, None])
@pytest.mark.parametrize("inner", KINDS)
@pytest.mark.parametrize("worst", [0.0, -0.5, 0.5])
def test_log_of_0_in_front_of_the_model(dtype: torch.dtype | None, inner: str, worst: float) -> None:
    """The oracle: with the feature above 0 the same step is healthy; nothing else differs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), KINDS[inner](), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(given: tuple[Tensor, Tensor]) -> Tensor:
        x, y = given
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            loss = F.cross_entropy(model(x.log()), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    before = [p.detach().clone() for p in model.parameters()]
    found = diagnose(step, model=model, optimizer=optimizer, batch=batch(worst))
    kind = "healthy" if worst > 0 else "invalid"
    assert found.kind == kind, str(found)
    assert found.where.startswith("log outside of the model" if worst <= 0 else ""), str(found)
    assert found.steps <= 8
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class Masked(nn.Module):
    """Takes an additive mask, beside numbers under a root."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, mask: Tensor, x: Tensor) -> Tensor:
        scores = (self.inner(x) + mask).softmax(-1)
        return scores[:, :4] + (self.inner(x) * 0).sqrt().mean()


class Softmax(nn.Module):
    """Takes an additive mask, and nothing else goes wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, mask: Tensor, x: Tensor) -> Tensor:
        return (self.inner(x) + mask).softmax(-1)[:, :4]


def masking(model: nn.Module, mask: Tensor) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(given: tuple[Tensor, Tensor]) -> Tensor:
        loss = F.cross_entropy(model(mask.log(), given[0]), given[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return diagnose(step, model=model, optimizer=optimizer, batch=batch(0.5))


def test_a_mask_that_was_made_by_log_is_not_blamed_for_a_root() -> None:
    torch.manual_seed(0)
    mask = torch.ones(64, 16)
    mask[:, 9:] = 0
    found = masking(Masked(), mask)
    assert found.kind == "invalid"
    assert "sqrt" in found.where, str(found)


def test_a_mask_that_was_made_by_log_and_masks_a_whole_row() -> None:
    torch.manual_seed(0)
    mask = torch.ones(64, 16)
    mask[:, 9:] = 0
    assert masking(Softmax(), mask).healthy
    mask[5] = 0
    found = masking(Softmax(), mask)
    assert found.kind == "invalid"
    assert "softmax" in found.where, str(found)
    assert "masked" in found.cure
