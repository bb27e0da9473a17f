"""Checks and quiz of lesson 04: the largest scale, a step that clips too early, and what scaling can cure."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from mpkit import FP16, cast
from mpkit.course.exercises.checker import Feedback, checker, not_yet, number, passed, require, wrong
from mpkit.course.exercises.matching import matching
from mpkit.course.exercises.quiz import Item

# Gradients whose largest scale lies well inside a factor of two, so that 65504 and 65520 give the same answer.
AMAX = (1.0, 0.9, 3.0, 2.0**-15.8, 600.0)


@checker("04.1", wants="function")
def largest_scale(answer: Any) -> Feedback:
    """The largest power of two that keeps amax finite: 2^floor(log2(65504 / amax)) away from the edge."""
    for amax in AMAX:
        scale = number(answer(amax), "The function should return a number, the scale.")
        right = 2.0 ** math.floor(math.log2(FP16.max / amax))
        if scale != right:
            return wrong(_wrong_scale(scale, amax, right))
    return passed("The largest gradient stays finite, and doubling the scale once more would make it Inf.")


def _wrong_scale(scale: float, amax: float, right: float) -> str:
    power_of_two = math.frexp(scale)[0] == 0.5
    shown = f"{scale:.6g}" if power_of_two or float(f"{scale:.6g}") == scale else repr(scale)
    where = f"With amax = {amax:.3g} your scale is {shown}."
    if scale <= 0 or not math.isfinite(scale):
        return f"{where} A scale is a positive, finite number."
    if scale == math.log2(right):
        return f"{where} That looks like the exponent; the scale itself is 2 to that power."
    if not power_of_two:
        return f"{where} That is no power of two, so multiplying by it rounds every gradient a little."
    if not torch.isfinite(cast(torch.tensor(amax * scale), FP16)):
        return f"{where} Then {amax:.3g} × {shown} is too large for FP16 and becomes Inf."
    if amax * scale < 1:
        return f"{where} That leaves the largest gradient far below FP16's top. Which limit of the format matters here?"
    return f"{where} It is safe, but not the largest: twice as much would still be finite."


# Exercise 04.2: true gradients, and the scale that they are multiplied by. Long ones must be clipped, short ones not.
LONG, SHORT = (3.0, 4.0), (0.3, 0.4)
STEPS = ((1.0, LONG), (65536.0, LONG), (65536.0, SHORT), (1024.0, SHORT))
# Scaled gradients of which one is not finite: the first, the last, and one that only a test for NaN sees.
BROKEN = ((math.inf, 1.0), (1.0, -math.inf), (math.nan, 1.0))
MAX_NORM, LR, START = 1.0, 0.1, 2.0**-14  # START: a weight of 0 would hide a step that forgets the old weight


@checker("04.2", wants="function", returns_nothing=True)
def clip_in_order(answer: Any) -> Feedback:
    """One SGD step from scaled gradients must equal the FP32 step: unscale, check, clip, update."""
    for scale, grads in STEPS:
        moved = _moved(answer, [g * scale for g in grads], scale)
        if problem := _wrong_step(moved, grads, scale):
            return problem
    for scaled in BROKEN:
        moved = _moved(answer, scaled, 65536.0)
        bad = next(g for g in scaled if not math.isfinite(g))
        lead = f"One scaled gradient was {'NaN' if math.isnan(bad) else 'Inf'}, and"
        finite = all(map(math.isfinite, moved))
        require(finite, f"{lead} now the weights are not finite. A weight that is NaN once stays NaN.")
        require(moved == [0.0, 0.0], f"{lead} still a weight moved. The whole step has to be left out.")
    return passed("The same step as in FP32, whatever the scale; and Inf or NaN leaves the weights alone.")


def _moved(answer: Any, grads: Sequence[float], scale: float) -> list[float]:
    params = [torch.nn.Parameter(torch.full((1,), START)) for _ in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.tensor([g])
    answer(params, scale, MAX_NORM, LR)
    return [p.item() - START for p in params]


def _wrong_step(moved: list[float], grads: Sequence[float], scale: float) -> Feedback | None:
    """None for the step that FP32 would make; else what the step looks like, if it is a known mistake."""
    right, scaled = _clipped(grads), [g * scale for g in grads]
    if _is_step(moved, right):
        return None
    if all(m == 0 for m in moved):
        return not_yet("Not yet: the weights do not move at all.")
    if not all(map(math.isfinite, moved)):
        return wrong("Already with ordinary gradients your weights are not finite.")
    length = math.hypot(*grads)
    lead = (
        f"At scale {scale:.0f}, with a true gradient of length {length:.1f}, "
        f"your step is {math.hypot(*moved) / (LR * math.hypot(*right)):.3g} times as long as the FP32 step."
    )
    known = (
        (grads, "It was let through at full length although `max_norm` is 1."),
        ([-g for g in right], "And it points uphill."),
        (scaled, "The scale is still in the gradients."),
        ([g / scale for g in grads], "The scale was divided out once too often."),
        (_clipped(scaled), "Nothing had to be clipped here. Which gradients did the clipping see?"),
        ([g / scale for g in _clipped(scaled)], "What did the norm look like when it was compared with `max_norm`?"),
    )
    reason = next((text for step, text in known if _is_step(moved, step)), "Print the gradients after each line.")
    return wrong(f"{lead} {reason}")


def _clipped(grads: Sequence[float]) -> list[float]:
    return [g * min(1.0, MAX_NORM / math.hypot(*grads)) for g in grads]


def _is_step(moved: Sequence[float], grads: Sequence[float]) -> bool:
    return all(math.isclose(m, -LR * g, rel_tol=1e-4) for m, g in zip(moved, grads, strict=True))


CURES = ("raise the scale", "lower the scale", "scaling cannot help", "leave it")
PATIENTS = {
    "A": ("raise the scale", {
        "lower the scale": "Patient A loses gradients at the bottom. Lowering the scale pushes more of them out.",
        "scaling cannot help": "Patient A's forward pass is fine. Only the gradients are too small.",
        "leave it": "Patient A loses 38 % of the gradients and does not learn. That is not healthy.",
    }),
    "B": ("lower the scale", {
        "raise the scale": "Patient B's largest scaled gradient is 2^17 already. Which limit of FP16 is that beyond?",
        "scaling cannot help": "Patient B's unscaled gradients are ordinary numbers. Who made them so large?",
        "leave it": "Patient B skips every step, so nothing is learned.",
    }),
    "C": ("scaling cannot help", {
        "raise the scale": "Patient C's Inf comes before there is any gradient: the loss itself is Inf.",
        "lower the scale": "Patient C's Inf is there before the scale is used. Any scale times Inf is Inf.",
        "leave it": "Patient C's loss is Inf. That does not heal by itself.",
    }),
    "D": ("leave it", {
        "raise the scale": "Patient D loses almost nothing. What would more scale bring, and what would it risk?",
        "lower the scale": "Patient D has no overflow at all. Why lower what does not overflow?",
        "scaling cannot help": "Patient D is not ill: the loss falls as in FP32.",
    }),
}  # fmt: skip


@checker("04.3")
def four_patients(answer: Any) -> Feedback:
    """Match four symptoms with a cure."""
    done = "Too small, too large, too early for scaling, and healthy: you can tell them apart."
    return matching(answer, PATIENTS, CURES, each="patient", choice="cure", passes=done)


QUIZ = (
    Item(
        question="A gradient value is 2⁻²⁶. FP16's smallest subnormal is 2⁻²⁴. What does FP16 make of it?",
        options=("2⁻²⁴, the nearest number above", "2⁻²⁶, as a subnormal", "0"),
        right=2,
        feedback=(
            "2⁻²⁶ is closer to 0 than to 2⁻²⁴. Everything up to 2⁻²⁵, half the smallest subnormal, goes to 0.",
            "Subnormals reach down to 2⁻²⁴, and between 0 and 2⁻²⁴ FP16 has no number.",
            "Yes. Up to 2⁻²⁵, half of the smallest subnormal, everything is flushed to zero.",
        ),
    ),
    Item(
        question="Why is the loss scale a power of two?",
        options=(
            "Because multiplying and dividing by it changes only the exponent, so nothing is rounded",
            "Because GPUs can only multiply by powers of two",
            "Because FP16 can only store powers of two",
        ),
        right=0,
        feedback=(
            "Yes. The mantissa bits stay as they are, so scaling and unscaling cost no precision.",
            "GPUs multiply by any number. But another factor would round every gradient twice.",
            "FP16 stores 1,024 numbers between one power of two and the next.",
        ),
    ),
    Item(
        question="A net of eleven layers with sigmoids between them does not train in FP32 either: its first layer's "
        "gradient is a hundred million times smaller than its last layer's. Does loss scaling help?",
        options=(
            "Yes, it lifts the first layer's gradients",
            "No, it multiplies all layers alike, and after unscaling nothing has changed",
            "Only with dynamic scaling",
        ),
        right=1,
        feedback=(
            "It lifts them for the journey, and unscaling takes the lift away again. FP32 needed no lift.",
            "Yes. The ratio between layers is a property of the net. Scaling protects numbers from FP16's lower limit.",
            "Dynamic scaling finds the factor by itself, but it is still one factor for all layers.",
        ),
    ),
)
