"""Checks and quiz of lesson 03: stochastic rounding, a broken master step, who needs a master copy, the way lost."""

import math
from typing import Any

import torch

from mpkit.course.exercises.checker import Feedback, checker, not_yet, number, passed, require, wrong
from mpkit.course.exercises.matching import matching
from mpkit.course.lesson_03.questions import QUIZ as QUIZ

# x and spacing. Not 1, so that a forgotten spacing shows; one negative, one on the grid.
NUMBERS = ((0.4, 0.25), (1.6, 0.5), (-0.3, 0.25), (0.75, 0.25))
TRIES = 1000  # draws 0.0005, 0.0015, …: evenly spread, so their mean is exact


@checker("03.1", wants="function")
def stochastic_rounding(answer: Any) -> Feedback:
    """One of the two neighbours, the further one as often as its share of the way says."""
    for x, spacing in NUMBERS:
        got, again = ([_number(answer(x, spacing, (k + 0.5) / TRIES)) for k in range(TRIES)] for _ in range(2))
        require(got == again, "The same `draw` gave two different results. Use `draw`: it is all the chance you need.")
        if problem := _wrong_rounding(got, x, spacing):
            return wrong(f"With x = {x} and spacing = {spacing}: {problem}")
    return passed("Each try lands on a neighbour, and over many tries nothing is lost: the mean is x itself.")


def _number(value: Any) -> float:
    asked = "The function should return one finite number, the rounded x."
    got = number(value, asked)
    require(math.isfinite(got), asked)
    return got


def _wrong_rounding(got: list[float], x: float, spacing: float) -> str | None:
    """None for a right rounding; else what it looks like."""
    low, near, mean = math.floor(x / spacing) * spacing, round(x / spacing) * spacing, sum(got) / len(got)
    off = next((g for g in got if abs(g / spacing - round(g / spacing)) > 1e-6), None)
    if off is not None:
        return f"your function returned {off:.6g}, which is no multiple of the spacing."
    far = next((g for g in got if not low - 1e-9 <= g <= low + spacing + 1e-9), None)
    if far is not None:
        return f"your function returned {far:.6g}, but x lies between other values of the grid."
    if abs(mean - x) <= 2 * spacing / TRIES:
        return None
    if len(set(got)) == 1:
        rule = "So does rounding to nearest." if math.isclose(got[0], near) else "That rounds always the same way."
        return f"every try gives {got[0]:.6g}, whatever `draw` is. {rule}"
    if math.isclose(x, near):
        return f"x is on the grid already, but some tries move it, so that the mean is {mean:.4g}."
    up = sum(g > x for g in got) / len(got)
    if math.isclose(up, 0.5, abs_tol=0.01):
        return f"both neighbours come equally often, so the mean is {mean:.4g}. Is x equally far from both?"
    if math.isclose(up, (low + spacing - x) / spacing, abs_tol=0.01):
        return f"the neighbour that is further away comes more often, and the mean is {mean:.4g}."
    return f"the mean over many tries is {mean:.4g}."


# Exercise 03.2: FP16 weights and gradients, FP32 masters. The tiny product lr * grad is 2^-26: 0 in FP16.
LR, STEPS = 2.0**-10, 8
# Learning rate, then weight and gradient: a large, a small, a tiny update; last two weights, one with a gradient < 0.
CASES = (
    (LR, (1.0, 4.0)), (LR, (1.0, 2.0**-2)), (LR, (2.0**-20, 2.0**-16)), (2.0**-8, (0.5, -3.0), (2.0, 1.0)),
)  # fmt: skip


@checker("03.2", wants="function", returns_nothing=True)
def master_step(answer: Any) -> Feedback:
    """Step the FP32 master from itself, in FP32, and copy it to the model."""
    for lr, *weights in CASES:
        if problem := _wrong_masters(answer, lr, *weights):
            return problem
    return passed("The master takes every update in FP32, and the model gets its rounded copy after each step.")


def _wrong_masters(answer: Any, lr: float, *weights: tuple[float, float]) -> Feedback | None:
    """None if eight steps with the same gradients end where they should; else what they look like."""
    params = [torch.nn.Parameter(torch.full((1,), start, dtype=torch.float16)) for start, _ in weights]
    masters = [param.detach().float() for param in params]  # one list for all steps: a new tensor may be put into it
    for _ in range(STEPS):
        for param, (_, grad) in zip(params, weights, strict=True):
            param.grad = torch.full((1,), grad, dtype=torch.float16)
        answer(list(params), masters, lr)
        for param, (start, grad) in zip(params, weights, strict=True):
            if param.dtype != torch.float16:
                now = str(param.dtype)[6:]
                return wrong(f"{_lead(start, grad)} the model's weight is {now} now. It has to stay float16.")
    for place, (param, (start, grad)) in enumerate(zip(params, weights, strict=True)):
        lead = _lead(start, grad)
        kept, seen = masters[place].item(), param.item()
        if place and kept == seen == start:
            return wrong(f"{lead} this second weight of the list does not move. Which weights does your step reach?")
        if problem := _wrong_end(kept, seen, start, grad, lr, lead):
            return problem
    return None


def _lead(start: float, grad: float) -> str:
    return f"Weight {start:.3g}, gradient {grad:.3g}, {STEPS} steps:"


def _wrong_end(kept: float, seen: float, start: float, grad: float, lr: float, lead: str) -> Feedback | None:
    """None if master and weight have arrived."""
    right = start - STEPS * lr * grad
    if not math.isclose(kept, right, rel_tol=1e-6):
        return _wrong_value(kept, seen, start, grad, lr, lead)
    if seen == torch.tensor(right).half().item():
        return None
    known = "as it was" if seen == start else "not the master's rounded value"
    return wrong(f"{lead} the master arrived, but the model's weight is {known}. Who uses the master?")


