"""Checks and quiz of lesson 04: the largest scale, a step that clips too early, and what scaling can cure."""

from __future__ import annotations

import math
from typing import Any

import torch

from mpkit.casting import cast
from mpkit.exercises.check import Feedback, checker, not_yet, passed, require, wrong
from mpkit.exercises.quiz import Item
from mpkit.formats import FP16

# Gradients whose largest scale lies well inside a factor of two, so that 65504 and 65520 give the same answer.
AMAX = (1.0, 0.9, 3.0, 2.0**-15.8, 600.0)


@checker("04.1")
def largest_scale(answer: Any) -> Feedback:
    """The largest power of two that keeps amax finite: 2^floor(log2(65504 / amax)) away from the edge."""
    for amax in AMAX:
        scale = answer(amax)
        require(isinstance(scale, int | float), "The function should return a number, the scale.")
        right = 2.0 ** math.floor(math.log2(FP16.max / amax))
        if scale != right:
            return wrong(_wrong_scale(float(scale), amax, right))
    return passed("The largest gradient stays finite, and doubling the scale once more would make it Inf.")


def _wrong_scale(scale: float, amax: float, right: float) -> str:
    where = f"With amax = {amax:.3g} your scale is {scale:.6g}."
    if scale <= 0 or not math.isfinite(scale):
        return f"{where} A scale is a positive, finite number."
    if scale == math.log2(right):
        return f"{where} That looks like the exponent; the scale itself is 2 to that power."
    if not math.log2(scale).is_integer():
        return f"{where} That is no power of two, so multiplying by it rounds every gradient a little."
    if not torch.isfinite(cast(torch.tensor(amax * scale), FP16)):
        return f"{where} Then {amax:.3g} × {scale:.6g} is too large for FP16 and becomes Inf."
    if amax * scale < 1:
        return f"{where} That leaves the largest gradient far below FP16's top. Which limit of the format matters here?"
    return f"{where} It is safe, but not the largest: twice as much would still be finite."


@checker("04.2", returns_nothing=True)
def clip_in_order(answer: Any) -> Feedback:
    """One SGD step from scaled gradients must equal the FP32 step: unscale, check, clip, update."""
    for scale, grads, what in (
        (1.0, (3.0, 4.0), "unscaled, to be clipped"),
        (65536.0, (3.0, 4.0), "to be clipped"),
        (65536.0, (0.3, 0.4), "short enough already"),
        (1024.0, (0.3, 0.4), "short enough already"),
    ):
        wanted = [-0.1 * g * min(1.0, 1.0 / math.hypot(*grads)) for g in grads]
        moved = _moved(answer, [g * scale for g in grads], scale)
        problem = _wrong_step(moved, wanted, scale, what)
        if problem:
            return problem
    moved = _moved(answer, [math.inf, 1.0], 65536.0)
    require(
        not any(map(math.isnan, moved)) and not any(map(math.isinf, moved)),
        "One gradient was Inf, and now the weights are not finite. A weight that is NaN once stays NaN.",
    )
    require(moved == [0.0, 0.0], "One gradient was Inf, and still a weight moved. The whole step has to be left out.")
    return passed("The same step as in FP32, whatever the scale; and an Inf leaves the weights alone.")


def _moved(answer: Any, grads: list[float], scale: float) -> list[float]:
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.tensor([g])
    answer(params, scale, 1.0, 0.1)  # max_norm 1, learning rate 0.1
    return [p.item() for p in params]


def _wrong_step(moved: list[float], wanted: list[float], scale: float, what: str) -> Feedback | None:
    if all(math.isclose(m, w, rel_tol=1e-4) for m, w in zip(moved, wanted, strict=True)):
        return None
    if all(m == 0 for m in moved):
        return not_yet("Not yet: the weights do not move at all.")
    factor = moved[0] / wanted[0]
    lead = f"At scale {scale:.0f}, with a gradient that is {what}, your step is {abs(factor):.3g} times the FP32 step."
    if factor < 0:
        return wrong(f"{lead} And it points uphill.")
    if scale > 1 and math.isclose(factor, scale, rel_tol=0.01):
        return wrong(f"{lead} The scale is still in the gradients.")
    if scale > 1 and math.isclose(factor, 1 / scale, rel_tol=0.01) and what.startswith("short"):
        return wrong(f"{lead} A gradient of norm 0.5 was divided by the scale once too often, or clipped though short.")
    if scale > 1 and factor < 0.01:
        return wrong(f"{lead} What did the norm look like at the moment when it was compared with max_norm?")
    if math.isclose(factor, 5.0, rel_tol=0.01):
        return wrong(f"{lead} A norm of 5 was let through although max_norm is 1.")
    return wrong(f"{lead} Change the order of the lines, not the arithmetic in them.")


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
    require(isinstance(answer, dict), 'The answer is a dict with one cure a patient, such as {"A": "leave it", …}.')
    if any(answer.get(name) in (None, ...) for name in PATIENTS):
        missing = [name for name in PATIENTS if answer.get(name) in (None, ...)]
        return not_yet(f"Not yet: patient {', '.join(missing)} still waits. Replace the three dots.")
    for name, (right, comments) in PATIENTS.items():
        given = answer[name]
        require(given in CURES, f"Patient {name}: {given!r} is not one of the cures: {'; '.join(CURES)}.")
        require(given == right, comments.get(given, ""))
    return passed("Too small, too large, too early for scaling, and healthy: you can tell them apart.")


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
        question="A net of ten sigmoid layers does not train in FP32 either: its first layer's gradient is a "
        "hundred million times smaller than its last layer's. Does loss scaling help?",
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
