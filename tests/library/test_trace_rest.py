"""While a pass is watched, Python collects no cycles; outside it does as it did before."""

import gc

import pytest
import torch
from torch import nn

from mpkit import trace


class Asks(nn.Module):
    """Notes whether the collector works."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(2, 2), []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(gc.isenabled())
        return self.layer(x)


def test_it_rests_in_a_pass_and_works_from_the_optimizer_on() -> None:
    model = Asks()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with trace(model):
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()
            assert not gc.isenabled()
            optimizer.step()
            assert gc.isenabled()
    assert model.seen == [False, False]


def test_it_works_again_after_a_block_that_fails_or_has_no_step() -> None:
    model = Asks()
    with pytest.raises(RuntimeError, match="shapes"), trace(model):
        model(torch.ones(1, 3))
    assert gc.isenabled()
    with trace(model):
        model(torch.ones(1, 2))
        model(torch.ones(1, 2))
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with trace(Asks()) as watch:
            watch._model(torch.ones(1, 2))
        assert not gc.isenabled()
    finally:
        gc.enable()