def _wrong_value(kept: float, seen: float, start: float, grad: float, lr: float, lead: str) -> Feedback:
    """What a master that is not where it should be looks like."""
    if kept == start and seen != start:
        return wrong(f"{lead} the model's weight moved, the master did not. Then it is master of nothing.")
    if kept == start and lr * grad <= 2.0**-25:
        return wrong(f"{lead} nothing moved. `lr * p.grad` is {lr * grad:.3g} here. What is its dtype?")
    if kept == start and torch.tensor(start - lr * grad).half().item() == start:
        return wrong(f"{lead} nothing moved, not even the master. On which format's grid did it land?")
    if kept == start:
        return not_yet(f"Not yet: {lead[0].lower()}{lead[1:]} nothing moves at all.")
    if math.isclose(kept, start - lr * grad, rel_tol=1e-6):
        return wrong(f"{lead} the master is one step away from where it was, not eight. Where did each step begin?")
    if math.isclose(kept, start + STEPS * lr * grad, rel_tol=1e-6):
        return wrong(f"{lead} the master moved uphill.")
    if lr != LR and math.isclose(kept, start - STEPS * LR * grad, rel_tol=1e-6):
        return wrong(f"{lead} the master moved by a learning rate of {LR:.3g}, and `lr` is {lr:.3g}.")
    return wrong(f"{lead} the master is {kept:.6g}; eight exact steps lead to {start - STEPS * lr * grad:.6g}.")


CHOICES = ("needs a master copy", "has one already", "does without")
RUNS = {
    "A": ("needs a master copy", {
        "has one already": "Run A called `model.bfloat16()`. Is there an FP32 number left anywhere in its weights?",
        "does without": "Run A: compare 1e-4 with half a spacing of BF16 near 0.1. The panel's first setting is close.",
    }),
    "B": ("has one already", {
        "needs a master copy": "Run B's parameters: which dtype do they have, and which ones does Adam change?",
        "does without": "Run B's learning rate is as small as run A's. Something keeps its updates. What?",
    }),
    "C": ("does without", {
        "needs a master copy": "Run C: how many spacings of FP16 is 0.001, near 0.1?",
        "has one already": "Run C called `model.half()`, so its only weights are 16-bit.",
    }),
    "D": ("needs a master copy", {
        "has one already": "Run D's optimizer holds the FP16 weights themselves.",
        "does without": "Run D: how many times larger than its update is a weight of 1? And what is FP16's limit?",
    }),
}  # fmt: skip


@checker("03.3")
def four_runs(answer: Any) -> Feedback:
    """Which of four trainings needs FP32 master weights."""
    done = "It is the size of the update against the spacing that decides, not the format alone."
    return matching(answer, RUNS, CHOICES, each="run", choice="choice", passes=done)


# Exercise 03.4: weights on BF16's grid, and updates. From 1 to 2 half a spacing is 2^-8 = 0.0039; no ties in here.
WAYS = (
    ((1.0, 1.0, 1.0, 1.0), (0.001, 0.001, 0.001, 0.25)),  # three of four are lost, and 1.2 % of the way
    ((1.0, 1.5, -1.0, 0.001), (0.003, -0.003, 0.002, 0.002)),  # signs, and a small weight that sees everything
    ((1.0, 1.0, -1.5), (0.005, -0.021, 0.0)),  # nothing is lost; what arrives is not quite what was meant
    ((1.0, -1.0), (0.001, 0.003)),  # everything is lost
)


@checker("03.4", wants="function")
def way_lost(answer: Any) -> Feedback:
    """Sizes of the updates that leave a BF16 weight as it was, as a part of all sizes."""
    asked = "The function should return one number from 0 to 1, the part of the way that is lost."
    for weights, updates in WAYS:
        w, u = torch.tensor(weights).bfloat16().float(), torch.tensor(updates)
        got, right = number(answer(w.clone(), u.clone()), asked), _way_lost(w, u)
        if not math.isclose(got, right, rel_tol=1e-3, abs_tol=1e-6):
            near = [round(x, 3) for x in weights]
            return wrong(f"Weights {near}, updates {list(updates)}: your share is {got:.3g}. {_wrong_way(got, w, u)}")
    return passed("Every update counts by its size. Many small ones may vanish and hardly be missed.")


def _way_lost(weight: torch.Tensor, update: torch.Tensor) -> float:
    lost = (weight + update).bfloat16().float() == weight
    return float(update[lost].abs().sum() / update.abs().sum())


def _wrong_way(got: float, weight: torch.Tensor, update: torch.Tensor) -> str:
    """What a wrong share looks like."""
    after = (weight + update).bfloat16().float()
    lost, way = (after == weight), update.abs().sum()
    known = (
        (float(lost.float().mean()), "That is how many updates are lost. How long are they?"),
        (1 - _way_lost(weight, update), "That looks like the part of the way that arrives."),
        (float(1 - (after - weight).abs().sum() / way), "An update that arrives is not lost, even if it is rounded."),
        (float(update[lost].sum().abs() / update.sum().abs()), "Two updates in opposite directions are still a way."),
        (float(update[lost].sum() / update.sum()), "Two updates in opposite directions are still a way."),
        (float(update[lost].sum() / way), "Two updates in opposite directions are still a way."),
        (0.0, "Nothing lost? Which format's grid has the sum to land on?"),
        (float(update[lost].abs().sum()), "That is a length. A part of the whole way is asked for."),
    )
    return next((said for value, said in known if math.isclose(got, value, rel_tol=1e-3, abs_tol=1e-6)),
                "Which weights are the same after the update?")  # fmt: skip
