"""Checks and quiz of lesson 02: a sum that does not stall, a loss that overflows, and where operations belong."""

import math
from typing import Any

import torch

from mpkit import FP16
from mpkit.course.arithmetic.accumulate import rounder, running_totals
from mpkit.course.exercises.checker import Feedback, checker, number, passed, require, wrong
from mpkit.course.exercises.matching import matching
from mpkit.course.exercises.quiz import Item
from mpkit.course.lesson_02.places import LISTS, OPERATIONS

ROUND = rounder(FP16)
NEAR = 0.005  # relative error that a sum may have


def _random_terms(count: int) -> list[float]:
    return torch.rand(count, generator=torch.Generator().manual_seed(2), device="cpu").half().tolist()


# What is summed, in words, and the terms: all of them values of FP16.
SUMS = (
    ("4096 ones", [1.0] * 4096),
    ("10,000 times 0.1", [ROUND(0.1)] * 10_000),
    ("1,000 random numbers from 0 to 1", _random_terms(1000)),
    ("1,000 times 0.1", [ROUND(0.1)] * 1000),
    ("10,000 times 0.7", [ROUND(0.7)] * 10_000),
    ("the single number 3", [3.0]),
)


class Term(float):
    """A number that notes down each plain + and − that it takes part in: those are not FP16 additions."""

    plain = 0  # in all, since it was last set to 0

    def _plus(self, other: float) -> float:
        Term.plain += 1
        return float(self) + float(other)

    def _minus(self, other: float) -> float:
        return self._plus(-float(other))

    def _taken_from(self, other: float) -> float:
        return -self._minus(other)

    __add__, __radd__, __sub__, __rsub__ = _plus, _plus, _minus, _taken_from


class Adder:
    """The FP16 addition that a learner gets: notes its results, and numbers that neither are terms nor came from it."""

    def __init__(self, terms: list[float]) -> None:
        self.returned, self.foreign, self._known = list[float](), False, {0.0, *map(abs, terms)}

    def __call__(self, a: float, b: float) -> float:
        """The sum in FP16."""
        self.foreign |= not self._known.issuperset((abs(float(a)), abs(float(b))))
        self.returned.append(ROUND(ROUND(float(a)) + ROUND(float(b))))
        self._known.add(abs(self.returned[-1]))
        return Term(self.returned[-1])


@checker("02.1", wants="function")
def add_up(answer: Any) -> Feedback:
    """A sum made of FP16 additions alone must come within half a percent of the true one."""
    for name, terms in SUMS:
        Term.plain, add = 0, Adder(terms)
        result = number(answer([Term(term) for term in terms], add), "The function should return a number, the total.")
        if Term.plain:
            return wrong(f"For {name} you used + or − yourself. Those are exact here, not FP16: only `add` may add.")
        if add.foreign:
            return wrong(f"For {name} you gave `add` a number that is not in the list and that `add` never returned.")
        if problem := _wrong_sum(name, terms, result, len(add.returned)):
            return wrong(problem)
        require(result in (add.returned or terms), f"For {name} no call of `add` has returned your total.")
    return passed("Every total is within half a percent, and came out of `add`.")


def _wrong_sum(name: str, terms: list[float], result: float, calls: int) -> str:
    """What is wrong with the sum of `terms`; "" if nothing is."""
    true = math.fsum(terms)
    if calls < len(terms) - 1:
        return (
            f"For {name} you called `add` {calls:,} times. Adding {len(terms):,} numbers takes {len(terms) - 1:,} "
            "additions: some terms were left out, or some additions were not FP16."
        )
    if abs(result - true) <= NEAR * true:
        return ""
    where = f"For {name} your total is {result:,.6g}, and the true one is {true:,.6g}."
    if result == running_totals(terms, FP16)[-1]:
        return f"{where} That is where a running total stalls. At the end, how large are the two numbers that you add?"
    if not math.isfinite(result):
        return f"{where} Something left the range of FP16."
    if result == 0:
        return f"{where} Nothing was added to the start."
    if result > true * (1 + NEAR) and abs(result / true - round(result / true)) < NEAR:
        return f"{where} Some terms are in it more than once."
    if result > true:
        return f"{where} Small terms were added to a large total and rounded up, again and again."
    return f"{where} Either some terms were left out, or small ones were still added to a large total."


# Logits, the right class, and what is special about them.
ORDINARY = ((1.0, 2.0, 0.5), 2)
LARGE = ((12.0, 0.0, 11.5), 0)
FAR = ((0.0, 20.0, 1.0), 0)
CONFIDENT = ((9.0, 0.0, 0.0), 0)
BOTH = ((10_000.0, -10_000.0, 9_000.0), 1)
OFFSET = ((-9_984.0, -9_992.0, -9_992.0), 0)
SURER = ((11.0, 0.0, 0.0), 0)  # a true loss of 0.0000334: near the smallest for which 1 % is asked


