"""Two optimizers in one loop: what is done with the gradients of each is judged, whichever was named first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import LossScaler, diagnose

FAULTS = {
    "none": ("healthy", ""),
    "clipped before unscale_": ("order", "clip_grad_norm_ (before unscale_), of the optimizer of "),
    "values clipped before unscale_": ("order", "clip_grad_value_ (before unscale_), of the optimizer of "),
    "unscaled twice": ("order", "unscale_ (made twice), of the optimizer of "),
}


class Prepared:
    """What a framework makes of an optimizer."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.param_groups = optimizer, [dict(group) for group in optimizer.param_groups]


def gan(
    fault: str, whose: int, scaler: Any, clips: bool = True
) -> tuple[nn.ModuleList, list[Any], Callable[[Any], Any]]:
    """A critic's turn, then the generator's; `whose` of the two has the fault."""
    torch.manual_seed(0)
    parts = nn.ModuleList([nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))])
    optimizers = [torch.optim.SGD(part.parameters(), 0.01) for part in parts]

    def turn(number: int, loss: Tensor) -> None:
        has, optimizer, part = fault if number == whose else "none", optimizers[number], parts[number]
        scaler.scale(loss).backward()
        if has == "values clipped before unscale_":
            nn.utils.clip_grad_value_(part.parameters(), 1.0)
        elif has == "unscaled twice":
            scaler.unscale_(Prepared(optimizer))
        elif clips and has != "clipped before unscale_":
            scaler.unscale_(optimizer)
        if clips:
            nn.utils.clip_grad_norm_(part.parameters(), 1.0)
        if has == "steps past the scaler":
            optimizer.step()
        else:
            scaler.step(optimizer)

    def step(batch: Tensor) -> Tensor:
        real, noise = batch
        optimizers[1].zero_grad()
        fake = parts[0](noise)
        turn(1, F.softplus(-parts[1](real)).mean() + F.softplus(parts[1](fake.detach())).mean())
        optimizers[0].zero_grad()
        loss = F.softplus(-parts[1](fake)).mean()
        turn(0, loss)
        scaler.update()
        return loss

    return parts, optimizers, step


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("whose", [0, 1])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_of_either_is_named(fault: str, whose: int, first: int, ours: bool) -> None:
    if ours and fault == "unscaled twice":
        pytest.skip("LossScaler refuses it")
    scaler: Any = LossScaler(init_scale=1024.0) if ours else torch.amp.GradScaler("cpu", init_scale=1024.0)
    parts, optimizers, step = gan(fault, whose, scaler)
    given = [optimizers[first], optimizers[1 - first]]
    found = diagnose(step, model=parts, optimizer=given, scaler=scaler, batch=torch.randn(2, 64, 8))
    kind, where = FAULTS[fault]
    named = f"{where}{whose}." if where else ""
    assert (found.kind, found.where[: len(named)]) == (kind, named), str(found)


@pytest.mark.parametrize("whose", [0, 1])
def test_gradients_that_still_carry_the_scale(whose: int) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    parts, optimizers, step = gan("steps past the scaler", whose, scaler, clips=False)
    found = diagnose(step, model=parts, optimizer=optimizers, scaler=scaler, batch=torch.randn(2, 64, 8))
    assert (found.kind, found.where[:45]) == ("order", f"scaler.step (missing), of the optimizer of {whose}."), str(
        found
    )
