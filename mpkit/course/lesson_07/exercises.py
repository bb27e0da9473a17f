"""Checks and quiz of lesson 07: bound a speed-up, take waits out of a loop, say why FP16 is not faster, fit a batch."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from mpkit.course.exercises.checker import Feedback, checker, kind, number, passed, wrong
from mpkit.course.exercises.matching import matching
from mpkit.course.exercises.quiz import Item
from mpkit.course.lesson_07.cases import CASES, CAUSES
from mpkit.course.lesson_07.memory import ledger
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


WAITS = frozenset(
    "item tolist cpu numpy equal __array__ __float__ __int__ __bool__ __index__ __format__ __repr__ __str__ "
    "nonzero argwhere masked_select unique".split()
)


class Watched(Tensor):
    """A tensor that counts how often somebody asks for its value, as a GPU's tensor would make the host wait."""

    waits = 0

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, then do what was asked."""
        name = getattr(func, "__name__", "")
        to_host = name == "cpu" or (name == "to" and _to_the_host([*args[1:], *(kwargs or {}).values()]))
        if to_host or name in WAITS or (name == "__getitem__" and _by_a_mask(args[1])):
            Watched.waits += 1
        if to_host:  # what lies on the CPU is there: to ask for it again does not wait
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {})).as_subclass(Tensor)
        if name == "__format__":  # a subclass knows no ".3f"
            return format(args[0].as_subclass(Tensor), *args[1:])
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


def _to_the_host(asked: Sequence[Any]) -> bool:
    """Does `.to` move the value to the CPU? With a dtype alone it does not."""
    return any(isinstance(what, str | torch.device) and torch.device(what).type == "cpu" for what in asked)


def _by_a_mask(index: Any) -> bool:
    """Does the length of `x[index]` depend on values? Then the host waits to learn it."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) for part in parts)


STEPS, EVERY = 300, 100


@checker("07.2", wants="function")
def a_loop_that_waits(answer: Any) -> Feedback:
    """A training loop that logs a mean every hundred steps, with one wait a line at most."""
    values = [round(3 / (1 + number / 40), 3) for number in range(STEPS)]
    trained: list[int] = []

    def step(batch: int) -> Tensor:
        trained.append(batch)
        return torch.tensor(values[batch]).as_subclass(Watched)

    Watched.waits = 0
    log = answer(step, list(range(STEPS)))
    waits = Watched.waits
    if trained != list(range(STEPS)):
        return wrong(
            f"{STEPS} batches came. Your loop calls step {len(trained)} times; it should once for each, in order."
        )
    lines = len(log) if isinstance(log, Sequence) else kind(log)
    if lines != STEPS // EVERY:
        return wrong(f"{STEPS} batches make a log of 3 means, as a list. What came back: {lines}.")
    for place, given in enumerate(log):
        right = fmean(values[place * EVERY : (place + 1) * EVERY])
        given = number(given, "Each line of the log should be one number: the mean of a hundred losses.")
        if not math.isclose(given, right, rel_tol=1e-4):
            return wrong(
                f"Line {place + 1} of the log should say {right:.4g}, the mean of its hundred losses, not {given:.4g}."
            )
    if waits > STEPS // EVERY:
        return wrong(f"The log is right. But {STEPS} steps made the host wait {waits} times, for a log of 3 lines.")
    return passed("One wait a line. Between two lines the GPU always has work waiting.")


@checker("07.3")
def not_faster(answer: Any) -> Feedback:
    """Match six cases with their cause."""
    done = "Each limit has its own cure: pad, capture, fuse or batch, load ahead; and what stays FP32 stays."
    return matching(answer, CASES, CAUSES, each="case", choice="cause", passes=done)


# memory, parameters, activations of one example
FITS = (
    (80 * 2**30, 1_500_000_000, 300_000_000),
    (18 * 1000 + 20 * 7, 1000, 10),
    (18 * 1000 - 1, 1000, 10),
    (10**6, 7, 3),
)


@checker("07.4", wants="function")
def a_batch_that_fits(answer: Any) -> Feedback:
    """The memory ledger the other way round: how many examples fit."""
    for memory, parameters, activations in FITS:
        given = number(answer(memory, parameters, activations), "The function should return one number: of examples.")
        fixed = int(sum(ledger(parameters, 0, "autocast", "Adam").values()))
        right = max(0, (memory - fixed) // (2 * activations))
        if given == right:
            continue
        lead = (
            f"{memory:,} bytes, {parameters:,} parameters, {activations:,} values an example: you return {given:,.4g}."
        )
        if given < 0:
            return wrong(f"{lead} What if the model alone does not fit?")
        if given == (memory - fixed) / (2 * activations):
            return wrong(f"{lead} A part of an example cannot be trained.")
        if int(given) == max(0, (memory - 16 * parameters) // (2 * activations)):
            return wrong(f"{lead} That is right for FP32 weights alone. What does autocast make of each weight, too?")
        if int(given) == max(0, (memory - fixed) // (4 * activations)):
            return wrong(f"{lead} In which format does autocast keep what lies between the layers?")
        if given == right + 1:
            return wrong(f"{lead} The last of them does not fit any more.")
        return wrong(f"{lead} First subtract all that is there for each parameter. The panel shows four kinds.")
    return passed("What is left for the batch decides: large models leave little of it.")


QUIZ = (
    Item(
        question="A model is trained with Adam under autocast. What happens to the memory of its weights?",
        options=("It is halved", "It stays as it was", "It grows by half"),
        right=2,
        feedback=(
            "That would need FP16 weights without a master copy. Autocast's weights stay FP32.",
            "The FP32 weights do. But each product needs its weights in 16 bits, and keeps them for the backward pass.",
            "Yes. 4 bytes stay, and a 16-bit copy of 2 comes beside them until the backward pass is through.",
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
