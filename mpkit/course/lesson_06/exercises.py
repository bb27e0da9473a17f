"""Checks and quiz of lesson 06: a step over several batches, a schedule that runs ahead, and the article's listing."""

from __future__ import annotations

import math
from typing import Any

import torch

from mpkit import DynamicScale, LossScaler, StaticScale
from mpkit.course.exercises.checker import Feedback, checker, not_yet, passed, require, wrong
from mpkit.course.exercises.matching import matching
from mpkit.course.exercises.quiz import Item
from mpkit.course.lesson_06.listing_lines import LINES, VERDICTS
from mpkit.scaling.step_result import StepResult

SCALE, LONG = 1024.0, (4.0, 5.0, 6.0)  # three batches with gradients so long: their mean is 5, longer than max_norm
PARTS = (0.6, 0.8)  # of a gradient of length 1, one a parameter
MEAN = sum(LONG) / len(LONG)


class _Noting(LossScaler):
    """A scaler that writes down which of its verbs were called, and where a gradient became shorter between them."""

    def __init__(self) -> None:
        super().__init__(StaticScale(SCALE))
        self.calls: list[str] = []
        self._left = 0.0  # how long the gradient was when a verb was done with it

    def _look(self, optimizer: torch.optim.Optimizer) -> float:
        gradients = [p.grad for p in optimizer.param_groups[0]["params"]]
        return math.hypot(*(float(gradient) for gradient in gradients if gradient is not None))

    def scale(self, outputs: Any) -> Any:
        """Noted."""
        self.calls.append("scale")
        return super().scale(outputs)

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Noted; a gradient far below SCALE was made shorter before."""
        self.calls += ["clip"] if 0 < self._look(optimizer) < SCALE else []
        self.calls.append("unscale_")
        super().unscale_(optimizer)
        self._left = self._look(optimizer)

    def step(self, optimizer: torch.optim.Optimizer, closure: Any = None, **options: Any) -> StepResult:
        """Noted; what `unscale_` left and is shorter now was made so between them."""
        before = self._left if "unscale_" in self.calls else SCALE
        self.calls += ["clip"] if 0 < self._look(optimizer) < before else []
        self.calls.append("step")
        return super().step(optimizer, closure, **options)

    def update(self, new_scale: float | torch.Tensor | None = None) -> None:
        """Noted."""
        self.calls.append("update")
        super().update(new_scale)


def _step_of(answer: Any, max_norm: float = 100.0, scaler: LossScaler | None = None) -> float:
    """How far two parameters move together; with this max_norm there is nothing to clip."""
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in PARTS]
    losses = [sum((g * part * w).sum() for part, w in zip(PARTS, weights, strict=True)) for g in LONG]
    answer(losses, scaler or _Noting(), torch.optim.SGD(weights, lr=1.0), max_norm)
    return math.hypot(*(w.item() for w in weights))


def _is_mean(moved: float) -> bool:
    return abs(moved - MEAN) < 0.01


@checker("06.1", wants="function", returns_nothing=True)
def group_of_batches(answer: Any) -> Feedback:
    """One optimizer step from several batches: scale each, unscale once, clip, step, update."""
    scaler = _Noting()
    moved = _step_of(answer, 1.0, scaler)
    if not scaler.calls:
        return not_yet("Not yet: your function never uses the scaler.")
    said = f"You called: {', '.join(scaler.calls)}."
    scaled = scaler.calls.count("scale")  # each loss, or their mean: that is as good where both fit into memory
    require(scaled == len(LONG) or (scaled == 1 and _is_mean(_step_of(answer))), f"{said} There are three losses here.")
    alone = "The weights moved without it: a step that asks nobody is taken on Inf, too."
    require("step" in scaler.calls, f"{said} {'No weight has moved.' if moved == 0 else alone}")
    require("update" in scaler.calls, f"{said} Who tells the scaler that the step is over?")
    if moved == 0:
        return wrong(f"{said} And yet no weight has moved: was there a gradient at the step?")
    divided = scaler.calls.index("unscale_" if "unscale_" in scaler.calls else "step")
    if moved < 0.5 and "clip" in scaler.calls[:divided]:
        return wrong(
            f"{said} The step is {moved:.3g} instead of 1. When it was clipped, the gradient was still {SCALE:g} times "
            "too long: max_norm was compared with a scaled number."
        )
    require(moved <= 1.01, f"{said} The step of both parameters together is {moved:.3g} long, but max_norm is 1.")
    require(moved > 0.99, f"{said} The step is {moved:.3g} instead of 1. Was something divided twice?")
    moved, lead = _step_of(answer), "Gradients of length 4, 5 and 6, max_norm 100: the step is"
    require(abs(moved - sum(LONG)) > 0.01, f"{lead} {moved:.3g}. That is their sum, and the mean was asked for.")
    counted = f"{lead} {moved:.3g} instead of their mean. Does every loss count once, and max_norm as given?"
    require(_is_mean(moved), counted)
    return passed("Three losses scaled, one division, one clip, one step.")


class _Schedule:
    """Counts how often it was advanced."""

    steps = 0

    def step(self) -> None:
        """Advance by one."""
        self.steps += 1


INF, NAN = float("inf"), float("nan")
GROWING = DynamicScale(growth_interval=1)  # its scale changes at every step, taken or skipped
RUNS_INTO = ((DynamicScale(), (1.0, 1.0)), (DynamicScale(), (INF, 1.0, 1.0)), (DynamicScale(), (1.0, NAN, 1.0)),
             (GROWING, (1.0, INF, 1.0)))  # fmt: skip


@checker("06.2", wants="function", returns_nothing=True)
def schedule_after_a_skip(answer: Any) -> Feedback:
    """A scheduler must not advance when the optimizer did not step."""
    for rule, gradients in RUNS_INTO:
        p, schedule = torch.nn.Parameter(torch.zeros(1)), _Schedule()
        optimizer, scaler = torch.optim.SGD([p], lr=1.0), LossScaler(rule)
        for g in gradients:
            optimizer.zero_grad()
            scaler.scale((g * p).sum()).backward()
            answer(scaler, optimizer, schedule)
        stepped = sum(g == 1.0 for g in gradients)
        lead = f"Of {len(gradients)} steps {len(gradients) - stepped} had to be skipped."
        require(-p.item() == stepped, f"{lead} The weight moved {-p.item():g} times instead of {stepped}.")
        if schedule.steps > stepped:
            return wrong(f"{lead} Your schedule advanced {schedule.steps} times. It is ahead of the weights.")
        why = " This scale grew after every step: a scale changes at a skip, and also when it grows."
        behind = f"{lead} Your schedule advanced only {schedule.steps} times.{why if rule is GROWING else ''}"
        require(schedule.steps == stepped, behind)
    return passed("Schedule and weights stay together.")


BACKWARD = "scaler.scale(loss).backward()"
TOP = "A missing zero_grad() may stand at the top of the loop, as well as right before backward()."


@checker("06.3")
def defects(answer: Any) -> Feedback:
    """Judge seven lines of the article's listing."""
    waiting = f"{{count}} of {len(LINES)} lines still wait"
    done = "Also undefined there: num_epochs, train_loader and batch_idx. The repaired listing runs below."
    said = matching(answer, LINES, VERDICTS, each="line", choice="verdict", passes=done, waiting=waiting)
    if said.message != LINES[BACKWARD][1]["fine"]:
        return said
    at_the_top = {**LINES, BACKWARD: ("fine", {})}  # zero_grad() belongs to the loop's first lines as well
    return matching(answer, at_the_top, VERDICTS, each="line", choice="verdict", passes=f"{TOP} {done}")


QUIZ = (
    Item(
        question="Under torch.autocast, in which format are the gradients of a linear layer's output?",
        options=("FP32, always", "The format of its forward pass", "The format of the weights"),
        right=1,
        feedback=(
            "That is what the article says. The table above shows something else.",
            "Yes. Each backward operation runs in the format of its forward operation.",
            "The weights stay FP32; what autocast computes with is a cast copy.",
        ),
    ),
    Item(
        question="Gradients of four batches are added up for one step. Where does unscale_ belong?",
        options=("After each backward", "After the last backward, before clipping", "After step"),
        right=1,
        feedback=(
            "Then the second batch adds scaled gradients to unscaled ones.",
            "Yes. One sum, one division, one clip, one step.",
            "step has already used the gradients then.",
        ),
    ),
    Item(
        question="Two optimizers share one scaler. One finds an Inf. What happens?",
        options=("Both skip", "Only that one skips, and the scale shrinks for both", "Nobody skips"),
        right=1,
        feedback=(
            "Each is judged by its own gradients.",
            "Yes. The scale belongs to the loss, the skip to the optimizer.",
            "An Inf must not reach a weight.",
        ),
    ),
)
