"""What `diagnose` says of the data, what only looks like it, and steps that stop or change what they are given."""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import Diagnosis, diagnose


@dataclass
class Pair:
    x: Tensor
    y: Tensor


@dataclass
class Slots:
    __slots__ = ("x", "y")
    x: Tensor
    y: Tensor


def model_and_data() -> tuple[nn.Module, Any, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(8, 3)
    return model, torch.optim.SGD(model.parameters(), 0.1), torch.randn(16, 8), torch.randint(0, 3, (16,))


def diagnosed(loss_of: Callable[..., Tensor], given: Any, closed: bool = False) -> Diagnosis:
    model, optimizer, _, _ = model_and_data()

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, batch).float()
        loss.backward()
        optimizer.step()
        return loss

    if closed:
        return diagnose(lambda: step(given), model=model, optimizer=optimizer)
    return diagnose(step, model=model, optimizer=optimizer, batch=given)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("form", ["dataclass", "slots", "object", "UserDict", "numpy", "closure"])
def test_bad_data_is_found_in_whatever_holds_it(form: str, bad: float) -> None:
    _, _, x, y = model_and_data()
    x[3, 2] = bad
    before = x.clone()
    made: dict[str, Any] = {"dataclass": Pair(x, y), "slots": Slots(x, y), "object": SimpleNamespace(x=x, y=y),
                            "UserDict": UserDict(x=x, y=y), "numpy": (x.numpy(), y.numpy()),
                            "closure": Pair(x, y)}  # fmt: skip

    def loss(model: nn.Module, batch: Any) -> Tensor:
        parts = batch if isinstance(batch, tuple) else (batch["x"], batch["y"]) if form == "UserDict" else None
        inputs, labels = map(torch.as_tensor, parts or (batch.x, batch.y))
        return F.cross_entropy(model(inputs), labels)

    found = diagnosed(loss, made[form], closed=form == "closure")
    assert (found.kind, found.where) == ("data", "the batch"), str(found)
    assert "With this value set to 0 it is." in found.proof
    assert torch.equal(x.nan_to_num(), before.nan_to_num())


def test_what_nothing_holds_is_still_data() -> None:
    def loss(model: nn.Module, _: Any) -> Tensor:
        return model(_drawn()).square().mean()  # type: ignore[no-any-return]

    found = diagnosed(loss, torch.zeros(1))
    assert (found.kind, found.where) == ("data", "what the model is given"), str(found)


def _drawn() -> Tensor:
    return torch.tensor([[float("nan")] * 8])


def test_labels_that_nobody_reads_and_nan_that_is_handled_are_no_cause() -> None:
    _, _, x, _ = model_and_data()

    def constant(model: nn.Module, batch: Any) -> Tensor:
        h = model(batch[0].nan_to_num())
        return ((h - h) / (h - h).std()).mean()

    x[::3, 0] = math.nan
    for batch in ((x.nan_to_num(), torch.full((16,), -100)), (x,)):
        found = diagnosed(constant, batch)
        assert (found.kind, found.where.split(" (")[0]) == ("invalid", "div outside of the model"), str(found)
        assert "x / s.clamp(min=1e-6)" in found.cure


def test_what_is_made_between_batch_and_model_is_named() -> None:
    found = diagnosed(lambda model, x: model((x - x.mean()) / x.std()).square().mean(), torch.ones(16, 8))
    assert (found.kind, found.where.split(" (")[0]) == ("invalid", "div outside of the model"), str(found)


@pytest.mark.parametrize(("operation", "loss", "cure"), [
    ("exp", lambda h: (h.float() * 0 + 1506).exp().mean(), "x - x.max()"),
    ("softmax", lambda h: (h.float() - math.inf).softmax(-1).mean(), "mask.all(-1"),
    ("log", lambda h: h.float().clamp(max=0).log().mean(), "clamp(min=1e-12)"),
    ("sqrt", lambda h: (h.float() * 0).sqrt().mean(), "safe.sqrt()"),
])  # fmt: skip
def test_the_cure_fits_the_operation(operation: str, loss: Callable[[Tensor], Tensor], cure: str) -> None:
    found = diagnosed(lambda model, x: loss(model(x)), torch.ones(4, 8))
    assert (found.kind, operation in found.where, cure in found.cure) == ("invalid", True, True), str(found)


def test_a_step_that_stops_at_nan_itself_is_diagnosed() -> None:
    def checked(model: nn.Module, x: Tensor) -> Tensor:
        loss = ((model(x).half() * 60000) * 10).float().square().mean()
        assert loss.isfinite(), "loss is NaN"
        return loss

    found = diagnosed(checked, torch.ones(4, 8))
    assert (found.kind, found.where.split(" ")[0]) == ("overflow", "mul"), str(found)
    assert "the step stops there with AssertionError: loss is NaN" in found.cause
    found = diagnosed(checked, torch.full((4, 8), math.nan))
    assert found.kind == "data", str(found)
    with pytest.raises(AssertionError, match="odd"):
        diagnosed(lambda model, x: model(x).mean() if x.shape[0] % 2 else _raise("odd"), torch.ones(4, 8))


def _raise(text: str) -> Tensor:
    raise AssertionError(text)


def test_a_batch_that_is_changed_in_place_is_put_back_and_told() -> None:
    _, _, x, _ = model_and_data()
    before = x.clone()
    found = diagnosed(lambda model, batch: model(batch.sub_(batch.mean()).mul_(2)).square().mean(), x)
    assert found.healthy, str(found)
    assert "The step changes its batch in place; it was put back before each run." in found.cause
    assert torch.equal(x, before)


# ---- the loop ----


@pytest.mark.parametrize("clears", [False, True])
def test_update_forgotten(clears: bool) -> None:
    model, optimizer, x, _ = model_and_data()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(x: Tensor) -> Tensor:
        if clears:
            optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = model(x).float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        return loss  # type: ignore[no-any-return]

    found = diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=x)
    assert (found.kind, found.where) == ("order", "scaler.update (missing)"), str(found)
    assert "A second step raised RuntimeError: step() has already been called" in found.proof


def test_a_stale_cast_is_found_under_dropout() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(x).float().square().mean()
        loss.backward()
        optimizer.step()
        return loss

    with torch.autocast("cpu", torch.bfloat16):
        found = diagnose(step, model=model, optimizer=optimizer, batch=torch.randn(32, 8))
    assert found.kind == "stale cast", str(found)


@pytest.mark.parametrize("form", ["dropped", "divided", "used"])
def test_a_scaled_loss_that_nobody_uses(form: str) -> None:
    """Controls: the scaled loss itself, and one that is divided by the number of micro-batches afterwards."""
    model, optimizer, x, _ = model_and_data()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = model(x).float().square().mean()
        scaled = scaler.scale(loss)
        {"dropped": loss, "divided": scaled / 4, "used": scaled}[form].backward()
        scaler.step(optimizer)
        scaler.update()
        return loss  # type: ignore[no-any-return]

    found = diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=x)
    expected = ("order", "scaler.scale (its result is not used)") if form == "dropped" else ("healthy", "")
    assert (found.kind, found.where) == expected, str(found)
