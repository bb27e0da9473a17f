"""Checks and quiz of lesson 10: a test that tells look-alikes apart, a bug without a NaN, the calls of an iteration."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from mpkit.course.exercises.checker import Feedback, checker, number, passed, require, wrong
from mpkit.course.exercises.quiz import Item
from mpkit.course.lesson_10.slow_script import LINES

CAUSES = ("loss scale", "precision", "not precision")
# Name -> the cause, and whether everything is finite at a loss scale, in FP32 or as it is. At 65,536 as it is: none.
STEPS: dict[str, tuple[str, Callable[[float, bool], bool]]] = {
    "A": ("loss scale", lambda scale, fp32: fp32 or scale <= 4096),
    "B": ("precision", lambda scale, fp32: fp32),
    "C": ("not precision", lambda scale, fp32: False),
    "D": ("loss scale", lambda scale, fp32: fp32 or scale <= 4),
}
HEARS = {
    (
        "loss scale",
        "precision",
    ): "FP32 cures it, and so does a smaller scale. Which of the two sets the causes apart, and "
    "how small must the scale be?",
    ("loss scale", "not precision"): "in FP32 it is finite, so it is no fault of data or formula.",
    ("precision", "loss scale"): "it is not finite at any scale, as small as it may be.",
    ("precision", "not precision"): "in FP32 it is finite, so it is no fault of data or formula.",
    ("not precision", "loss scale"): "no scale cures it. Did you ask at all?",
    ("not precision", "precision"): "in FP32 it is not finite either. Can the format be the reason?",
}


def _runner(name: str, finite: Callable[[float, bool], bool], runs: list[tuple[float, bool]]) -> Callable[..., bool]:
    def run(scale: float = 65536.0, fp32: bool = False) -> bool:
        runs.append((scale, fp32))
        require(len(runs) <= 40, f"Step {name}: you ran it forty times. Does your loop end?")
        return bool(finite(float(scale), bool(fp32)))

    return run


@checker("10.1", wants="function")
def tell_apart(answer: Any) -> Feedback:
    """A test that tells a loss scale that is too high from an overflow of its own, and from bad data."""
    for name, (cause, finite) in STEPS.items():
        runs: list[tuple[float, bool]] = []

        given = answer(_runner(name, finite, runs))
        require(isinstance(given, str), f"The function should return one of three texts: {'; '.join(CAUSES)}.")
        said = given.strip().casefold()
        require(said in CAUSES, f"{given!r} is not one of the causes: {'; '.join(CAUSES)}.")
        require(runs, f"Step {name}: you answer without a run. All four look alike as they are.")
        if said != cause:
            return wrong(f"Step {name}: you say {said!r}, but {HEARS[cause, said]}")
    return passed("FP32 sets the format apart from data and formula, and a small scale sets the scale apart.")


FAULT = next(k for k, line in enumerate(LINES, 1) if ".half()" in line)
BACK = next(k for k, line in enumerate(LINES, 1) if ".float()" in line and "model(" not in line)
# What is said of lines that are suspected with some right: a part of the line -> why it is innocent.
INNOCENT = {
    "zero_grad": "gradients are cleared before every backward pass, without a condition. That is right.",
    "autocast": "one autocast block a forward pass. That is right.",
    "backward": "the scaled loss goes backward. That is right.",
    "unscale_": "unscaled once, before clipping, with the optimizer itself. That is right.",
    "clip_grad": "it comes after unscaling. That is right.",
    "scaler.step": "the scaler steps the optimizer. That is right.",
    "scaler.update": "once an iteration, after the step. That is right.",
    "schedule": "it moves only when the optimizer did, and it is constant anyway.",
    "lr=1e-4": "each step of Adam moves a weight by about 1e-4. FP32 holds that. Who does not?",
    "before": "the scale before and after tells whether the step was skipped. That is right.",
    "no_grad": "no gradient is needed there. That is right.",
    "F.mse_loss": "the loss is computed in FP32. Look at what happens to the weights.",
    "evaluate(model": "you are near: something happens there. Which line of it?",
    "model.train()": "back to training, as it should be. Is all else back, too?",
    "model.eval()": "evaluation mode. That is right.",
}

OTHER = "it is innocent. Compare the weights before and after each part of an epoch."


@checker("10.2")
def silent_bug(answer: Any) -> Feedback:
    """The number of the line that undoes the training."""
    given = number(answer, "The answer is a number: that of the line.")
    require(given == int(given) and 1 <= given <= len(LINES), f"The script has lines 1 to {len(LINES)}.")
    line = LINES[int(given) - 1]
    if given in (FAULT, BACK):
        return passed(
            "The weights go through 16 bits and back. What they had gained was below half a spacing there: lost."
        )
    require(line.strip(), f"Line {int(given)} is empty.")
    why = next((said for part, said in INNOCENT.items() if part in line), OTHER)
    return wrong(f"Line {int(given)}: {why}")


CALLS = ("zero_grad", "forward", "backward", "unscale_", "clip", "step", "update", "schedule")
# (what comes first, what comes later, what is said where it does not); zero_grad has a rule of its own.
RULES = (
    ("forward", "backward", "there is no loss yet that could go backward."),
    ("backward", "unscale_", "there are no gradients yet that could be unscaled."),
    ("unscale_", "clip", "a limit on the norm is meant for gradients without the loss scale."),
    ("backward", "clip", "there is nothing to clip yet."),
    ("clip", "step", "what is clipped after the optimizer was there comes too late."),
    ("unscale_", "step", "the scaler unscales by itself then, and yours comes second."),
    ("step", "update", "the scaler counts what the step has found, and forgets it then."),
    ("update", "schedule", "whether the step was taken shows in the scale, and that has not changed yet."),
)


def _bare(call: str) -> str:
    """A call by its name alone: "optimizer.zero_grad()" is zero_grad. Of a step it matters whose it is."""
    name = re.sub(r"\(.*?\)", "", call).strip().casefold()
    owner, _, bare = name.rpartition(".")
    if bare == "step" and owner not in ("", "scaler"):
        return "schedule" if owner.startswith("schedul") else name
    return bare


@checker("10.3")
def calls_in_order(answer: Any) -> Feedback:
    """The calls of one iteration with loss scaling, clipping and a schedule, in order."""
    require(isinstance(answer, Sequence) and not isinstance(answer, str), "The answer is a list of eight names.")
    given = [_bare(str(name)) for name in answer]
    unknown = [str(name) for name, bare in zip(answer, given, strict=True) if bare not in CALLS]
    require(not unknown, f"{unknown[0] if unknown else ''!r} is none of the eight names.")
    twice = [name for name in CALLS if given.count(name) > 1]
    require(not twice, f"{twice[0] if twice else ''} is there twice.")
    missing = [name for name in CALLS if name not in given]
    require(not missing, f"{missing[0] if missing else ''} is missing.")
    place = {name: given.index(name) for name in CALLS}
    for first, later, why in RULES:
        require(place[first] < place[later], f"{later} comes before {first}: {why}")
    cleared = place["zero_grad"]
    require(not place["backward"] < cleared < place["step"], "zero_grad comes between backward and step: what is the "
            "optimizer to step with?")  # fmt: skip
    return passed("Each call finds what the one before it has left.")


QUIZ = (
    Item(
        question="The loss is NaN. The same batch from the same state in FP32: NaN. What is it?",
        options=(
            "an overflow of FP16",
            "data or formula, or a state that was bad before",
            "a loss scale that is too high",
        ),
        right=1,
        feedback=(
            "FP32 goes up to 3e38. Would it overflow at the same place?",
            "Yes. No format cures 0 / 0, or a weight that is NaN already.",
            "FP32 has room for any scale. Would it be NaN there?",
        ),
    ),
    Item(
        question="Two runs of one step from the same weights, data and random numbers differ in the second digit of "
        "the loss. What is it not?",
        options=("rounding to nearest", "memory that nobody has cleared", "a race"),
        right=0,
        feedback=(
            "Yes. It is a function: the same in, the same out. On a GPU sums may be added in another order, and that "
            "moves the last digits.",
            "That is one of the usual reasons: what was left there differs from run to run.",
            "That is one of the usual reasons: who comes first differs from run to run.",
        ),
    ),
    Item(
        question="The first layer whose output holds a NaN is found. What do you know?",
        options=(
            "the operation to repair",
            "the last place to look at",
            "where it came up; what made it may lie before",
        ),
        right=2,
        feedback=(
            "An Inf, or a 0, may have come in from elsewhere, and be an ordinary number to your search.",
            "It is a good place to begin. In which direction do you go on?",
            "Yes. Ask what went in: was it finite, and was it small enough?",
        ),
    ),
)
