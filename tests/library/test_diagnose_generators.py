"""A step may draw from a generator of its own: it is found, rewound before each run, and put back."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import diagnose
from mpkit.diagnosis.generators import generators_in

MAKE: dict[str, Callable[[], Any]] = {
    "torch": lambda: torch.Generator().manual_seed(3),
    "numpy": lambda: np.random.default_rng(3),
    "numpy's older": lambda: np.random.RandomState(3),
    "python": lambda: random.Random(3),
}
HERE: dict[str, Any] = {}  # a global, as in a notebook


def drawn(generator: Any) -> Tensor:
    """64 numbers from 0 to 1."""
    if isinstance(generator, torch.Generator):
        return torch.rand(64, generator=generator)
    return torch.tensor([float(generator.random()) for _ in range(64)])


def state(generator: Any) -> str:
    if isinstance(generator, torch.Generator):
        return str(generator.get_state().tolist())
    if isinstance(generator, random.Random):
        return str(generator.getstate())
    if isinstance(generator, np.random.Generator):
        return str(generator.bit_generator.state)
    return str([str(list(part) if hasattr(part, "tolist") else part) for part in generator.get_state()])


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(64, 16, generator=draw), torch.randint(0, 4, (64,), generator=draw)


def work(model: nn.Module, optimizer: Any, draw: Callable[[], Tensor], given: tuple[Tensor, Tensor],
         to_labels: bool) -> Tensor:  # fmt: skip
    x, y = given
    mark = draw()
    loss = F.cross_entropy(model(x if to_labels else x + mark[:, None]), torch.where(mark < 0.5, 0, y))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


class Loop:
    """A step that is a method, or the object."""

    def __init__(self, body: Any, generator: Any) -> None:
        self.body, self.rng = body, generator

    def step(self, given: Any) -> Any:
        return self.body(lambda: drawn(self.rng), given)

    def __call__(self, given: Any) -> Any:
        return self.step(given)


def stepping(form: str, generator: Any, model: nn.Module, body: Callable[..., Any]) -> Any:
    """A step that reaches its generator in this way."""
    if form == "global":
        HERE["rng"] = generator
        return lambda given: body(lambda: drawn(HERE["rng"]), given)
    if form in ("method", "object"):
        loop = Loop(body, generator)
        return loop.step if form == "method" else loop
    if form == "partial":
        return partial(lambda one, given: body(lambda: drawn(one), given), generator)
    if form == "default":
        return lambda given, one=generator: body(lambda: drawn(one), given)
    if form == "inside":
        holder = SimpleNamespace(parts=[{"rng": generator}])
        return lambda given: body(lambda: drawn(holder.parts[0]["rng"]), given)
    if form == "module":
        model[1].rng = generator  # type: ignore[index]
        return lambda given: body(lambda: drawn(model[1].rng), given)  # type: ignore[index]
    return lambda given: body(lambda: drawn(generator), given)


@pytest.mark.parametrize("to_labels", [False, True])
@pytest.mark.parametrize("form", "closure global method object partial default inside module".split())
@pytest.mark.parametrize("kind", MAKE)
def test_a_step_that_draws_from_its_own_generator(kind: str, form: str, to_labels: bool) -> None:
    torch.manual_seed(0)
    model, generator = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4)), MAKE[kind]()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def body(draw: Callable[[], Tensor], given: Any) -> Tensor:
        return work(model, optimizer, draw, given, to_labels)

    step = stepping(form, generator, model, body)
    step(batch())
    before, values = state(generator), [p.detach().clone() for p in model.parameters()]
    found = diagnose(step, model=model, optimizer=optimizer, batch=batch())
    assert found.healthy, str(found)
    assert state(generator) == before
    assert all(torch.equal(a, b) for a, b in zip(values, model.parameters(), strict=True))


@pytest.mark.parametrize("given", [True, False])
def test_a_counter_is_not_put_back_and_the_cure_fits(given: bool) -> None:
    torch.manual_seed(0)
    model, count = nn.Linear(16, 4), [0]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(one: Any = None) -> Tensor:
        count[0] += 1
        return work(model, optimizer, lambda: torch.full((64,), float(count[0])), one or batch(), False)

    found = diagnose(step, model=model, optimizer=optimizer, batch=batch() if given else None)
    assert found.kind == "not repeatable", str(found)
    assert ("Draw one batch" in found.cure) != given
    assert ("counts its calls" in found.cause) == given


def test_it_looks_at_few_things() -> None:
    """A list of a million samples in the closure takes no time, nor does a model with many parameters."""
    many: list[Any] = [[float(i)] for i in range(1_000_000)]
    generator = random.Random(0)

    def step() -> Any:
        return many, generator

    assert generators_in(step) == [generator]
    assert generators_in([[[one] for one in many[:256]] for _ in range(256)], generator) == [generator]
