"""Checks and quiz of lesson 11: the replica that drifted, a loop that hangs, where to divide."""

import math
from typing import Any

from mpkit.course.exercises.checker import Feedback, checker, kind, passed, plain, require
from mpkit.course.exercises.matching import matching
from mpkit.course.exercises.quiz import Item
from mpkit.course.lesson_11.thread_group import Hang, Mixed, Outcome, run_in_threads

NONE = math.nan
# name -> checksums of each rank after each step, and who drifted first, at which step
LOGS: dict[str, tuple[list[list[float]], tuple[int, int] | None]] = {
    "A": ([[1.5, 2.5, 3.25, 4.0], [1.5, 2.5, 3.25, 4.0], [1.5, 2.5, 3.0, 3.75], [1.5, 2.5, 3.25, 4.0]], (2, 2)),
    "B": ([[1.5, 2.0, 2.5], [1.5, 2.5, 3.25], [1.5, 2.5, 3.25]], (0, 1)),
    "C": ([[1.5, 2.5, 3.25]] * 4, None),
    "D": ([[1.5, 2.5, 3.25], [1.5, 2.5 + 2.0**-40, 3.25 + 2.0**-40], [1.5, 2.5, 3.25]], (1, 1)),
    "E": (
        [[1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 9.0, 99.0], [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.1, 3.1, 4.1, 5.1],
         [1.0, 2.0, 3.0, 4.0, 5.0]],
        (3, 1),
    ),
    "F": ([[1.5, 2.5, 3.25], [1.5, 2.5, 3.25], [1.5, 2.5, 3.25], [1.5, 2.5, NONE]], (3, 2)),
    "G": ([[1.5, 2.5]] * 3 + [[1.5, 2.0]] * 2, (3, 1)),  # two ranks drift alike
    "H": ([[1.5, 2.5], [1.5, NONE], [1.5, 2.5]], (1, 1)),  # what is sorted with a NaN in it has no middle
}  # fmt: skip


@checker("11.1", wants="function", returns_nothing=True)
def the_replica_that_drifted(answer: Any) -> Feedback:
    """Find the rank whose weights first differ from those of most, and the step."""
    for name, (sums, right) in LOGS.items():
        given = _pair(answer([list(row) for row in sums]), f"Log {name}")
        if given != right:
            require(False, f"Log {name}{_at(sums, given or right)}: {_mistake(name, sums, given, right)}")
    return passed("It asks at each step what most ranks have, bit by bit, and stops at the first who differs.")


def _pair(given: Any, lead: str) -> tuple[int, int] | None:
    """Rank and step out of a tuple, a list, an array or a tensor."""
    if given is None:
        return None
    try:
        parts = [] if isinstance(given, str | dict | set) else [plain(part) for part in given]
    except TypeError:
        parts = []
    came = f"{len(parts)} values" if parts and len(parts) != 2 else kind(given)
    wish = f"{lead}: the function should return (rank, step), or None if no rank has drifted, but {came} came."
    require(len(parts) == 2, wish)
    whole = all(isinstance(part, int | float) and math.isfinite(part) and part == int(part) for part in parts)
    require(whole, f"{lead}: rank and step are whole numbers, but {parts[0]!r} and {parts[1]!r} came.")
    return int(parts[0]), int(parts[1])


def _at(sums: list[list[float]], place: tuple[int, int] | None) -> str:
    """The checksums of the step in question, for a learner who cannot see the log."""
    if place is None or not 0 <= place[1] < len(sums[0]):
        return ""
    return f", step {place[1]} ({', '.join(str(row[place[1]]) for row in sums)})"


def _mistake(name: str, sums: list[list[float]], given: tuple[int, int] | None, right: tuple[int, int] | None) -> str:
    if given is None:
        about = {
            "D": "two checksums differ in their last bits (torch.tensor rounds them off, unless its dtype is float64)",
            "F": "a rank has NaN, which is not even equal to itself",
            "G": "ranks 3 and 4 differ from the other three in the same way, so no checksum occurs only once",
        }
        return f"{about.get(name, 'two ranks differ')}, and you find no drift. Equal copies are equal bit by bit."
    if right is None:
        return f"all ranks are equal at every step, and you name rank {given[0]}."
    if given == right[::-1] and len({row[given[1]] for row in sums}) == 1:
        return f"you return {given}, and all ranks are equal there. Rank first, then step."
    if name == "H" and given[0] != right[0]:
        return f"you name rank {given[0]}, but rank 1 has NaN. A list with a NaN in it cannot be sorted; count instead."
    if given[0] != right[0] and right[0] == 0:
        return f"you name rank {given[0]}, but it has what most ranks have. Must rank 0 be right?"
    if given[0] != right[0]:
        return f"you name rank {given[0]} at step {given[1]}. Is it the first one that differs?"
    return f"rank {given[0]} is right. Its step is counted from 0; is {given[1]} the first at which it differs?"


# name -> gradients of each rank, batch by batch
BATCHES = {
    "all good": [[1.0, 2.0, 4.0], [3.0, 2.0, 8.0], [2.0, 5.0, 0.0]],
    "one bad batch": [[1.0, 2.0, 4.0, 1.0], [3.0, math.inf, 8.0, 4.0], [2.0, 5.0, 0.0, 1.0]],
    "two ranks, a bad batch each": [[1.0, math.inf, 4.0, 1.0], [3.0, 2.0, math.nan, 4.0], [2.0, 5.0, 0.0, math.nan]],
    "the last one bad": [[1.0, 2.0], [3.0, -math.inf], [2.0, 5.0]],
}


