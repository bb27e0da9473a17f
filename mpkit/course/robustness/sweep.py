"""One knob of an experiment, turned both ways, and the same test at each place."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, get_args

from mpkit.course.runs.equivalence import equivalence

Outcome = Literal["equivalent", "worse", "better", "undecided", "diverged"]
Scores = Mapping[str, Sequence[float]]
WIDE = 3  # a knob is turned at least so many times up and down
SEEDS = 5


@dataclass(frozen=True)
class Sweep:
    """What a lesson says of some ways to train, and how to ask again with another setting.

    key: lesson and name, such as "03.sgd".
    question: what is asked at every value, in a sentence.
    knob: the setting that is turned, with its unit, such as "learning rate".
    chosen: the lesson's value; `values` has it, one at most a third and one at least three times as large.
    measure: value → for each way to train, a score a seed, in the same order of seeds. Ways that are neither the
        reference nor in `expected` are shown beside the rest, and not tested: a share of lost updates, for example.
    reference: the way that the others are compared with.
    margin: in the scores' own unit, named before anything is run.
    unit: such as "points of accuracy".
    better: whether a high or a low score is.
    expected: way → what the lesson says of it at its own value.
    """

    key: str
    question: str
    knob: str
    chosen: float
    values: tuple[float, ...]
    measure: Callable[[float], Scores]
    reference: str
    margin: float
    unit: str
    better: Literal["high", "low"]
    expected: Mapping[str, Outcome]

    def __post_init__(self) -> None:
        wrong = [out for out in self.expected.values() if out not in get_args(Outcome)]
        if wrong or not self.expected or self.better not in ("high", "low") or min(self.margin, self.chosen) <= 0:
            raise ValueError(
                f"sweep {self.key}: expected needs at least one way with an outcome of {', '.join(get_args(Outcome))}, "
                f'better "high" or "low", margin and chosen a number above 0; {dict(self.expected)}, {self.better!r}, '
                f"{self.margin!r} and {self.chosen!r} came."
            )
        low, high = self.chosen / WIDE, self.chosen * WIDE
        near = 1 + 1e-9  # 3 * 0.1 is a little more than 0.3
        if (
            not self.chosen > 0
            or self.chosen not in self.values
            or min(self.values) > low * near
            or max(self.values) * near < high
        ):
            raise ValueError(
                f"sweep {self.key}: {self.knob} is {self.chosen:g} in the lesson, so values from {low:g} or less to "
                f"{high:g} or more, with that one, are asked for; {self.values} came."
            )


@dataclass(frozen=True)
class Cell:
    """One way to train at one value: the mean difference to the reference, its 90 % interval, and what that says."""

    difference: float
    low: float
    high: float
    outcome: Outcome


def judge(scores: Sequence[float], reference: Sequence[float], margin: float, better: str) -> Cell:
    """Compare a way with the reference, seed by seed.

    "equivalent": the 90 % interval of the mean difference lies within ± margin (`mpkit.course.runs.equivalence`).
    "worse", "better": it does not, and lies on one side of 0. "undecided": neither. "diverged": a score of this way is
    no finite number, and all of the reference's are; where one of those is none, nothing is decided.
    """
    if not all(map(math.isfinite, reference)):
        return Cell(math.nan, math.nan, math.nan, "undecided")
    if not all(map(math.isfinite, scores)):
        return Cell(math.nan, math.nan, math.nan, "diverged")
    test = equivalence(scores, reference, margin)
    if test.equivalent:
        outcome: Outcome = "equivalent"
    elif test.different:
        outcome = "better" if (test.difference > 0) == (better == "high") else "worse"
    else:
        outcome = "undecided"
    return Cell(test.difference, test.low, test.high, outcome)


def mean(scores: Sequence[float]) -> float:
    """Mean over the seeds; NaN if one of them is no finite number."""
    return fmean(scores) if all(map(math.isfinite, scores)) else math.nan
