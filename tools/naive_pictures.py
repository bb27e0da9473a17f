"""The peer of every panel: the same kind of picture as one writes it first, `interact` and a new figure each time.

A lesson's kernel runs it (tools/keybench.py adds the cell), so it imports nothing of mpkit.
"""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

VALUES = 4000  # of each histogram
STEPS = 500  # of each line
Draw = Callable[[list[Axes], float], None]


def histograms(axes: list[Axes], k: float) -> None:
    """Values that shift with k under a window of three zones."""
    values = np.random.default_rng(0).normal(-12, 6, VALUES)
    for axis in axes:
        for left, right, color in ((-46, -24, "#f4c7c3"), (-24, -14, "#fdebc8"), (16, 24, "#e3d0ee")):
            axis.axvspan(left, right, color=color)
        axis.hist(values + k, bins=140, range=(-46, 24), histtype="stepfilled")
        axis.text(24, 0, f"{np.mean(values + k < -24):.0%} flushed")
        axis.set_xlim(-46, 24)
    axes[-1].set_xlabel("log2 of the magnitude")
    axes[0].set_title(f"scale 2^{k}")


def lines(axes: list[Axes], k: float) -> None:
    """Four runs over the same steps, with a legend."""
    steps = np.arange(STEPS)
    for axis in axes:
        for run in range(4):
            axis.plot(steps, np.abs(np.sin(steps / (20 + 7 * run) + k)) + run, label=f"run {run}")
        axis.set_xlabel("step")
    axes[0].legend()
    axes[0].set_title(f"setting {k}")


def bars(axes: list[Axes], k: float) -> None:
    """Four bars with their numbers."""
    heights = np.array([1, 2, 3, 4]) * (1 + k)
    for axis in axes:
        for y, height in enumerate(heights):
            axis.text(height, y, f"{height:.1f}")
        axis.barh(["FP32", "TF32", "FP16", "BF16"], heights)
    axes[0].set_title(f"size {k}")


def grid(axes: list[Axes], k: float) -> None:
    """A table of thirty numbers, each on its shade."""
    numbers = np.add.outer(np.arange(5), np.arange(6)) * (1 + k)
    for axis in axes:
        axis.imshow(numbers, aspect="auto")
        for (row, column), number in np.ndenumerate(numbers):
            axis.text(column, row, f"{number:.0f}", ha="center", va="center")
    axes[0].set_title(f"backoff {k}")


def bits(axes: list[Axes], k: float) -> None:
    """A row of bits for each of three formats, and its value in words."""
    for axis in axes:
        shown = np.array([[int(bit) for bit in f"{int(k) * 40503 % 2**23:023b}"]] * 3)
        axis.imshow(shown, aspect="auto", cmap="Greys")
        for (row, column), bit in np.ndenumerate(shown):
            axis.text(column, row, str(bit), ha="center", va="center", color="tab:blue")
        axis.set_yticks(range(3), ["FP32", "FP16", "BF16"])
    axes[0].set_title(f"1 + 2^-{k}")


PICTURES: dict[str, Draw] = {"histograms": histograms, "lines": lines, "bars": bars, "grid": grid, "bits": bits}


def show(kind: str, count: int, height: int, name: str) -> None:
    """Show a slider, whose label is `name`, over `count` axes in a figure of 1040 by `height` pixels."""

    def draw(k: int) -> None:
        _, axes = plt.subplots(count, 1, figsize=(10.4, height / 100), dpi=100, squeeze=False)
        PICTURES[kind](list(axes.flat), k)
        plt.show()

    ipywidgets.interact(draw, k=ipywidgets.IntSlider(8, 0, 16, description=name))
