"""What `guard` adds to a healthy step: operations and waits are counted, no clock is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mpkit import LossScaler, guard

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))


class Calls(TorchDispatchMode):
    """The name of every operation, in order; a `_foreach_copy_` with the number of dtypes that it is given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.names.append(f"{name} of {len({t.dtype for t in args[0]})}" if name == "_foreach_copy_" else name)
        return func(*args, **(kwargs or {}))


def training(fused: bool, scaler: Any) -> tuple[nn.Module, torch.optim.Optimizer, Callable[[Tensor], None]]:
    torch.manual_seed(0)
    layers = [layer for _ in range(6) for layer in (nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=fused)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return model, optimizer, step


def calls_of(step: Callable[[Tensor], object], x: Tensor = X) -> list[str]:
    for _ in range(2):
        step(x)
    with Calls() as calls:
        step(x)
    return calls.names


SCALERS = {
    "GradScaler": lambda: torch.amp.GradScaler("cpu", init_scale=4.0),
    "LossScaler": lambda: LossScaler(init_scale=4.0),
}


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize("fused", [False, True])
def test_a_healthy_step_costs_two_copies_and_waits_for_no_optimizer(fused: bool, kind: str) -> None:
    """18 buffers of two dtypes: two calls. The flag of a fused optimizer is copied before the optimizer begins."""
    scaler = SCALERS[kind]()
    _, _, plain = training(fused, scaler)
    before = calls_of(plain)
    scaler = SCALERS[kind]()
    model, optimizer, step = training(fused, scaler)
    after = calls_of(guard(step, model, optimizer, scaler))
    added = {name: after.count(name) - before.count(name) for name in set(after)}
    added = {name: count for name, count in added.items() if count}
    # Two clones of one number: the scale that the step ran with, and the flag.
    flag = {"clone": 2, "_local_scalar_dense": 1} if fused else {"clone": 1}
    assert added == {"_foreach_copy_ of 1": 2} | flag
    if fused:
        waits = [place for place, name in enumerate(after) if name == "_local_scalar_dense"]
        first = after.index("_fused_sgd_")
        assert "clone" in after[first - 3 : first]
        assert first < waits[-1]


def test_the_modules_are_walked_once_until_one_of_them_is_new() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    model, optimizer, step = training(False, scaler)
    walks: list[int] = []
    modules = model.modules
    model.modules = lambda: walks.append(1) or modules()  # type: ignore[assignment, func-returns-value]
    guarded = guard(step, model, optimizer, scaler)
    for _ in range(4):
        guarded(X)
    assert len(walks) == 1
    model.append(nn.BatchNorm1d(8))  # type: ignore[operator]
    for _ in range(3):
        guarded(X)
    assert len(walks) == 2
    before = [b.clone() for b in model.buffers()]
    guarded(X * torch.inf)
    assert len(before) == 21
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))


@pytest.mark.parametrize("change", ["another object", "another name", "another dtype", "another shape"])
def test_a_buffer_that_is_changed_between_two_steps_is_kept_as_it_is_now(change: str) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    model, optimizer, step = training(False, scaler)
    model.register_buffer("mean", torch.zeros(2))

    def counting(x: Tensor) -> None:
        step(x)
        for name, buffer in model.named_buffers(recurse=False):
            getattr(model, name).copy_(buffer + 1)

    guarded = guard(counting, model, optimizer, scaler)
    guarded(X)
    if change == "another object":
        model.mean = torch.full((2,), 7.0)
    elif change == "another name":
        model.other = model.mean
        del model.mean
    elif change == "another dtype":
        model.mean.data = torch.full((2,), 1e-30, dtype=torch.float64)  # type: ignore[union-attr]
    else:
        model.mean.data = torch.full((3,), 7.0)  # type: ignore[union-attr]
    before = {name: b.clone() for name, b in model.named_buffers()}
    guarded(X * torch.inf)
    after = dict(model.named_buffers())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], b) and after[name].dtype == b.dtype for name, b in before.items())
