"""The runs whose gradients the scaler race is shown on, and the command that records them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP, Autoencoder, SeedsNet, WideAutoencoder
from mpkit.gradient_trace import BINS, FOLDER, GradientTrace
from mpkit.histogram import ExponentHistogram
from mpkit.policy.policy import Policy
from mpkit.recording import layer_gradients
from mpkit.scaling import GradientStats
from mpkit.training.batches import StepData


@dataclass(frozen=True)
class Recipe:
    """A run in FP32, one seed: what it is in a sentence, its steps, and how model, data and optimizer are made.

    `weight(step)`: factor of the loss at that step; the learning rate is divided by it, so that with plain SGD the run
    itself stays the same in exact arithmetic.
    """

    about: str
    steps: int
    model: Callable[[], SeedsNet]
    data: Callable[[], StepData]
    optimizer: Callable[[SeedsNet], torch.optim.Optimizer]
    weight: Callable[[int], float] | None = None


def falling_weight(step: int, steps: int = 420) -> float:
    """From 1e2 to 1e-8, evenly on a logarithmic axis."""
    return float(10 ** (2 - 10 * step / (steps - 1)))


RECIPES: dict[str, Recipe] = {
    "classifier": Recipe(
        "digits classifier 64-128-64-10, SGD 0.1, batch 64", 1500, lambda: MLP(seeds=[0]),
        lambda: digits().classification(), lambda net: torch.optim.SGD(net.parameters(), lr=0.1),
    ),
    "autoencoder": Recipe(
        "sigmoid autoencoder on digits, Adam 2e-3, batch 256", 1000, lambda: Autoencoder(seeds=[0]),
        lambda: digits().reconstruction(), lambda net: torch.optim.Adam(net.parameters(), lr=2e-3),
    ),
    "bad-start": Recipe(
        "ReLU autoencoder with weights six times too large at the start, Adam 3e-3", 1000,
        lambda: WideAutoencoder(seeds=[0]),
        lambda: digits().reconstruction(), lambda net: torch.optim.Adam(net.parameters(), lr=3e-3),
    ),
    "falling-loss": Recipe(
        "digits classifier, SGD, loss times a weight that falls from 1e2 to 1e-8, learning rate divided by it", 420,
        lambda: MLP(seeds=[0]), lambda: digits().classification(),
        lambda net: torch.optim.SGD(net.parameters(), lr=0.1), falling_weight,
    ),
}  # fmt: skip


def record(name: str) -> GradientTrace:
    """Train a recipe in FP32 and return its trace. ValueError: no such recipe."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; use one of {', '.join(RECIPES)}.")
    recipe = RECIPES[name]
    torch.manual_seed(0)
    rows = [_measure(layers) for layers in _gradients(recipe)]
    counts, largest, amax, norm = (np.array(column) for column in zip(*rows, strict=True))
    return GradientTrace(name, f"{recipe.about}; {recipe.steps} steps in FP32, seed 0", counts, largest, amax, norm)


def _gradients(recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (every gradient value, the parameters' gradient values) of each step."""
    net, data = recipe.model(), recipe.data()
    optimizer = recipe.optimizer(net)
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(recipe.steps):
        inputs, targets = data.batch(step)
        weight = recipe.weight(step) if recipe.weight else 1.0
        layers = layer_gradients(net, inputs, targets, Policy())
        yield torch.cat([layer.all for layer in layers]) * weight, torch.cat([one.weight for one in layers]) * weight
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate / weight
        optimizer.zero_grad()
        torch.autograd.backward(net.loss(net(inputs), targets).sum() * weight)
        optimizer.step()


def _measure(gradients: tuple[Tensor, Tensor]) -> tuple[np.ndarray, float, float, float]:
    every, parameters = gradients
    counts = ExponentHistogram.of(every).counts.numpy()
    stats = GradientStats.of([parameters])
    assert len(counts) == BINS
    return counts, float(every.abs().max()), stats.amax, stats.norm


def main(argv: Sequence[str]) -> int:
    """`python -m mpkit record [names]`: record traces and store them beside their recipes."""
    parser = argparse.ArgumentParser(prog="python -m mpkit record", description="record gradients of real runs")
    parser.add_argument("names", nargs="*", help="traces to record; none: all of them")
    parser.add_argument("--list", action="store_true", help="list the recipes and record nothing")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder; default: the one that the lessons read")
    chosen = parser.parse_args(argv)
    if chosen.list:
        print("\n".join(f"{name:13} {recipe.about}" for name, recipe in RECIPES.items()))  # noqa: T201
        return 0
    if unknown := [name for name in chosen.names if name not in RECIPES]:
        parser.error(f"there is no recipe {', '.join(unknown)}; use {', '.join(RECIPES)}")
    torch.set_num_threads(1)
    for name in chosen.names or RECIPES:
        path = record(name).save(chosen.out)
        print(f"{name}: {path.name}, {path.stat().st_size / 1024:.0f} KB")  # noqa: T201
    return 0
