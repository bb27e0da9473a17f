"""Checks and quiz of lesson 09: who shares a scale, a history of magnitudes, a row of zeros."""

import math
from typing import Any

import torch
from torch import Tensor

from mpkit import E4M3
from mpkit.course.exercises.checker import Feedback, checker, number, passed, require
from mpkit.course.exercises.matching import matching
from mpkit.course.exercises.quiz import Item
from mpkit.scaled import ScaledFormat, scaled_cast

SHARING = ("one scale for the tensor", "one a row", "one a column", "one for 32 neighbours in a row")
_TENSOR, _ROW, _COLUMN, _BLOCK = SHARING
# case -> the sharing with the fewest scales under which nothing is lost, and what the others hear. A matrix has 4,096
# rows and 4,096 columns; "lost" means that a tenth of its values or more become 0.
CASES = {
    "A": (_COLUMN, {
        _TENSOR: "A: the loud column sets the step for all. In INT8 the others are then smaller than half a step.",
        _ROW: "A: every row crosses the loud column. Who shares a scale with it then?",
        _BLOCK: "A: that loses the 31 neighbours of the loud column alone, with 128 scales a row. Fewer will do.",
    }),
    "B": (_TENSOR, {
        _ROW: "B: that works, with a scale for each of 4,096 rows. How far down does E4M3 reach by itself?",
        _COLUMN: "B: that works, with 4,096 scales. How far down does E4M3 reach by itself?",
        _BLOCK: "B: that works, with half a million scales. How far down does E4M3 reach by itself?",
    }),
    "C": (_ROW, {
        _TENSOR: "C: the loudest sentence sets the step for all. A thousandth of it is less than half a step.",
        _COLUMN: "C: every column crosses every sentence, the loud one too.",
        _BLOCK: "C: that works, with 128 scales a row. A sentence is equally loud all along. How many does it need?",
    }),
    "D": (_BLOCK, {
        _TENSOR: "D: E2M1 has eight magnitudes, from 0.5 to 6. What is below a 24th of the largest value becomes 0.",
        _ROW: "D: along a row the values fall to a thousandth. E2M1 reaches down to a 24th of its largest.",
        _COLUMN: "D: down a column the values fall to a thousandth, too. E2M1 reaches down to a 24th of its largest.",
    }),
}  # fmt: skip


@checker("09.1")
def who_shares_a_scale(answer: Any) -> Feedback:
    """Match four tensors with the coarsest scales that save them."""
    done = "The scale must follow what differs: columns, sentences, neighbourhoods. A float's own exponent needs less."
    return matching(answer, CASES, SHARING, each="case", choice="sharing", passes=done)


