"""One number added again and again in a small format, and the last of those additions."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from mpkit import FP32, FloatFormat
from mpkit.course.arithmetic.accumulate import How, rounder, running_totals
from mpkit.course.read_number import read_number

COUNTS = tuple(2**k for k in range(4, 15))
RANDOM = "random, 0 to 1"


@dataclass(frozen=True)
class SumView:
    """A sum in progress. `counts` and `totals` are its points, `true_totals` the same sum without rounding.

    `term` is the last term, `before` the total that it was added to, `after` the total that came out, and `spacing`
    the distance from `before` to the next larger value of `grid`, the format of the running total.
    `name` says what is added; `how` as in mpkit.course.arithmetic.accumulate.
    """

    name: str
    format: FloatFormat
    how: How
    counts: np.ndarray
    totals: np.ndarray
    true_totals: np.ndarray
    grid: FloatFormat
    term: float
    before: float
    after: float
    spacing: float


def totals_of(term: str, fmt: FloatFormat, how: How) -> np.ndarray:
    """The running totals of `term`, a number as typed or `RANDOM`, over the most additions there are."""
    return running_totals(_terms(term), fmt, how)


def view_of(totals: np.ndarray, term: str, fmt: FloatFormat, how: How, count: int) -> SumView:
    """The first `count` additions (one of `COUNTS`) of what `totals_of` gave for the same term, format and way."""
    terms, level = _terms(term), how == "pairwise"
    counts = 2 ** np.arange(int(math.log2(count)) + 1) if level else np.arange(1, count + 1)
    totals = totals[: len(counts)]
    grid = FP32 if how == "fp32" else fmt
    before = float(totals[-2]) if not level else 0.0
    return SumView(
        f"{count:,} random numbers from 0 to 1" if term == RANDOM else f"{count:,} times {term}", fmt, how, counts,
        totals, np.cumsum(terms)[counts - 1], grid, rounder(fmt)(terms[count - 1]), before, float(totals[-1]),
        grid.spacing(before),
    )  # fmt: skip


def _terms(term: str) -> np.ndarray:
    """The most terms that are added, before rounding."""
    if term == RANDOM:
        return torch.rand(COUNTS[-1], generator=torch.Generator().manual_seed(0)).double().numpy()
    return np.full(COUNTS[-1], read_number(term))
