"""`python -m mpkit record`: record the gradients of real runs for the scaler race."""

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mpkit import ExponentHistogram, Policy
from mpkit.course.recorded.history import BINS, FOLDER, GradientHistory
from mpkit.course.recorded.place import add_place, folder
from mpkit.course.runs.recipes import RECIPES, Recipe
from mpkit.course.runs.snapshots import layer_gradients
from mpkit.scaling import GradientStats


def record(name: str) -> GradientHistory:
    """Train a recipe in FP32 and return its history. ValueError: no such recipe."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; use one of {', '.join(RECIPES)}.")
    recipe = RECIPES[name]
    torch.manual_seed(0)
    rows = [_measure(layers) for layers in _gradients(recipe)]
    counts, largest, amax, norm = (np.array(column) for column in zip(*rows, strict=True))
    return GradientHistory(name, f"{recipe.about}; {recipe.steps} steps in FP32, seed 0", counts, largest, amax, norm)


def _gradients(recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (every gradient value, the parameters' gradient values) of each step."""
    net, data = recipe.model("cpu"), recipe.data("cpu")
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
    """`python -m mpkit record [names]`: record histories and store them."""
    parser = argparse.ArgumentParser(prog="python -m mpkit record", description="record gradients of real runs")
    parser.add_argument("names", nargs="*", help="histories to record; none: all of them")
    parser.add_argument("--list", action="store_true", help="list the recipes and record nothing")
    add_place(parser, "folder")
    chosen = parser.parse_args(argv)
    if chosen.list:
        print("\n".join(f"{name:13} {recipe.about}" for name, recipe in RECIPES.items()))  # noqa: T201
        return 0
    if unknown := [name for name in chosen.names if name not in RECIPES]:
        parser.error(f"there is no recipe {', '.join(unknown)}; use {', '.join(RECIPES)}")
    torch.set_num_threads(1)
    for name in chosen.names or RECIPES:
        path = record(name).save(chosen.out or folder(chosen, FOLDER))
        print(f"{name}: {path.name}, {path.stat().st_size / 1024:.0f} KB")  # noqa: T201
    return 0
