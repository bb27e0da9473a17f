"""What `diagnose` asks of a healthy step: its runs, its waits and its copies are counted, no clock is asked."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mpkit import Diagnosis, diagnose


class Words(nn.Module):
    """An embedding of which a batch uses a fifth, and layers without zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.inner, self.norm = nn.Embedding(100, 16), nn.Linear(16, 16), nn.LayerNorm(16)
        self.head = nn.Linear(16, 100)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(F.gelu(self.inner(self.words(x)))))  # type: ignore[no-any-return]


def training(
    scaler: Any, look: Callable[[], object] = lambda: None
) -> tuple[nn.Module, Any, Callable[[Tensor], Tensor]]:
    torch.manual_seed(0)
    model = Words()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(x).float(), x)
        loss = loss if scaler is None else scaler.scale(loss)
        loss.backward()
        look()
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            look()
            scaler.update()
        return loss.detach() / (1 if scaler is None else scaler.get_scale())  # type: ignore[no-any-return]

    return model, optimizer, step


def diagnosed(scaler: Any = None, look: Callable[[], object] = lambda: None) -> Diagnosis:
    model, optimizer, step = training(scaler, look)
    x = torch.arange(64) % 20
    for _ in range(2):
        step(x)
    return diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=x)


def test_a_healthy_step_runs_four_times_with_a_scaler_and_thrice_without() -> None:
    """No step after a planted Inf, which the next one clears, and a second FP32 run only where gradients differ."""
    found = diagnosed(torch.amp.GradScaler("cpu", init_scale=64.0))
    assert found.healthy, str(found)
    assert [test.split(":")[0] for test in found.tests] == ["as it is", "again", "an Inf planted", "in FP32"]
    assert found.steps == 4
    assert "In FP32 its gradients differ by" in found.proof
    assert diagnosed().steps == 3


def test_what_would_run_the_step_more_often_than_it_may_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """And said so; what is known by then may still be a diagnosis."""
    monkeypatch.setattr(sys.modules["mpkit.diagnosis.diagnose"], "MOST", 2)
    found = diagnosed(torch.amp.GradScaler("cpu", init_scale=64.0))
    assert (found.healthy, found.steps) == (True, 2)
    assert found.tests[2:] == (
        "on a skip: not tried, the step has run 2 times",
        "lost digits: not tried, the step has run 2 times",
    )


@pytest.mark.parametrize("lost", [False, True])
def test_gradients_that_are_half_zeros_are_held_against_fp32(lost: bool) -> None:
    """Zeros that FP32 has too, of ReLUs that are off, and zeros that it has not."""
    torch.manual_seed(0)
    model = nn.Linear(8, 8)
    optimizer, x = torch.optim.SGD(model.parameters(), lr=0.1), torch.randn(16, 8)

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        y = model(x)[:, :3]
        with torch.autocast("cpu", torch.float16):
            loss = F.linear(y, torch.ones(1, 3)).float().mean() * (1e-9 if lost else 1)
        loss.backward()
        optimizer.step()
        return loss

    found = diagnose(step, model=model, optimizer=optimizer, batch=x)
    assert found.kind == ("underflow" if lost else "healthy"), str(found)
    assert "in FP32: finite" in found.tests
    assert lost or "In FP32 its gradients differ by" in found.proof


def test_rows_of_an_embedding_that_nothing_used_are_no_zeros_but_lost_ones_are() -> None:
    """The gradient that reaches the embedding is lost on the way, in FP16: all of its rows are 0."""
    torch.manual_seed(0)
    model = Words()
    optimizer, x = torch.optim.SGD(model.parameters(), lr=0.1), torch.arange(64) % 20

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = F.linear(model.words(x), model.inner.weight).float().mean() * 1e-7
        loss.backward()
        optimizer.step()
        return loss

    found = diagnose(step, model=model, optimizer=optimizer, batch=x)
    assert (found.kind, found.where) == ("underflow", "gradient words.weight"), str(found)


class Rounded(TorchDispatchMode):
    """How often something was asked whether it is a whole number: each is a wait for the device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ == "round"
        return func(*args, **(kwargs or {}))


def test_weights_and_activations_are_not_taken_for_integers() -> None:
    with Rounded() as rounded:
        assert diagnosed().healthy
    assert rounded.count == 0


def test_it_holds_twelve_times_the_parameters_where_training_with_adam_holds_four() -> None:
    """Counted at the points where most is held: in the step, behind backward and behind the optimizer."""
    held: list[int] = []

    def look() -> None:
        tensors = [t for t in gc.get_objects() if type(t) in (Tensor, nn.Parameter) and t.layout == torch.strided]
        tensors += [t.grad for t in tensors if t.is_leaf and t.grad is not None]
        held.append(sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}.values()))

    gc.collect()
    look()
    before = held.pop()
    assert diagnosed(torch.amp.GradScaler("cpu", init_scale=64.0), look).healthy
    size = 4 * sum(p.numel() for p in Words().parameters())
    plain, peak = ((n - before) / size for n in (held[3], max(held)))
    assert plain == pytest.approx(4, abs=1.5)  # activations of a small model count as well
    assert peak < 13.5
