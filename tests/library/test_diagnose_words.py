"""What `diagnose` says reads well and is meant: bad arguments, numbers of one, tests that cannot be made, limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import Diagnosis, LossScaler, diagnose, guard
from mpkit.diagnosis.words import counted

SCALERS: dict[str, Callable[[], Any]] = {"torch": lambda: torch.amp.GradScaler("cpu"), "own": lambda: LossScaler("cpu")}
LIMIT = 0.05


def by_norm(p: list[Tensor], limit: float) -> None:
    nn.utils.clip_grad_norm_(p, limit)


def by_value(p: list[Tensor], limit: float) -> None:
    nn.utils.clip_grad_value_(p, limit / 50)


def clipped(kind: str, clip: Callable[..., None], limit_of: Callable[[Any], float], early: bool) -> Diagnosis:
    torch.manual_seed(0)
    model, scaler = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4)), SCALERS[kind]()
    optimizer, asked = torch.optim.SGD(model.parameters(), 0.1), []
    draw = torch.Generator().manual_seed(1)
    batch = torch.randn(64, 16, generator=draw), torch.randint(0, 4, (64,), generator=draw)

    def step(given: tuple[Tensor, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(given[0]), given[1])
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if early:
            asked.append(scaler.get_scale())  # as for a log
        clip(list(model.parameters()), limit_of(scaler))
        scaler.step(optimizer)
        asked.append(scaler.get_scale())  # as for a scheduler
        scaler.update()
        return loss

    return diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=batch)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("clip", [by_norm, by_value])
@pytest.mark.parametrize("kind", SCALERS)
def test_a_limit_that_is_scaled_like_the_gradients_is_meant(kind: str, clip: Any, early: bool) -> None:
    """Clipping scaled gradients at limit x scale is clipping at the limit; a plain limit is the fault."""
    assert clipped(kind, clip, lambda scaler: LIMIT * scaler.get_scale(), early).healthy
    assert clipped(kind, clip, lambda scaler: LIMIT, early).kind == "order"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scaler": "x"}, r"scaler must have scale, unscale_, step, update, state_dict, but str came; pass the scaler"),
        ({"scheduler": "abc"}, r"scheduler must have step, state_dict, but str came; pass the scheduler"),
        ({"scheduler": [0]}, r"scheduler must have step, state_dict, but int came; pass the scheduler"),
        ({"scaler": torch.optim.SGD([torch.zeros(1)], 0.1)}, r"scaler must have .*, but SGD came"),
    ],
)
def test_bad_arguments(options: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        diagnose(lambda: None, model=nn.Linear(1, 1), **options)


def test_guard_refuses_what_is_no_scaler() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(TypeError, match="scaler must be a LossScaler or a GradScaler, but str came"):
        guard(lambda: None, model, torch.optim.SGD(model.parameters(), 0.1), "x")


def test_one_value_is_one() -> None:
    assert (counted(1), counted(2), counted(2000)) == ("1 value that is", "2 values that are", "2,000 values that are")
    model = nn.Linear(4, 2)
    x = torch.ones(8, 4)
    x[1, 1] = math.nan
    said = str(diagnose(lambda given: model(given).sum().backward(), model=model, batch=x))
    assert "The batch holds 1 value that is Inf or NaN." in said
    assert "With this value set to 0 it is." in " ".join(said.split())
    x[2, 2] = math.nan
    said = str(diagnose(lambda given: model(given).sum().backward(), model=model, batch=x))
    assert "The batch holds 2 values that are Inf or NaN." in said


class Needs16(nn.Module):
    """What comes behind exp takes nothing but FP16."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 2).half()

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.inner(x) * 0 + 12.0).half().exp())  # type: ignore[no-any-return]


def test_a_test_that_cannot_be_made_is_no_fault_of_the_script() -> None:
    torch.manual_seed(0)
    model = Needs16()
    said = str(diagnose(lambda x: model(x).float().mean().backward(), model=model, batch=torch.ones(8, 4)))
    assert said.startswith("overflow: exp"), said
    assert "cannot be tried, what comes behind it does not take its result" in " ".join(said.split())
    assert "RuntimeError" not in said
