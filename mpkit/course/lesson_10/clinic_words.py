"""What the clinic says: the finding of a patient's curves, as a title, and in words for those who do not see them."""

import math

from mpkit.course.lesson_10.in_words import number
from mpkit.course.lesson_10.waiting_room import Curves, patient

LEVEL = 0.02  # relative: a curve that moves by less stands still


def bad_steps(values: list[float]) -> list[int]:
    """Steps at which a curve is Inf or NaN."""
    return [step for step, value in enumerate(values) if not math.isfinite(value)]


def course(name: str, values: list[float]) -> str:
    """What a curve does, in a few words."""
    bad, first, last = bad_steps(values), values[0], values[-1]
    if bad:
        word = number(values[bad[0]])
        if len(bad) == len(values):
            return f"{name} is {word} at every step"
        if bad[-1] == len(values) - 1:
            return f"{name} is {word} from step {bad[0]}"
        return f"{name} is {word} for {len(bad)} steps, and finite from step {bad[-1] + 1}"
    if len(set(values)) == 1:
        return f"{name} is {number(first)} at every step"
    if max(values) - min(values) <= LEVEL * abs(first):
        return f"{name} stays near {number(first)}"
    verb = "falls" if last < 0.7 * first else "rises" if last > 1.4 * first else "goes"
    return f"{name} {verb} from {number(first)} to {number(last)}"


def skipped(curves: Curves) -> list[int]:
    """Steps that the optimizer did not take."""
    return [step for step, taken in enumerate(curves.get("stepped", [])) if not taken]


def shown(curves: Curves) -> list[str]:
    """Which curves stand beside the loss: the patient's own signs, and the scale if it moves; two at most.

    A sign that is not finite stands there alone.
    """
    own = [name for name in curves if name not in ("loss", "scale", "stepped")]
    if loud := [name for name in own if bad_steps(curves[name])]:
        return loud[:1]
    moves = "scale" in curves and len(set(curves["scale"])) > 1
    return (own + ["scale"] * moves)[:2]


def finding(curves: Curves) -> str:
    """What the curves show, in a sentence."""
    said = course("the loss", curves["loss"])
    own = [name for name in curves if name not in ("loss", "scale", "stepped")]
    gone, steps = skipped(curves), len(curves["loss"])
    loud = [name for name in own if bad_steps(curves[name])]
    scale = curves.get("scale", [1.0])
    second = ""
    if loud:
        second = course(loud[0], curves[loud[0]])
    elif scale[-1] <= scale[0] / 64:
        second = course("the scale", scale)
    elif len(gone) > 2:
        second = f"{len(gone)} of {steps} steps are skipped"
    elif own:
        second = course(own[0], curves[own[0]])
    return f"{said}{f', and {second}' if second else ''}"


def title(which: int, curves: Curves, state: str = "") -> str:
    """The picture's title. `state`: "cured", "healthy" or ""."""
    return f"Patient {which}{f', {state}' if state else ''}: {finding(curves)}"


def about(which: int) -> str:
    """What the owner says."""
    return f"“{patient(which).complaint}”"


def numbers(curves: Curves) -> str:
    """Every curve in words."""
    gone = len(skipped(curves))
    taken = f"{len(curves['loss']) - gone} of {len(curves['loss'])} steps taken"
    every = [course(name, values) for name, values in curves.items() if name != "stepped"]
    return "; ".join(every + ([taken] if "stepped" in curves else []))
