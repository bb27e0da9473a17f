"""Checks of lesson 04: which scales are usable, a step that clips too early, and what scaling can cure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mpkit.course.exercises.checker import Feedback, checker, is_open, not_yet, number, passed, require, wrong
from mpkit.course.exercises.matching import matching
from mpkit.course.lesson_04.quiz import QUIZ as QUIZ

# Exercise 04.1: histograms of layers, each {e: values from 2^e up to 2^(e+1)}, and the scales that they allow.
TOP, FLUSHED = 14, -26  # the last column wholly below 65504, and the last that is flushed as a whole
WINDOWS = (
    ({-20: 100}, {-10: 100}),
    ({-31: 5, -30: 95}, {-12: 9000, -5: 1000}),  # the small layer drowns if all values are counted together
    ({-40: 1, -33: 2, -28: 297}, {-22: 150, -3: 50}),  # 1 % may go, and no more
    ({-26: 30, -9: 10}, {-30: 70, -8: 30}, {-18: 20, 3: 1}),  # one single value decides the top
)


@checker("04.1", wants="function")
def usable_scales(answer: Any) -> Feedback:
    """The smallest and the largest power of two that keep 99 % of each layer, and every value finite."""
    asked = "The function should return two whole numbers, the smallest and the largest k."
    for layers in WINDOWS:
        got = answer([dict(layer) for layer in layers])
        require(isinstance(got, (tuple, list)) and len(got) == 2, asked)
        if any(map(is_open, got)):
            return not_yet("Not yet: the smallest or the largest k still waits. Replace the three dots.")
        smallest, largest = (number(one, asked) for one in got)
        lead = f"Layers {', '.join(map(str, layers))}: your scales go from k = {smallest:g} to {largest:g}."
        if problem := _wrong_top(largest, layers) or _wrong_bottom(smallest, layers):
            return wrong(f"{lead} {problem}")
    return passed("Every layer keeps 99 % of its gradients, and the largest of them all stays finite.")


Layers = Sequence[Mapping[int, int]]


def _smallest(layers: Layers, flushed: int = FLUSHED, share: float = 0.01) -> int:
    """The smallest k with which no layer has more than `share` of its values in columns up to `flushed`."""
    return next(k for k in range(-100, 200) if all(
        sum(n for e, n in layer.items() if e + k <= flushed) <= share * sum(layer.values()) for layer in layers
    ))  # fmt: skip


def _wrong_top(k: float, layers: Layers) -> str:
    """What a wrong largest k looks like; "" for the right one."""
    last = [max(layer) for layer in layers]
    right = TOP - max(last)
    if k == right:
        return ""
    if k == 2.0**right:
        return "That is the scale itself; asked is its exponent."
    if k == right + 1:
        return "The last column then reaches up to 2^16. What is FP16's largest number?"
    if k == TOP - min(last) and len(set(last)) > 1:
        return "The layer with the smallest gradients decides nothing at the top."
    return "Some values overflow then." if k > right else "Twice as much would still be finite for every value."


def _wrong_bottom(k: float, layers: Layers) -> str:
    """What a wrong smallest k looks like; "" for the right one."""
    right, pooled = _smallest(layers), {}  # type: tuple[int, dict[int, int]]
    for layer in layers:
        for e, n in layer.items():
            pooled[e] = pooled.get(e, 0) + n
    known = (
        (right, ""),
        (
            _smallest([pooled]),
            "Of all values together 1 % may be gone, but one layer loses far more. Look at each layer.",
        ),
        (_smallest(layers, share=0), "That saves every single value. How many may a layer lose?"),
        (_smallest(layers, flushed=-15), "That keeps all values normal. Subnormals are less exact, but not lost."),
        (
            _smallest(layers, flushed=-25),
            "One column more is safe: not all that is below the smallest number goes to zero.",
        ),
        (
            _smallest(layers, flushed=-27),
            "Round a value of the lowest column that you keep. Which number of FP16 is nearest?",
        ),
    )
    rest = "One layer loses more than 1 % then." if k < right else "A smaller scale would do as well."
    return next((said for value, said in known if k == value), rest)


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
        "raise the scale": "Patient B's largest gradient times its scale: which limit of FP16 is that beyond?",
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
    "E": ("scaling cannot help", {
        "raise the scale": "Patient E: a larger scale multiplies all layers. What becomes of the ratio? And of FP32?",
        "lower the scale": "Patient E has no overflow, and FP32, which needs no scale, does not learn either.",
        "leave it": "Patient E does not learn. That is not healthy.",
    }),
}  # fmt: skip


@checker("04.3")
def five_patients(answer: Any) -> Feedback:
    """Match five symptoms with a cure."""
    done = "Too small, too large, beyond what scaling reaches, and healthy: you can tell them apart."
    return matching(answer, PATIENTS, CURES, each="patient", choice="cure", passes=done)
