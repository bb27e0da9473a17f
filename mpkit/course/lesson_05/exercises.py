"""Checks and quiz of lesson 05: write the rule, find out why a scale collapses, read six logs."""

import math
from typing import Any

from mpkit import DynamicScale
from mpkit.course.exercises.checker import Feedback, checker, number, passed, require, wrong
from mpkit.course.exercises.matching import matching
from mpkit.course.exercises.quiz import Item
from mpkit.scaling import ScaleState

TRIED = (  # initial scale, interval, floor, flags
    (1024.0, 3, 512.0, (0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0)),
    (1024.0, 5, 1024.0, (0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1)),  # from the floor on
    (3.0, 2, 0.5, (1, 1, 0, 0)),  # a scale need not be a power of two, nor a whole number
)


@checker("05.1", wants="function")
def dynamic_rule(answer: Any) -> Feedback:
    """The usual rule with a floor, for factor 2 and 1/2: its scales are judged, its count is handed back to it.

    So a count that goes on after a growth is right where the rule makes the right scales of it.
    """
    for start, interval, floor, flags in TRIED:
        rule = DynamicScale(init_scale=start, growth_interval=interval, min_scale=floor)
        right, count, since = rule.init(), 0, ""
        for step, flag in enumerate(flags):
            was, right = right, rule.update(right, bool(flag))
            given = answer(was.scale, count, bool(flag), interval, floor)
            scale, _ = _two(given, "scale, clean")
            if scale != right.scale:
                happened = "an overflow" if flag else f"clean step {was.growth_tracker + 1} of {interval}"
                lead = f"Step {step}, {happened}, from scale {was.scale:g} and count {count:g}: you return "
                missed = "" if count == was.growth_tracker else _AFTER[since]
                said = _wrong_shrink(scale, floor) if flag else _wrong_growth(scale, was, right, missed)
                return wrong(f"{lead}{tuple(given)}. {said}")
            since = "overflow" if flag else "growth" if right.scale > was.scale else since
            count = given[1]
    return passed("That is the usual rule, with the floor that torch and Keras lack.")


_AFTER = {  # what a count that is not that of the clean steps since then has missed
    "": "Who counts each clean step?",
    "overflow": "The steps were to be clean in a row. What does that say about the count after an overflow?",
    "growth": "From where does the next count start after a growth?",
}


def _wrong_shrink(scale: float, floor: float) -> str:
    return f"The floor is {floor:g}." if scale < floor else "What should an overflow do to the scale?"


def _wrong_growth(scale: float, was: ScaleState, right: ScaleState, missed: str) -> str:
    """What to say of a clean step's scale. `missed`: what its count has missed, if anything."""
    if right.scale == was.scale:
        return missed or "It is too early for another scale."
    if scale == was.scale:
        return missed or "That was the step to grow at."
    return f"The scale should be {right.scale:g}."


def _two(given: Any, names: str) -> tuple[float, float]:
    asked = f"The function should return two numbers: return {names}."
    require(isinstance(given, tuple | list) and len(given) == 2, asked)
    return number(given[0], asked), number(given[1], asked)


# Exercise 05.2: gradients of single batches. Each case: gradients, initial scale.
CASES = (((1.0, 0.5, 0.25), 1024.0), ((1.0, 100.0, 1.0, 0.5), 1024.0), ((9.0, 9.0, 9.0), 2.0**15), ((64.0,), 1024.0))


def honest_run(gradients: tuple[float, ...], scale: float) -> tuple[float, float]:
    """What exercise 05.2's loop should do: (weight, scale) after it, from weight 0."""
    weight = 0.0
    for g in gradients:
        if g * scale > 65504:
            scale /= 2
        else:
            weight -= 0.1 * g
    return weight, scale


@checker("05.2", wants="function")
def collapsing_scale(answer: Any) -> Feedback:
    """A loop in which one overflow must cost one step, and no more."""
    for gradients, scale in CASES:
        given = _two(answer(0.0, gradients, scale), "weight, scale")
        right = honest_run(gradients, scale)
        if all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) for a, b in zip(given, right, strict=True)):
            continue
        lead = f"Gradients {', '.join(f'{g:g}' for g in gradients)}, initial scale {scale:g}: you end with weight "
        lead += f"{given[0]:.4g} and scale {given[1]:g}."
        if not math.isfinite(given[0]):
            return wrong(f"{lead} An Inf went into the weight.")
        if given[1] < right[1]:
            return wrong(f"{lead} The scale was halved more often than gradients overflowed. What is in `grad` then?")
        if given[1] > right[1]:
            return wrong(f"{lead} One of these gradients overflows at that scale, and it should shrink.")
        return wrong(f"{lead} The scale is right, the weight is not: it should be {right[0]:.4g}.")
    return passed("One overflow, one lost step. In PyTorch the line is optimizer.zero_grad(), before every backward().")


