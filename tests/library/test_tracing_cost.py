"""What trace adds to a step on a GPU: kernels that are started, counted on a CPU that takes the GPU's way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mpkit import extremes
from mpkit.course.nets.resnet import ResNet
from mpkit.course.nets.transformer import Transformer
from mpkit.policy.policy import Policy
from mpkit.tracing import glance as reading
from mpkit.tracing import ledger as trace_ledger
from mpkit.tracing.watch import trace

# They start nothing on a device.
VIEWS = frozenset("detach view permute t transpose unsqueeze expand slice select _unsafe_view alias".split())


def as_on_a_gpu(group: list[Tensor]) -> list[Tensor]:
    if len(group) <= extremes.FEW:
        return [torch.linalg.vector_norm(tensor, math.inf) for tensor in group]
    return list(torch._foreach_norm(group, math.inf))


@pytest.fixture(autouse=True)
def the_way_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "extremes", as_on_a_gpu)
    monkeypatch.setattr(reading, "IMMEDIATE", set())


class Kernels(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.started: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ not in VIEWS:
            self.started[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def counted(step: Callable[[], object]) -> Counter[str]:
    with Kernels() as kernels:
        step()
    return kernels.started


def block() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8), nn.LayerNorm(8))


def test_a_step_of_small_tensors_is_read_by_two_kernels() -> None:
    """One before anything runs, for parameters and data, and one for all results."""
    model, x = nn.Sequential(*(block() for _ in range(6))), torch.randn(2, 3, 8)

    def plain() -> None:
        model(x).square().mean().backward()

    def traced() -> None:
        with trace(model):
            plain()

    plain()
    without, added = counted(plain), counted(traced)
    added.subtract(without)
    assert +added == {"_foreach_norm": 2, "stack": 1}
    assert sum(without.values()) > 100, "or else it would be nothing to boast of"


def test_large_results_are_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel for many tensors reads memory more slowly than one for a single tensor."""
    monkeypatch.setattr(trace_ledger, "SMALL", 0)
    model, x = block(), torch.randn(2, 3, 8)
    with torch.no_grad(), trace(model):
        started = counted(lambda: model(x))
    assert started["linalg_vector_norm"] == 4  # the four layers
    assert started["_foreach_norm"] == 1  # all parameters, before the pass


def resnet() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = ResNet(10, ((8, 3), (16, 4), (16, 6), (16, 3)), 8)  # as many layers as ResNet-50, on small images
    return model, torch.randn(2, 3, 32, 32), torch.randint(0, 10, (2,))


def transformer() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Transformer(96, width=256, layers=1, heads=8, context=128)
    return model, torch.randint(0, 96, (4, 128)), torch.randint(0, 96, (4, 128))  # results of 1 MiB


@pytest.mark.parametrize(("make", "most"), [(resnet, 60), (transformer, 5)])
def test_what_a_watched_training_step_starts(make: Callable[[], tuple[nn.Module, Tensor, Tensor]], most: int) -> None:
    """A result is read once: alone if something is about to overwrite it, as a ReLU in place, else with all others.

    In this ResNet 49 ReLUs overwrite what a batch norm or a sum has made.
    """
    model, inputs, targets = make()
    loss_fn = getattr(model, "loss", nn.functional.cross_entropy)
    policy = Policy.preset("fp16-mixed")

    def plain() -> None:
        with policy.apply(model, engine="native"):
            loss = loss_fn(model(inputs), targets)
        loss.backward()

    def traced() -> None:
        with trace(model) as watched:
            plain()
        assert watched.first is None

    plain()
    without, added = counted(plain), counted(traced)
    added.subtract(without)
    assert set(+added) <= {"linalg_vector_norm", "_foreach_norm", "stack"}, "nothing is copied or converted"
    assert (+added).total() <= most < without.total() / 5, added


def test_buffers_are_read_before_a_batch_norm_writes_into_them() -> None:
    """Its running variance is Inf only after the pass: this pass was not given a bad one."""
    model = nn.BatchNorm1d(1)
    with trace(model) as watched:
        model(torch.tensor([[1e20], [-1e20]]))
    assert model.running_var is not None
    assert model.running_var.isinf().all()
    assert not any(event.kind == "input" for event in [*watched.events, *watched.harmless])


@pytest.mark.parametrize("change", ["mul_", "setitem", "out", "relu", "gradients", "foreach"])
def test_what_waits_is_read_before_it_changes(change: str) -> None:
    """An Inf that is overwritten a moment later is found all the same."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((3,), 10.0))

        def forward(self, x: Tensor) -> Tensor:
            y = self.weight * x
            if change == "mul_":
                y = y.detach().mul_(0.0)
            elif change == "setitem":
                y = y.detach()
                y[...] = 0.0
            elif change == "out":
                y = y.detach()
                torch.mul(x, 0.0, out=y)
            elif change == "relu":
                y = nn.functional.relu(y, inplace=True)
            elif change == "foreach":
                y = y.detach()
                torch._foreach_zero_([y])
            return y

    model = Model()
    with trace(model) as watched:
        if change == "gradients":
            y = model(torch.full((3,), 1e37))
            ((y - y.detach()) * 100).sum().backward()
            assert model.weight.grad is not None
            with torch._C.DisableTorchFunction():  # as LossScaler does it
                model.weight.grad.zero_()
        else:
            model(torch.full((3,), -1e38 if change == "relu" else 1e38))
    found = [(event.kind, event.phase) for event in [*watched.events, *watched.harmless]]
    assert found[:1] == [("overflow", "backward" if change == "gradients" else "forward")]