@checker("11.2", wants="function", returns_nothing=True)
def a_loop_that_hangs(answer: Any) -> Feedback:
    """A loop whose ranks all skip a step if one must."""
    for name, batches in BATCHES.items():
        outcome = run_in_threads(answer, batches)
        require(not outcome.endless, f"{name.capitalize()}: a rank goes on and on. Does your loop end?")
        if outcome.error is not None and not isinstance(outcome.error, Hang | Mixed):
            raise outcome.error
        _judge_steps(name.capitalize(), batches, outcome)
    return passed(
        "Every rank makes the same calls in the same order, and all know before the step whether one must skip."
    )


def _judge_steps(name: str, batches: list[list[float]], outcome: Outcome) -> None:
    error = outcome.error
    require(not isinstance(error, Hang), f"{name}: {error}. A real run waits until its timeout, 10 minutes or more.")
    require(not isinstance(error, Mixed), f"{name}: {error}. The n-th calls of all ranks meet, whatever they are.")
    columns = list(zip(*batches, strict=True))
    good = [sum(column) / len(column) for column in columns if all(map(math.isfinite, column))]
    for rank, steps in enumerate(outcome.steps):
        lost = f"{name}: rank {rank} steps with Inf or NaN, and its weights are lost."
        require(all(map(math.isfinite, steps)), lost)
    for rank, steps in enumerate(outcome.steps):
        differ = f"{name}: rank 0 steps with {outcome.steps[0]} and rank {rank} with {steps}. The replicas drift."
        require(steps == outcome.steps[0], differ)
    steps = outcome.steps[0]
    few = f"{name}: {_several(len(good), 'batch', 'es')} good on all ranks, and {_several(len(steps), 'step')} made."
    require(len(steps) >= len(good), few)
    require(steps == good, f"{name}: means of {steps} come out, and {good} should. {_why(columns, steps, good)}")


def _several(number: int, what: str, more: str = "s") -> str:
    return f"{number} {what} is" if number == 1 else f"{number} {what}{more} are"


def _why(columns: list[tuple[float, ...]], steps: list[float], good: list[float]) -> str:
    if len(steps) == len(good):
        return "Nobody waits for ever, but gradients of different batches meet."
    kept = [step for step, column in zip(steps, columns, strict=False) if all(map(math.isfinite, column))]
    if len(steps) == len(columns) and kept == good and steps.count(0.0) == len(steps) - len(good):
        return "A step with 0 is a step all the same: momentum and weight decay go on. All are to skip it."
    return "A step is made without the part of the bad rank. All are to skip it."


PLACES = ("before the sum", "by 8 before, by 8 after", "after the sum", "nowhere: sum in FP32")
BEFORE, ROOT, AFTER, NOWHERE = PLACES
# 64 ranks, all with the same gradient. FP16 ends at 65,504 and has all its bits down to 2^-14.
CASES = {
    "A": (BEFORE, {
        ROOT: "A: a rank sends 60,000 / 8. What do 64 of those add up to?",
        AFTER: "A: what do 64 times 60,000 add up to?",
        NOWHERE: "A: there is a place in FP16. How far may 2^-4 be divided, and how large is the sum of all 64 then?",
    }),
    "B": (AFTER, {
        BEFORE: "B: what does the smallest value become when it is divided first? Does FP16 keep its bits?",
        ROOT: "B: the smallest value has no power of two to spare. What does a division do to it?",
        NOWHERE: "B: there is a place in FP16. All 64 ranks have the same: what do 900 and 2^-14 add up to, undivided?",
    }),
    "C": (ROOT, {
        BEFORE: "C: the smallest value may be divided, but not by so much.",
        AFTER: "C: what do 64 times 6,000 add up to?",
        NOWHERE: "C: there is a place in FP16. How far may 2^-11 be divided, and how large is the sum of all 64 then?",
    }),
    "D": (NOWHERE, {
        BEFORE: "D: the sum is fine then. And the smallest value?",
        ROOT: "D: both ends are wrong then. Look at each.",
        AFTER: "D: the smallest value is fine then. And the sum?",
    }),
}  # fmt: skip


@checker("11.3")
def where_to_divide(answer: Any) -> Feedback:
    """Match four jobs with the place where the mean is divided."""
    done = "Dividing moves the window, it does not widen it: what is saved at one end is lost at the other."
    return matching(answer, CASES, PLACES, each="job", choice="place", passes=done)


QUIZ = (
    Item(
        question="DDP, GradScaler, four ranks. One rank's batch has an Inf in it. Which ranks skip the step?",
        options=("that rank alone", "all four", "none: the mean is finite"),
        right=1,
        feedback=(
            "What does the sum of the gradients hold, on every rank?",
            "Yes. Inf rides through the sum to everybody. Nobody has to agree.",
            "What is a quarter of Inf?",
        ),
    ),
    Item(
        question="A hook makes an Inf in one rank's gradients, after DDP's sum. LossScaler() as it comes. Then:",
        options=("all ranks skip", "that rank alone skips", "the hook is not seen"),
        right=1,
        feedback=(
            "Whom does the default ask, if all gradients are plain tensors?",
            "Yes. If all gradients are plain tensors, its default asks nobody. With process_group= all skip.",
            "When is the test for Inf made: before or after the hook?",
        ),
    ),
    Item(
        question="The same rule on 8 ranks, then on 10,000. A lower scale overflows less. In the long run:",
        options=("a thousand times as many skips", "the scale is lower", "nothing changes"),
        right=1,
        feedback=(
            "How many clean steps does it take until the scale rises? Can it fall more often than it rises?",
            "Yes. It sinks until rises and falls are in balance, and skips are as rare as before.",
            "At the same scale, who has the largest of 10,000 gradients?",
        ),
    ),
)
