"""`diagnose` where a scaler refuses: usual mistakes are named, and any other error is raised as it came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import Diagnosis, LossScaler, diagnose

SCALERS: dict[str, Callable[[], Any]] = {"torch": lambda: torch.amp.GradScaler("cpu"), "own": lambda: LossScaler("cpu")}
HEALTHY = "zero_grad scale backward unscale_ step update"


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(64, 16, generator=draw), torch.randint(0, 4, (64,), generator=draw)


def loop(calls: str, scaler: Any, half: bool = False, by_hand: float | None = None) -> tuple[Any, Any, Any]:
    """A step that makes these calls."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    model = model.half() if half else model
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(given: tuple[Tensor, Tensor]) -> Tensor:
        x, y = given
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(x.half() if half else x).float(), y)
        now = loss if by_hand is None else loss * by_hand
        for call in calls.split():
            if call == "scale":
                now = scaler.scale(loss)
            elif call == "asked":
                now = loss * scaler.get_scale()
            elif call == "zero_grad":
                optimizer.zero_grad()
            elif call == "backward":
                now.backward(retain_graph=True)
            elif call == "update":
                scaler.update()
            else:
                getattr(scaler, call)(optimizer)
        return loss.detach()

    return model, optimizer, step


def diagnosed(calls: str, kind: str, ran: str = "", given: bool = True, **options: Any) -> Diagnosis:
    scaler = SCALERS[kind]()
    model, optimizer, step = loop(calls, scaler, **options)
    if ran:
        scaler.scale(torch.ones(()))  # as in a training that has run
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        scaler.unscale_(optimizer)
        scaler.update()
        optimizer.zero_grad()
    before = [p.detach().clone() for p in model.parameters()], str(scaler.state_dict())
    more = {"scaler": scaler} if given else {}
    found = diagnose(step, model=model, optimizer=optimizer, batch=batch(), **more)
    assert all(torch.equal(a, b) for a, b in zip(before[0], model.parameters(), strict=True))
    assert str(scaler.state_dict()) == before[1]
    return found


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    ("calls", "where", "told"),
    [
        ("zero_grad backward step update", "scaler.scale (missing)", "zero_grad → backward → scaler.step."),
        ("backward unscale_ step update", "scaler.scale (missing)", "backward → scaler.unscale_."),
        ("scale backward update", "scaler.step (missing)", "scaler.scale → backward → scaler.update."),
        (
            "scale backward step step",
            "scaler.step (twice without scaler.update)",
            "backward → scaler.step → scaler.step.",
        ),
        ("scale backward step step update", "scaler.step (twice without scaler.update)", "scaler.step → scaler.step."),
        ("scale backward step unscale_", "unscale_", "scaler.scale → backward → scaler.step → scaler.unscale_."),
        ("scale backward unscale_ unscale_", "unscale_", "backward → scaler.unscale_ → scaler.unscale_."),
    ],
)
def test_calls_that_a_scaler_refuses(calls: str, where: str, told: str, kind: str, given: bool) -> None:
    found = diagnosed(calls, kind, given=given)
    assert (found.kind, found.where) == ("order", where), str(found)
    assert found.proof.endswith(told), str(found)


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize("given", [True, False])
def test_weights_in_fp16(kind: str, given: bool) -> None:
    found = diagnosed(HEALTHY, kind, half=True, given=given)
    assert (found.kind, found.where) == ("refused", "parameter 0.weight"), str(found)
    assert "4 of 4 parameters" in found.cause
    assert "With weights in FP32 the scaler takes them." in found.proof
    assert diagnosed(HEALTHY, kind, half=False).healthy  # which the proof says


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize("given", [True, False])
def test_scale_is_forgotten_in_a_training_that_has_run(kind: str, given: bool) -> None:
    """No scaler refuses that: gradients are 1/65,536 of what they should be."""
    found = diagnosed("zero_grad backward unscale_ step update", kind, ran="before", given=given)
    assert (found.kind, found.where) == ("order", "scaler.scale (missing)"), str(found)
    assert "65,536" in found.cause


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize(
    ("calls", "by_hand"), [("zero_grad asked backward step update", None), ("zero_grad backward step update", 65536.0)]
)
def test_a_loss_that_is_scaled_by_hand_is_healthy(calls: str, by_hand: float | None, kind: str) -> None:
    assert diagnosed(calls, kind, ran="before", by_hand=by_hand).healthy


def test_an_iterator_that_ends_is_told_of() -> None:
    scaler = SCALERS["torch"]()
    model, optimizer, step = loop(HEALTHY, scaler)
    batches = iter([batch()])
    with pytest.raises(StopIteration) as raised:
        diagnose(lambda: step(next(batches)), model=model, optimizer=optimizer, scaler=scaler)
    assert "pass it: batch=" in raised.value.__notes__[0]


def test_any_other_error_is_raised() -> None:
    scaler = SCALERS["torch"]()
    model, optimizer, step = loop(HEALTHY, scaler)
    with pytest.raises(ValueError, match="not enough values") as raised:
        diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=(1,))
    assert not hasattr(raised.value, "__notes__")