HISTORIES = (
    [1.0, 1.0, 1.0, 1.0],
    [1.0, 2.0, 16.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    [8.0, 4.0, 2.0, 1.0, 0.5, 0.25],
    [3.0],
)


def _expected(seen: list[float], length: int) -> list[float]:
    """The scale of each step but the first: from the `length` steps before it."""
    return [max(seen[max(0, step - length) : step]) / E4M3.max for step in range(1, len(seen) + 1)]


@checker("09.2", wants="function")
def scales_from_history(answer: Any) -> Feedback:
    """The scale of each next step, from the largest magnitude of the last steps."""
    for length in (1, 3, 16):
        for seen in HISTORIES:
            for step, expected in enumerate(_expected(seen, length), start=1):
                past = seen[:step]
                given = number(answer(list(past), length), "The function should return one number: the next scale.")
                _judge_scale(given, expected, past, length)
    return passed("It lags behind by a step on the way up, and by its whole length on the way down.")


def _judge_scale(given: float, expected: float, past: list[float], length: int) -> None:
    lead = f"Magnitudes so far {past}, length {length}:"
    exact = abs(given - expected) <= 1e-6 * expected
    if exact or given == 2.0 ** math.ceil(math.log2(expected) - 1e-9):  # a power of two, rounded up, cuts nothing off
        return
    require(given != 2.0 ** math.floor(math.log2(expected)), f"{lead} a power of two, but rounded down. Where does the "
            "largest land?")  # fmt: skip
    recent = past[-length:]
    require(abs(given * expected - 1) > 1e-5, f"{lead} that is its inverse. What is multiplied with a small value to "
            "get the number back?")  # fmt: skip
    require(abs(given - max(recent)) > 1e-6, f"{lead} {given:g} is a magnitude, not a scale. To which value of E4M3 "
            "does it go?")  # fmt: skip
    require(abs(given - past[-1] / E4M3.max) > 1e-6 * given, f"{lead} you look at the last step alone.")
    require(abs(given - max(past) / E4M3.max) > 1e-6 * given, f"{lead} a step that is long past still counts.")
    require(abs(given - sum(recent) / len(recent) / E4M3.max) > 1e-6 * given,
            f"{lead} under a mean every second step saturates.")  # fmt: skip
    require(False, f"{lead} you return {given:g}. Which of them decides, and where must it land?")


@checker("09.3", wants="function")
def rows_without_nan(answer: Any) -> Feedback:
    """A row-wise FP8 cast that survives rows of zeros, and tiny ones."""
    draw = torch.Generator().manual_seed(9)
    x = torch.randn(7, 40, generator=draw, device="cpu").to(torch.get_default_device())
    x[1] = 0
    x[2] *= 1e-20
    x[3] *= 1e20
    x[6] *= 1e-33  # its scale is still a normal number
    given = answer(x.clone())
    require(isinstance(given, Tensor), "The function should return one tensor: the rounded one.")
    require(given.shape == x.shape, f"A tensor of shape {tuple(x.shape)} came in, {tuple(given.shape)} comes out.")
    require(not given[1].isnan().any(), "Row 1 holds nothing but zeros, and comes back as NaN. What is 0 / 0?")
    require(bool((given[1] == 0).all()), "Row 1 holds nothing but zeros, and something else comes back.")
    _judge_rows(x, given)
    x[4, 7] = torch.nan
    require(
        bool(answer(x.clone())[4].isnan().any()), "Now row 4 has a NaN in it, and none comes back. Nobody would notice."
    )
    return passed("No row divides by zero, no other row has changed, and a real NaN is still seen.")


def _judge_rows(x: Tensor, given: Tensor) -> None:
    """All rows but those of zeros must come back as one exact scale a row rounds them."""
    exact = scaled_cast(x, ScaledFormat("E4M3, row", E4M3, (1, None)))
    size = x.double().norm(dim=1)
    off = (given.double() - exact.double()).norm(dim=1) / size.clamp(min=1e-300)
    changed = [row for row in (0, 2, 3, 4, 5, 6) if not float(off[row]) < 1e-3]
    for row, about in ((2, "1e-20"), (6, "1e-33")):
        small = changed and changed[0] == row and set(changed) <= {2, 6}
        require(not small, f"Row {row} holds values of about {about}, and they come back otherwise. How small is its "
                "scale?")  # fmt: skip
    require(
        not changed, f"Row {changed[0] if changed else 0} has no zeros, was right before, and comes back otherwise."
    )


QUIZ = (
    Item(
        question="A block of 32 in MXFP4 holds one 6.0; the others are 0.2. Rounded to nearest, what is left of them?",
        options=("0.2, almost", "0.5 each", "nothing"),
        right=2,
        feedback=(
            "What are the smallest values of E2M1, and what scale does the 6.0 ask for?",
            "0.5 is the smallest value above 0. Is 0.2 nearer to it, or to 0?",
            "Yes. The scale is 1, and 0.2 is below half of 0.5.",
        ),
    ),
    Item(
        question="Normal numbers in E4M3, delayed scaling, a history of 16 steps. From one step to the next all falls "
        "to a 16th. Then:",
        options=("16 steps are lost", "one step is clipped", "almost nothing is lost"),
        right=2,
        feedback=(
            "The scale is too large for 16 steps. But a float keeps its relative precision further down.",
            "Clipped is what is too large for the scale. These have become smaller.",
            "Yes. A scale that is 16 times too large costs E4M3 four powers of two, and it has more below.",
        ),
    ),
    Item(
        question="Scales are set by the largest magnitude. Is quantisation-aware training better than rounding "
        "afterwards, in this lesson?",
        options=("in INT8 and in INT2", "in INT2 alone", "in INT8 alone"),
        right=1,
        feedback=(
            "What was the difference in INT8, in points?",
            "Yes. In INT8 rounding the trained network does as well. In INT2 a better scale wins much of it back.",
            "There rounding costs almost nothing, so there is nothing to win.",
        ),
    ),
)