@checker("02.2", wants="function")
def loss_in_fp16(answer: Any) -> Feedback:
    """Cross-entropy of FP16 logits: ordinary or large, with a right class that is very unlikely or nearly certain."""
    for logits, label in (ORDINARY, LARGE, FAR, CONFIDENT, BOTH, OFFSET, SURER):
        given = torch.tensor(logits, dtype=torch.float16)
        value = number(answer(given, label), "The function should return one number, the loss.")
        true = float(torch.nn.functional.cross_entropy(given.double()[None], torch.tensor([label])))
        if not math.isclose(value, true, rel_tol=0.01):
            return wrong(_wrong_loss(logits, label, value, true))
    return passed(
        "Finite and right: for large logits, and whether the model is sure of the class or thinks it impossible."
    )


def _wrong_loss(logits: tuple[float, ...], label: int, value: float, true: float) -> str:
    shown = ", ".join(f"{x:g}" for x in logits)
    where = f"With logits {shown} and class {label} your loss is {value + 0.0:.4g}."
    if logits == BOTH[0] and not math.isfinite(value):
        return f"{where} A wider format only moves the limit. Which line still needs a number that it does not have?"
    if logits in (CONFIDENT[0], OFFSET[0], SURER[0]) and 0 <= value < 2 * true:
        return (
            f"{where} The true one is {true:.3g}, and FP16 has numbers that small. Print every line's result: "
            "in which one is a part of that size still there?"
        )
    if math.isnan(value):
        return f"{where} Print every line's result: which is the first that is Inf?"
    if math.isinf(value):
        return f"{where} The class is unlikely, but not impossible. Which line made a small number into 0?"
    if math.isclose(value, -true, rel_tol=0.01):
        return f"{where} The sign is wrong: a loss is positive."
    if logits == ORDINARY[0]:
        return f"{where} For these logits the old code was right, with {true:.4g}. What does your code compute instead?"
    return f"{where} It is finite now, but not the loss, which is {true:.4g}: the cure changed the formula."


@checker("02.3")
def two_lists(answer: Any) -> Feedback:
    """Put six operations on a list, with the reason."""
    done = "Matrix work, comparisons, range, long sums, and a small part beside 1: you can tell them apart."
    return matching(
        answer, OPERATIONS, LISTS, each="operation", choice="place", passes=done, waiting="{names} still wait"
    )


QUIZ = (
    Item(
        question="FP16 has 10 stored mantissa bits. By how much can a cast to nearest change a normal number at most?",
        options=("by 2⁻¹⁰ of it", "by 2⁻¹¹ of it", "by 2⁻²⁴, the smallest subnormal"),
        right=1,
        feedback=(
            "2⁻¹⁰ is a whole spacing. The nearest neighbour is never further away than half of that.",
            "Yes. Half a spacing, and a spacing is 2⁻¹⁰ of the power of two below the number.",
            "That is an absolute distance, and it holds near zero only. Around 1,000 neighbours are 0.5 apart.",
        ),
    ),
    Item(
        question="Why do ties go to the even neighbour, and not always up?",
        options=("Even numbers need fewer bits", "It is faster", "Always up would push every sum upwards a little"),
        right=2,
        feedback=(
            "Both neighbours have the same number of bits; the even one just ends in 0.",
            "Up would be no slower. The reason lies in what many roundings do together.",
            "Yes. Going up half of the time and down half of the time, ties cancel on average.",
        ),
    ),
    Item(
        question="torch sums 10,000 FP16 numbers around 1 without stalling. Why?",
        options=(
            "Its kernel keeps the running total in FP32 and rounds once, at the end",
            "It sorts the numbers first",
            "FP16 sums never stall below 65504",
        ),
        right=0,
        feedback=(
            "Yes. That is also what tensor cores do. The stall needs a running total that is FP16 itself.",
            "Sorting would not help: 10,000 ones are sorted already.",
            "A total of ones stalls at 2048 if it is kept in FP16.",
        ),
    ),
    Item(
        question="Logits stay within ± 20. Someone leaves out `.float()` before the cross-entropy. What may happen?",
        options=(
            "Nothing: a kernel computes in FP32 inside and rounds its result at the end",
            "The loss becomes Inf, because an exponential leaves the range",
            "Where the model is sure, the loss and the right class's gradient become 0",
        ),
        right=2,
        feedback=(
            "Many do. torch's FP16 log-softmax over the last dim on a CPU does not: of (8, 0) it makes 0.",
            "The kernel subtracts the largest logit first, so that no exponential is above 1.",
            "Yes, where the sum of exponentials is rounded to FP16: below a true loss of 0.0005, 1 + a little is 1.",
        ),
    ),
)
