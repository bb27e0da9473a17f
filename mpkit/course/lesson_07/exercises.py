"""Checks and quiz of lesson 07: bound a speed-up, take the waits out of a loop, say why FP16 is not faster."""

import math
from typing import Any

import torch
from torch import Tensor

from mpkit.course.exercises.checker import Feedback, checker, number, passed, wrong
from mpkit.course.exercises.matching import matching
from mpkit.course.exercises.quiz import Item
from mpkit.course.recorded.speed import amdahl

TIMES = ((30.0, 60.0, 10.0, 3.0), (80.0, 160.0, 1.0, 4.0), (10.0, 0.0, 0.0, 2.0), (5.0, 5.0, 0.0, 1.0))


@checker("07.1", wants="function")
def a_bound(answer: Any) -> Feedback:
    """Amdahl's law for a step of which only the forward pass becomes faster."""
    for forward, backward, update, speedup in TIMES:
        given = number(
            answer(forward, backward, update, speedup), "The function should return one number: by what factor."
        )
        right = amdahl(forward, backward + update, speedup)
        if math.isclose(given, right, rel_tol=1e-6):
            continue
        lead = f"forward {forward:g}, backward {backward:g}, update {update:g}, speedup {speedup:g}: you return "
        lead += f"{given:.4g}."
        if math.isclose(given, 1 / right, rel_tol=1e-6):
            return wrong(f"{lead} That is after divided by before. Is a step that became faster a factor below 1?")
        if update and math.isclose(given, amdahl(forward, backward, speedup), rel_tol=1e-6):
            return wrong(f"{lead} The step has a third part.")
        if math.isclose(given, speedup, rel_tol=1e-6):
            return wrong(f"{lead} That would be so if the forward pass were the whole step.")
        if math.isclose(given, amdahl(backward, forward + update, speedup), rel_tol=1e-6):
            return wrong(f"{lead} It is another part that becomes faster.")
        return wrong(f"{lead} Before it takes {forward + backward + update:g} ms. How long does it take after?")
    return passed("That is Amdahl's law. It tells you before you program whether it is worth it.")


WAITS = frozenset("item tolist cpu numpy __float__ __int__ __bool__ __format__ __index__".split())


class Watched(Tensor):
    """A tensor that counts how often somebody asks for its value, as a GPU's tensor would make the host wait."""

    waits = 0

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, then do what was asked."""
        if getattr(func, "__name__", "") in WAITS:
            Watched.waits += 1
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


@checker("07.2", wants="function")
def a_loop_that_waits(answer: Any) -> Feedback:
    """The mean of many losses with one wait for the device at most."""
    values = [2.5, 1.5, 1.0, 0.75, 0.25]
    Watched.waits = 0
    given = answer([torch.tensor(value).as_subclass(Watched) for value in values])
    waits = Watched.waits
    given = number(given, "The function should return one number: the mean of the losses.")
    if not math.isclose(given, sum(values) / len(values), rel_tol=1e-6):
        return wrong(f"Of the losses 2.5, 1.5, 1, 0.75, 0.25 the mean is 1.2; you return {given:.4g}.")
    if waits > 1:
        return wrong(f"The mean is right. But {len(values)} losses made the host wait {waits} times.")
    return passed("One wait. In a training loop: add up on the device, and read every hundred steps.")


CAUSES = ("misaligned", "launch-bound", "memory-bound", "waits for data")
CASES = {
    "A": ("misaligned", {
        "launch-bound": "Case A's last layer is huge. Starting it takes no time at all beside that.",
        "memory-bound": "Case A is a product with tens of thousands of columns: plenty of arithmetic for each byte.",
        "waits for data": "Case A loses its time inside one layer, not between the steps.",
    }),
    "B": ("launch-bound", {
        "misaligned": "Case B: nobody said that its sizes are odd. And twice the work takes no longer?",
        "memory-bound": "Case B: twice the batch moves twice the bytes. A memory that is the limit would need longer.",
        "waits for data": "Case B: twice the data would take twice as long to read.",
    }),
    "C": ("memory-bound", {
        "misaligned": "Case C has no matrix products. How their rows lie in memory plays no part in it.",
        "launch-bound": "Case C did become almost twice as fast. A launch takes the same time in every format.",
        "waits for data": "Case C's time is spent in kernels, as the profiler shows.",
    }),
    "D": ("waits for data", {
        "misaligned": "Case D: all of the GPU is idle, and only between the steps.",
        "launch-bound": "Case D: it is the disk that is slow, not the start of kernels.",
        "memory-bound": "Case D: the GPU's memory is idle as well.",
    }),
}  # fmt: skip


@checker("07.3")
def not_faster(answer: Any) -> Feedback:
    """Match four cases with their cause."""
    done = "Four limits, four cures: pad, capture, fuse, load ahead."
    return matching(answer, CASES, CAUSES, each="case", choice="cause", passes=done)


QUIZ = (
    Item(
        question="A model has 7 billion parameters and is trained with Adam. What does autocast halve?",
        options=("Its weights", "Its activations", "Adam's state"),
        right=1,
        feedback=(
            "Autocast keeps the weights in FP32 and casts copies for each product.",
            "Yes. What the backward pass needs is kept in FP16. All the rest stays as it was.",
            "Adam's two averages stay FP32.",
        ),
    ),
    Item(
        question="Forward takes a third of a step. Only forward becomes faster. What is the most to gain?",
        options=("A factor of 3", "No limit: it depends on the GPU", "A factor of 1.5"),
        right=2,
        feedback=(
            "That would need the backward pass to vanish.",
            "However fast the forward pass, the backward pass takes its two thirds.",
            "Yes. With no forward pass at all, two thirds are left: 1 / (2/3) = 1.5.",
        ),
    ),
    Item(
        question="A small model is slower in FP16 than in FP32. What helps?",
        options=("Capture the step in a CUDA graph", "A larger loss scale", "BF16 instead of FP16"),
        right=0,
        feedback=(
            "Yes. Its time is launches, and a graph starts them all at once.",
            "The scale has nothing to do with the speed.",
            "BF16 spares the scaler's launches, but its casts are as many.",
        ),
    ),
)