CAUSES = ("healthy", "not the scale", "cannot grow back", "initial scale too high", "grows too often",
          "gradients kept after a skip")  # fmt: skip
LOGS = {
    "A": ("healthy", {
        "not the scale": "Log A loses one step in two thousand, and the loss falls.",
        "cannot grow back": "Log A does grow back: 65536, 131072, 65536, 131072.",
        "initial scale too high": "Log A's overflows come all through the run, not at its start.",
        "grows too often": "Log A grows once in 2,000 steps. What does one lost step in 2,000 cost?",
        "gradients kept after a skip": "Log A's next step after a skip is taken.",
    }),
    "B": ("not the scale", {
        "healthy": "Log B skips every step. Nothing is learned there.",
        "cannot grow back": "Log B's scale falls without an end. Would a larger one repair its loss?",
        "initial scale too high": "Log B has passed every scale down to 2⁻²⁰, and it still overflows.",
        "grows too often": "Log B has not grown once.",
        "gradients kept after a skip": "That would skip every step too. But what does log B say of the loss, which no "
                                       "gradient goes into?",
    }),
    "C": ("cannot grow back", {
        "healthy": "Log C flushes 60 % of the gradients, and its loss is flat.",
        "not the scale": "Log C's gradients are lost at the bottom of the window. That is a matter of the scale.",
        "initial scale too high": "Log C's scale is too low now.",
        "grows too often": "Log C has not changed for an hour.",
        "gradients kept after a skip": "Log C skips nothing.",
    }),
    "D": ("initial scale too high", {
        "healthy": "Log D ends well, but what happened in its first sixteen steps?",
        "not the scale": "Log D recovers by itself once the scale has fallen.",
        "cannot grow back": "Log D has no need to grow: nothing is flushed.",
        "grows too often": "Log D's skips are all at the start.",
        "gradients kept after a skip": "Then log D's skips would never have ended.",
    }),
    "E": ("healthy", {
        "not the scale": "Log E takes every step, and its loss falls.",
        "cannot grow back": "Log E stays where it is because it is at its cap. Is anything lost there?",
        "initial scale too high": "Log E skips nothing, not even at the start.",
        "grows too often": "Log E has stopped growing: it is at its cap.",
        "gradients kept after a skip": "Log E skips nothing.",
    }),
    "F": ("grows too often", {
        "healthy": "One step in eleven is lost in log F. Is that the price that this lesson's rule pays?",
        "not the scale": "Log F's steps are lost where the scale has just grown.",
        "cannot grow back": "Log F grows back every time, and soon.",
        "initial scale too high": "Log F's skips come all through the run.",
        "gradients kept after a skip": "Log F's next ten steps after a skip are taken.",
    }),
}  # fmt: skip


@checker("05.3")
def six_logs(answer: Any) -> Feedback:
    """Match six logs with their cause."""
    done = "A sawtooth is health; a fall without an end is not the scale's fault."
    return matching(answer, LOGS, CAUSES, each="log", choice="cause", passes=done)


QUIZ = (
    Item(
        question="A dynamic scale skips one step in 2,000. What do you do?",
        options=("Lower the growth factor", "Nothing: it looks for its upper limit", "Start from a smaller scale"),
        right=1,
        feedback=(
            "It would lose fewer. But one in 2,000 is not worth it, and it rises more slowly where gradients shrink.",
            "Yes. Growing until something overflows is how the rule finds out where the limit is.",
            "After the first few thousand steps the start is forgotten.",
        ),
    ),
    Item(
        question="The scale has fallen to 2⁻²⁰ and every step is skipped. What is the likely cause?",
        options=("The gradients are huge", "The growth interval is too long", "Inf or NaN in the forward pass"),
        right=2,
        feedback=(
            "At that scale a gradient of sixty billion would still fit into FP16.",
            "No step was clean, so no interval ever began.",
            "Yes. Inf times any scale is Inf, and the rule halves for ever, or down to its floor.",
        ),
    ),
    Item(
        question="Two libraries both use hysteresis 2. Do they shrink at the same steps?",
        options=(
            "Not always: they differ in when the patience is full again",
            "Yes, that is what the number means",
            "Only if both use the same factor",
        ),
        right=0,
        feedback=(
            "Yes. After a growth, at every clean step, or after every shrink: three meanings of one word.",
            "The table above shows the same nine steps, and a different end for each kind of patience.",
            "The factor says how far the scale falls, not at which step.",
        ),
    ),
)
