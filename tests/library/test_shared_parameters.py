"""Two optimizers that share parameters: each gradient is divided once, and GradScaler's bits are the oracle."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from mpkit import LossScaler


class Two:
    """An encoder with two heads, and an optimizer for each head with the encoder."""

    def __init__(self, fused: bool = False) -> None:
        torch.manual_seed(0)
        self.encoder, self.heads = nn.Linear(4, 4), [nn.Linear(4, 1), nn.Linear(4, 1)]
        self.groups = [[*self.encoder.parameters(), *head.parameters()] for head in self.heads]
        self.optimizers = [torch.optim.SGD(group, lr=0.1, momentum=0.9, fused=fused) for group in self.groups]

    def loss(self, task: int, step: int, bad: bool) -> Tensor:
        x = torch.full((2, 4), 0.1 * (step + 1))
        out = self.heads[task](self.encoder(x)).square().mean()
        return out * math.inf if bad else out

    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten() for group in self.groups for p in group]).view(torch.int32)


def iterate(two: Two, scaler: Any, step: int, set_to_none: bool, parts: int, clip: bool) -> None:
    for task, optimizer in enumerate(two.optimizers):
        optimizer.zero_grad(set_to_none=set_to_none)
        for part in range(parts):
            scaler.scale(two.loss(task, step + part, bad=step % 4 == task + 1)).backward()
        if clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(two.groups[task], 0.1)
        scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_each_with_a_gradient_of_its_own(set_to_none: bool, parts: int, clip: bool, fused: bool) -> None:
    ours, theirs = (Two(fused), LossScaler("cpu")), (Two(fused), GradScaler("cpu"))
    for step in range(8):
        for two, scaler in (ours, theirs):
            iterate(two, scaler, step, set_to_none, parts, clip)
        assert torch.equal(ours[0].weights(), theirs[0].weights())
        assert ours[1].get_scale() == theirs[1].get_scale()


@pytest.mark.parametrize("set_to_none", [True, False])
def test_two_optimizers_over_the_same_list(set_to_none: bool) -> None:
    """An Inf that the first one finds skips its step, not the second's."""
    weights = []
    for scaler in (LossScaler("cpu"), GradScaler("cpu")):
        p = nn.Parameter(torch.zeros(3))
        optimizers = [torch.optim.SGD([p], lr=1.0), torch.optim.SGD([p], lr=0.5)]
        for gradients in ((1.0, 2.0), (math.inf, 2.0), (1.0, math.nan), (3.0, 4.0)):
            for optimizer, gradient in zip(optimizers, gradients, strict=True):
                optimizer.zero_grad(set_to_none=set_to_none)
                scaler.scale((p * gradient).sum()).backward()
                scaler.step(optimizer)
            scaler.update()
        weights.append((p.tolist(), scaler.get_scale()))
    assert weights[0] == weights[1]
    assert weights[0][0] == [-1.0 - 1.0 - 1.0 - 1.0 - 3.0 - 2.0] * 3


def clip_norm(group: list[Tensor]) -> None:
    nn.utils.clip_grad_norm_(group, 0.01)


def clip_value(group: list[Tensor]) -> None:
    nn.utils.clip_grad_value_(group, 0.01)


@pytest.mark.parametrize("between", [lambda group: None, clip_norm, clip_value])
@pytest.mark.parametrize("first", ["step", "unscale_"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_is_not_divided_twice(first: str, between: Callable[[list[Tensor]], None], fused: bool) -> None:
    """Clipping writes to it, too, but a backward() that follows no scale() cannot be a new gradient."""
    two, scaler = Two(fused), LossScaler()
    for task in (0, 1):
        scaler.scale(two.loss(task, 0, False)).backward()
    getattr(scaler, first)(two.optimizers[0])
    between(two.groups[0])
    with pytest.raises(RuntimeError, match=r"already unscaled .* no backward\(\) has written it anew.* zero_grad\(\)"):
        scaler.step(two.optimizers[1])


@pytest.mark.parametrize("clip", [False, True])
def test_a_stale_gradient_beside_a_new_one_is_not_divided_twice(clip: bool) -> None:
    """The second loss reaches its own head only; the encoder's gradient is the first step's still."""
    two, scaler = Two(), LossScaler()
    scaler.scale(two.loss(0, 0, False)).backward()
    scaler.unscale_(two.optimizers[0])
    if clip:
        clip_norm(two.groups[0])
    scaler.step(two.optimizers[0])
    scaler.scale(two.heads[1](torch.ones(2, 4)).sum()).backward()
    with pytest.raises(RuntimeError, match="already unscaled"):
        scaler.step(two.optimizers[1])
    two.encoder.zero_grad()
    scaler.step(two.optimizers[1])
    scaler.update()


def test_a_gradient_at_the_place_of_one_that_is_gone_is_new() -> None:
    """Python gives the id of the old one to it, and it was written to as often."""
    p, scaler = nn.Parameter(torch.zeros(1)), LossScaler("cpu")
    optimizers = [torch.optim.SGD([p, nn.Parameter(torch.zeros(1))], lr=1.0), torch.optim.SGD([p], lr=1.0)]
    ids = set()
    for step in range(20):
        optimizer = optimizers[step % 2]
        p.grad = None
        p.grad = torch.full((1,), 65536.0)
        ids.add(id(p.grad))
        scaler.scale(torch.ones(()))
        scaler.step(optimizer)
        if step % 2:
            scaler.update()
    assert p.item() == -20.0
    assert len(ids) < 20


def test_marks_keep_no_gradient_alive() -> None:
    p, scaler = nn.Parameter(torch.zeros(1)), LossScaler()
    scaler.scale(p.sum()).backward()
    optimizer = torch.optim.SGD([p], lr=1.0)
    scaler.step(optimizer)
    held = weakref.ref(p.grad)
    optimizer.zero_grad()
    assert held() is None
