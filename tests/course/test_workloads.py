"""The peers' step: what it does on a first step that is skipped, and on one that is not."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from mpkit.course.nets import workloads
from mpkit.course.nets.workloads import peers_loop, peers_step, sgd


@pytest.fixture
def uninitialized_is_nan(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On the CPU, where torch fills new memory with NaN."""
    monkeypatch.setattr(workloads, "DEVICE", "cpu")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # with torch.utils.deterministic.fill_uninitialized_memory, the default
    yield
    torch.use_deterministic_algorithms(before)


class Line(nn.Module):
    """One weight, and a loss whose gradient is four at every place."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.weight * inputs

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 4 * (outputs - targets).sum()


def trained(steps: int, own: bool, scale: float = 2.0**16) -> list[float]:
    honest = torch.amp.GradScaler
    model = Line()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.amp, "GradScaler", lambda device, enabled: honest(device, scale, enabled=enabled))
        step = peers_step(model, torch.ones(3), torch.zeros(3), optimizer=sgd(model) if own else None)
    for _ in range(steps):
        step()
    return model.weight.tolist()


@pytest.mark.usefixtures("uninitialized_is_nan")
@pytest.mark.parametrize("own", [True, False])
def test_a_skipped_first_step_leaves_no_nan_in_the_momentum(own: bool) -> None:
    """4 x 2^127 overflows, 4 x 2^126 too, 4 x 2^125 does not. As torch makes it, the optimizer takes up the NaN."""
    found = trained(3, own, scale=2.0**127)
    if own:
        assert all(map(math.isnan, found))
    else:
        assert found == pytest.approx([1 - 0.01 * 4] * 3)


@pytest.mark.usefixtures("uninitialized_is_nan")
def test_without_a_skipped_step_zeros_change_no_bit() -> None:
    assert trained(5, own=False) == trained(5, own=True)
    assert trained(5, own=False)[0] < 1


def test_the_loop_is_the_same_step_and_gives_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "DEVICE", "cpu")
    ends = []
    for whole in (True, False):
        model = Line()
        step = peers_step(model, torch.ones(3), torch.zeros(3))
        if whole:
            loop = peers_loop(model)
            losses = [float(loop.step((torch.ones(3), torch.zeros(3)))) for _ in range(3)]
        else:
            losses = [step() for _ in range(3)]  # type: ignore[func-returns-value]
        ends.append((model.weight.tolist(), losses))
    assert ends[0][0] == ends[1][0]
    assert ends[0][1] == pytest.approx([12.0, 12 * 0.96, 12 * (1 - 0.04 - 0.04 * 1.9)])
    assert ends[1][1] == [None] * 3
