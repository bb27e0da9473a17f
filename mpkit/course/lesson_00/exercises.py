"""Checks and quiz of lesson 00: where 1 + 2^-k becomes 1, and what the lessons' words mean."""

from typing import Any

from mpkit.course.exercises.checker import Feedback, checker, number, passed, require, wrong
from mpkit.course.exercises.quiz import Item

PLACE = "The answer is a whole number: a place on the slider, not a value like 1.001."


@checker("00.1")
def first_k_lost_in_fp16(answer: Any) -> Feedback:
    """Smallest k for which 1 + 2^-k is 1 in FP16: just beyond the last stored bit, where the tie goes to even."""
    k = number(answer, PLACE)
    require(k.is_integer(), PLACE)
    require(
        k != 10,
        "At k = 10 the step still lies on FP16's last box, so it survives. Where does the row first say lost?",
    )
    require(k != 8, "That is where BF16 loses it. The question is about FP16: look at the middle row.")
    require(k > 10, "At this k the step still fits into FP16. Move the slider to the right until the row says lost.")
    if k > 11:
        return wrong("It is lost there, but it was lost before. Move the slider to the left: where does it begin?")
    return passed("FP16 stores ten places after the point. A step in the place behind them is rounded away.")


QUIZ = (
    Item(
        question="In BF16, 1 + 0.001 gives 1. What happened to the 0.001?",
        options=(
            "BF16 cannot store 0.001",
            "Next to 1, the next number in BF16 is further away than that",
            "The addition overflowed",
        ),
        right=1,
        feedback=(
            "It can: alone, 0.001 is no problem, because numbers near zero lie close together. Only next to 1 are "
            "the gaps too wide.",
            "Yes. The sum falls into the gap between 1 and its neighbour 1.0078125, closer to 1, and is rounded there.",
            "Overflow is when a number is too large for a format. Here everything is near 1.",
        ),
    ),
    Item(
        question="A machine has no GPU. What do the lessons do there?",
        options=(
            "They emulate: compute in FP32 and round every operand and result to the small format",
            "They only show recorded pictures",
            "They run in FP32 and pretend",
        ),
        right=0,
        feedback=(
            "Yes. Each rounding is a GPU's. Sums may differ in their last bits: a GPU adds in another order, and its "
            "tensor cores round partial sums in another way.",
            "No. The lessons' own experiments run live, here on the CPU. Recorded are speed, energy, a GPU's memory, "
            "sweeps over settings and long trainings, and each says where.",
            "No. Every operand, result and gradient is rounded, so you see the true effects of the small format.",
        ),
    ),
)
