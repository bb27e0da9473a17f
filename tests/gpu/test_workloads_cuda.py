"""The steps that the benchmark compares all train the same model the same way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from mpkit.course.nets.workloads import fp32_peer, mlp, ours, peers_step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
Step = Callable[[nn.Module, Tensor, Tensor], Callable[[], object]]


def our_step(model: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[], object]:
    return partial(ours(model), inputs, targets)


def trained(make: Step) -> Tensor:
    torch.manual_seed(0)
    model, inputs, targets = mlp()
    step = make(model, inputs, targets)
    for _ in range(20):
        step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    "make",
    [
        our_step,
        partial(peers_step, compiled="default"),
        partial(peers_step, compiled="reduce-overhead"),
        fp32_peer,
    ],
    ids=["ours", "compiled", "reduce-overhead", "fp32"],
)
def test_every_step_goes_where_torch_amps_goes(make: Step) -> None:
    torch.manual_seed(0)
    start = torch.cat([p.detach().flatten() for p in mlp()[0].parameters()])
    way = trained(peers_step) - start
    assert (trained(make) - start - way).norm() < 0.02 * way.norm()
