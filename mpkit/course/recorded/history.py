"""The gradients of a whole run in a few numbers a step: what scaling rules can be raced on without training."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from mpkit import FP16, ExponentHistogram, FloatFormat
from mpkit.histogram import LOWEST
from mpkit.scaling import GradientStats

FOLDER = Path(__file__).parent / "histories"
BINS = 255  # those of ExponentHistogram


@dataclass(frozen=True, eq=False)
class GradientHistory:
    """Numbers of the unscaled FP32 gradients of every step of a run.

    `counts` (steps, 255): how many non-zero gradient values, of activations and of parameters, lie in each binade; the
    bins are those of `ExponentHistogram`. `largest` (steps,): the largest magnitude among them. `amax`, `norm`
    (steps,): largest magnitude and Euclidean norm of the parameters' gradients, which scaling rules look at.
    `recipe`: how the run was made, one sentence.
    """

    name: str
    recipe: str
    counts: np.ndarray
    largest: np.ndarray
    amax: np.ndarray
    norm: np.ndarray

    def __len__(self) -> int:
        return len(self.largest)

    @cached_property
    def seen(self) -> list[GradientStats]:
        """What a rule that reads gradients is shown, step by step."""
        counts = torch.from_numpy(self.counts.astype(np.int64))
        histograms = [ExponentHistogram(row, 0, 0, 0) for row in counts]
        numbers = zip(self.amax.tolist(), self.norm.tolist(), histograms, strict=True)
        return [GradientStats(amax, norm, histogram) for amax, norm, histogram in numbers]

    @cached_property
    def _below(self) -> np.ndarray:
        """Share of the non-zero values below each of the 256 edges of the bins."""
        below = np.concatenate([np.zeros((len(self), 1)), self.counts.cumsum(axis=1)], axis=1)
        shares: np.ndarray = below / np.maximum(below[:, -1:], 1)
        return shares

    def flushed(self, scales: np.ndarray, fmt: FloatFormat = FP16) -> np.ndarray:
        """Share (0 to 1) of each step's non-zero values that `fmt` rounds to zero when multiplied by scales[step].

        Within a binade the values are taken as evenly spread on a logarithmic axis. At a scale of 0 all are lost.
        """
        with np.errstate(divide="ignore"):
            edge = math.log2(fmt.flush_at) - np.log2(scales) - LOWEST
        edge = np.clip(edge, 0, BINS)
        left = np.minimum(edge.astype(int), BINS - 1)
        rows = np.arange(len(self))
        low, high = self._below[rows, left], self._below[rows, left + 1]
        share: np.ndarray = low + (edge - left) * (high - low)
        return share

    def window(self, fmt: FloatFormat = FP16, lost: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
        """Each step's admissible scales as exponents of 2: at least so much, less than so much.

        Below the first, more than the share `lost` of the values is flushed; from the second on the largest overflows.

        ValueError: `lost` is not between 0 and 1.
        """
        if not 0 < lost < 1:
            raise ValueError(f"lost={lost!r}; use a share between 0 and 1, such as 0.05 for 5 %.")
        place = np.array([np.interp(lost, row, np.arange(BINS + 1)) for row in _rising(self._below)])
        low = math.log2(fmt.flush_at) - (place + LOWEST)
        with np.errstate(divide="ignore"):
            high = math.log2(fmt.overflow_at) - np.log2(self.largest)
        return low, high

    def first(self, steps: int) -> GradientHistory:
        """The first `steps` steps. ValueError: there are fewer, or none is asked for."""
        if not 1 <= steps <= len(self):
            raise ValueError(f"{self.name} has {len(self)} steps, and {steps} were asked for; use 1 to {len(self)}.")
        columns = {key: getattr(self, key)[:steps] for key in ("counts", "largest", "amax", "norm")}
        return replace(self, **columns)

    def save(self, folder: Path = FOLDER) -> Path:
        """Write <name>.npz and, beside it, <name>.json with the recipe; return the first."""
        folder.mkdir(parents=True, exist_ok=True)
        used = np.flatnonzero(self.counts.any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        path = folder / f"{self.name}.npz"
        np.savez_compressed(
            path, counts=self.counts[:, first:last].astype(np.uint32), first=first, largest=self.largest,
            amax=self.amax, norm=self.norm,
        )  # fmt: skip
        about = {
            "name": self.name, "recipe": self.recipe, "steps": len(self), "device": "CPU", "torch": torch.__version__,
            "python": platform.python_version(), "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "command": f"python -m mpkit record {self.name}", "processes": 1,
        }  # fmt: skip
        path.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, name: str, folder: Path = FOLDER) -> GradientHistory:
        """Read a history. ValueError: there is none of that name; the text lists the known."""
        path = folder / f"{name}.npz"
        if not path.exists():
            known = ", ".join(recorded(folder)) or "none"
            raise ValueError(f"there is no history {name!r}; known: {known}. To record: python -m mpkit record.")
        recipe = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["recipe"]
        with np.load(path) as file:
            some, first = file["counts"].astype(np.int64), int(file["first"])
            counts = np.zeros((len(some), BINS), dtype=np.int64)
            counts[:, first : first + some.shape[1]] = some
            return cls(name, recipe, counts, *(file[key].astype(float) for key in ("largest", "amax", "norm")))


def recorded(folder: Path = FOLDER) -> list[str]:
    """Names of the histories that are stored, in order of the alphabet."""
    return sorted(path.stem for path in folder.glob("*.npz"))


def synthetic(steps: int = 2000, drift: Sequence[float] = (-4.0, -24.0), spread: float = 4.0, bump: float = 6.0,
              values: int = 20_000, seed: int = 0) -> GradientHistory:  # fmt: skip
    """Log-normal gradients that drift, with a sudden rise: nothing that a network did, but easy to reason about.

    The middle of log2 |g| goes from drift[0] to drift[1] in a straight line; after two thirds of the steps it jumps up
    by `bump` for a tenth of them. `spread`: standard deviation of log2 |g|.

    ValueError: fewer than 10 steps, or a spread that is not above 0.
    """
    if steps < 10 or spread <= 0:
        raise ValueError(f"at least 10 steps and a spread above 0 are asked for; {steps} and {spread} came.")
    rng = np.random.default_rng(seed)
    middle = np.linspace(drift[0], drift[1], steps)
    middle[2 * steps // 3 : 2 * steps // 3 + steps // 10] += bump
    counts = np.zeros((steps, BINS), dtype=np.int64)
    largest, norm = np.zeros(steps), np.zeros(steps)
    z = rng.standard_normal(values)
    for step in range(steps):
        logs = middle[step] + spread * (z + 0.05 * rng.standard_normal())
        bins = np.clip(np.floor(logs).astype(int) - LOWEST, 0, BINS - 1)
        counts[step] = np.bincount(bins, minlength=BINS)
        largest[step] = 2.0 ** logs.max()
        norm[step] = math.sqrt(float(np.square(np.exp2(logs)).sum()))
    recipe = (
        f"made up: log-normal, the middle drifts by {abs(drift[1] - drift[0]):g} powers of two, with one sudden rise"
    )
    return GradientHistory("synthetic", recipe, counts, largest, largest.copy(), norm)


def _rising(below: np.ndarray) -> np.ndarray:
    # np.interp needs rising abscissae: equal neighbours get the smallest possible slope.
    rising: np.ndarray = below + np.arange(BINS + 1) * 1e-12
    return rising
