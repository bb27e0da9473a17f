"""The runs whose gradients the scaler race is shown on: what trains, on what, and how."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP, Autoencoder, SeedsNet, WideAutoencoder
from mpkit.training import StepData


@dataclass(frozen=True)
class Recipe:
    """A run in FP32, one seed: what it is in a sentence, its steps, and how model, data and optimizer are made.

    `model` and `data` get the device; the random numbers of both are drawn on the CPU.

    `weight(step)`: factor of the loss at that step; the learning rate is divided by it, so that with plain SGD the run
    itself stays the same in exact arithmetic.
    """

    about: str
    steps: int
    model: Callable[[str], SeedsNet]
    data: Callable[[str], StepData]
    optimizer: Callable[[SeedsNet], torch.optim.Optimizer]
    weight: Callable[[int], float] | None = None


def falling_weight(step: int, steps: int = 420) -> float:
    """From 1e2 to 1e-8, evenly on a logarithmic axis."""
    return float(10 ** (2 - 10 * step / (steps - 1)))


def sgd(net: SeedsNet) -> torch.optim.Optimizer:
    """Plain, 0.1."""
    return torch.optim.SGD(net.parameters(), lr=0.1, fused=True)


def adam(lr: float) -> Callable[[SeedsNet], torch.optim.Optimizer]:
    """Adam with a learning rate."""
    return lambda net: torch.optim.Adam(net.parameters(), lr=lr, fused=True)


_digits = cache(digits)  # a race of five learners loads them once


RECIPES: dict[str, Recipe] = {
    "classifier": Recipe(
        "digits classifier 64-128-64-10, SGD 0.1, batch 64", 1500, lambda device: MLP(seeds=[0]).to(device),
        lambda device: _digits(device).classification(), sgd,
    ),
    "autoencoder": Recipe(
        "sigmoid autoencoder on digits, Adam 2e-3, batch 256", 1000, lambda device: Autoencoder(seeds=[0]).to(device),
        lambda device: _digits(device).reconstruction(), adam(2e-3),
    ),
    "bad-start": Recipe(
        "ReLU autoencoder with weights six times too large at the start, Adam 3e-3", 1000,
        lambda device: WideAutoencoder(seeds=[0]).to(device),
        lambda device: _digits(device).reconstruction(), adam(3e-3),
    ),
    "falling-loss": Recipe(
        "digits classifier, SGD, loss times a weight that falls from 1e2 to 1e-8, learning rate divided by it", 420,
        lambda device: MLP(seeds=[0]).to(device), lambda device: _digits(device).classification(), sgd, falling_weight,
    ),
}  # fmt: skip
