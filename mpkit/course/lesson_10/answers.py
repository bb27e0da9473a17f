"""What is right for each patient: kinds that can be defended, and three cures of which one is its own."""

import random
from functools import cache
from typing import Literal

from mpkit.course.clinic import PATIENTS
from mpkit.course.lesson_10.against import against
from mpkit.course.lesson_10.examination import Examination
from mpkit.course.lesson_10.facts import Facts
from mpkit.course.lesson_10.in_words import listed
from mpkit.course.lesson_10.tests import TESTS
from mpkit.course.lesson_10.waiting_room import ORDER, patient
from mpkit.diagnosis import KINDS

GROUPS = {
    "a number": ("overflow", "underflow", "saturated", "lost update", "lost integer", "lost eps"),
    "the script": ("order", "loss scale", "stale cast", "not trained", "checkpoint", "poisoned state"),
    "neither": ("invalid", "data", "not repeatable", "healthy"),
}
NAMES = {"invalid": "mathematics"}
# Kinds besides the patient's own that someone who reasons rightly may name, and what is to be said then.
ALSO = {
    "poisoned-batch-norm": {
        "data": "Right, the batch began it. What stays is in a buffer: poisoned state.",
        "overflow": "Right, an overflow began it. What stays is in a buffer: poisoned state.",
    },
    "clipped-inf": {
        "data": "Right, one label began it. FP32 survives it, so the format overflowed as well.",
        "order": "Right, the norm should be looked at before the step. What it would show is an overflow.",
    },
    "no-scaler": {"loss scale": "Right, there is none. What it would prevent is underflow."},
    "scaler-not-saved": {"checkpoint": "Right, something is missing there: the loss scale."},
    "bf16-checkpoint": {"overflow": "Right, in the cast of load_state_dict. The file and the model do not fit."},
    "stale-scale": {"overflow": "Right, values are too large. FP8 has no Inf, so they stay at the end: saturated."},
    "eps-in-norm": {"underflow": "Right, the eps became 0. What follows is a division by it: lost eps."},
    "adam-eps": {"underflow": "Right, the eps became 0. What follows is a division by it: lost eps."},
    "zero-grad-after-skip": {
        "poisoned state": "Right, .grad holds an Inf and keeps it. It is kept since a call is left out: order.",
    },
    "scheduler-drift": {"loss scale": "Right, it tries larger scales too often. But skips must not move the schedule."},
    "where-sqrt": {
        "data": "Right, without the equal pair all is well. A distance of 0 should be allowed: mathematics.",
        "poisoned state": "Right, the weights are NaN from then on. What made them so is mathematics.",
    },
    "ignored-labels": {"invalid": "Right, 0 / 0 has no value in FP32 either. The batch is the reason."},
}  # fmt: skip
# True of a patient, and not what its kind says; some stand where no test looks. Neither accepted nor punished.
HALF = {
    "scheduler-drift": {"overflow": "skipped steps overflowed, for a larger scale was tried. What must not go on then"},
    "probing-scaler": {
        "overflow": "skipped steps overflowed, for a larger scale was tried. Does it matter",
        "loss scale": "now and then the scale is too large. Does it find back",
    },
    "scale-to-zero": {"loss scale": "it ends at 0. But no scale was small enough. Why"},
    "zero-norm": {"underflow": "nearly all gradients are 0: something is divided by Inf. What made the Inf"},
    "zero-grad-after-skip": {
        "loss scale": "the scale falls and falls. But no scale helps here. What stays from step to step",
        "overflow": "one overflow began it, as they do now and then. Why is the next step skipped as well",
    },
    "double-unscale": {"loss scale": "it has to do with the scale, whose value is fine. How often is it taken out"},
    "clip-before-unscale": {"loss scale": "it has to do with the scale, whose value is fine. When is it taken out"},
    "discarded-log": {
        "overflow": "log(0) is −Inf. Does it reach the loss or a gradient",
        "invalid": "log(0) has no finite value. Does it reach the loss or a gradient",
    },
    "one-autocast": {"order": "one thing stands in the wrong place. What does the next forward pass compute with"},
    "other-parameters": {"order": "no call of the loop is wrong, but one before it came too early. What does it miss"},
    "adam-eps": {"overflow": "something becomes Inf or NaN after the gradients. What is it divided by"},
    "scaler-not-saved": {
        "overflow": "scaled gradients overflow. What are they multiplied by, and since when",
        "order": "a call is missing, though none of this step. What does a restart begin with",
    },
    "stale-scale": {
        "order": "something is done too rarely, and no call of the loop shows it. What becomes of the values",
        "stale cast": "something is out of date, and it is no 16-bit copy of a weight. What becomes of the values",
    },
}
# Tests of which one has to be made before a right diagnosis counts: the others do not show it.
SHOWS = {
    "poisoned-batch-norm": "fp32 data", "eps-in-norm": "fp32 trace", "attention-scores": "fp32 trace",
    "scheduler-drift": "again fp32 scale data tally trace", "one-autocast": "again fp32", "ignored-labels": "fp32 data",
    "double-unscale": "tally trace", "discarded-log": "fp32 trace", "no-scaler": "tally fp32 scale",
    "masked-twice": "fp32 trace", "ema-in-bf16": "fp32", "scale-to-zero": "fp32 scale trace",
    "left-over-memory": "again", "adam-eps": "fp32 trace", "colliding-positions": "fp32 trace",
    "scaler-not-saved": "scale data", "own-softmax": "fp32 trace", "other-parameters": "again fp32 tally",
    "clipped-inf": "fp32 trace tally data", "zero-norm": "fp32 trace", "clip-before-unscale": "tally trace",
    "where-sqrt": "fp32 trace", "adam-in-bf16": "fp32", "probing-scaler": "again fp32 scale data tally trace",
    "sum-before-mean": "fp32 trace", "stale-scale": "trace", "zero-grad-after-skip": "tally trace",
    "bf16-checkpoint": "fp32 data trace", "micro-batches-in-bf16": "fp32 tally",
}  # fmt: skip
# Which tests tell a kind from others, the cheapest first, and what they would show.
TELLS = {
    "overflow": ("fp32 trace", "FP32 would make a difference, and the trace would name where finite became Inf"),
    "underflow": ("tally fp32", "FP32 would make a difference, and where gradients became 0 the tally would show it"),
    "saturated": ("fp32 trace", "all is finite, and the trace would show values cut at the end of an 8-bit format"),
    "lost update": ("fp32", "something would move in FP32 and stand still as it is"),
    "lost integer": ("fp32 trace", "the trace would show integers that fall together in a cast"),
    "lost eps": ("fp32 trace", "FP32 would cure it, and the trace would show an eps that is 0"),
    "order": ("tally trace", "the gradients would be wrong, or the calls in the trace, or a call would ignore a skip"),
    "loss scale": ("scale", "another loss scale would make the difference"),
    "stale cast": ("again fp32", "one more step would give the same loss to the last digit, and in FP32 another"),
    "not trained": (
        "again tally fp32",
        "one more step gives the same loss, in FP32 too, though there are gradients",
    ),
    "checkpoint": ("data", "the checkpoint would differ from the model, or lack something"),
    "poisoned state": ("fp32 tally", "something that the step keeps would not be finite afterwards"),
    "invalid": ("fp32 trace", "FP32 would give NaN or Inf as well, of ordinary numbers"),
    "data": ("data fp32", "the batch would differ from an ordinary one"),
    "not repeatable": ("again", "running it again from the same state would give something else"),
    "healthy": ("fp32 trace", "FP32 would differ in nothing that matters, and nothing bad would reach a gradient"),
}
# Two others whose cures are offered as well: plausible, and of no use here.
OTHERS = {
    "poisoned-batch-norm": "sum-before-mean no-scaler", "eps-in-norm": "attention-scores no-scaler",
    "scheduler-drift": "clip-before-unscale scaler-not-saved", "attention-scores": "no-scaler eps-in-norm",
    "one-autocast": "no-scaler other-parameters", "ignored-labels": "no-scaler adam-eps",
    "double-unscale": "adam-in-bf16 scheduler-drift", "discarded-log": "own-softmax no-scaler",
    "no-scaler": "ema-in-bf16 other-parameters", "masked-twice": "attention-scores no-scaler",
    "ema-in-bf16": "no-scaler other-parameters", "scale-to-zero": "scaler-not-saved zero-grad-after-skip",
    "left-over-memory": "ema-in-bf16 no-scaler", "adam-eps": "no-scaler clip-before-unscale",
    "colliding-positions": "masked-twice attention-scores", "scaler-not-saved": "zero-grad-after-skip ema-in-bf16",
    "own-softmax": "no-scaler sum-before-mean", "other-parameters": "no-scaler double-unscale",
    "clipped-inf": "adam-eps sum-before-mean", "zero-norm": "no-scaler eps-in-norm",
    "clip-before-unscale": "no-scaler zero-grad-after-skip", "where-sqrt": "no-scaler sum-before-mean",
    "adam-in-bf16": "adam-eps no-scaler", "probing-scaler": "zero-grad-after-skip clip-before-unscale",
    "sum-before-mean": "no-scaler eps-in-norm", "stale-scale": "no-scaler ema-in-bf16",
    "zero-grad-after-skip": "scaler-not-saved clip-before-unscale", "bf16-checkpoint": "attention-scores no-scaler",
    "micro-batches-in-bf16": "no-scaler other-parameters",
}  # fmt: skip


Verdict = Literal["right", "wrong", "half", "open"]


def judged(examined: Examination, kind: str, made: list[str]) -> tuple[Verdict, str]:
    """What is to be said of a diagnosis after these tests. Only "wrong" costs points: something made speaks against it.

    "half": true, but not the whole of it. "open": what was tested neither shows it nor rules it out.
    """
    own, name = examined.patient, f"“{told(kind)}”"
    if not made:
        return "open", f"{name} may be. Make a test first: a diagnosis has to be shown. No points are lost."
    facts = Facts(examined)
    if kind == own.kind or kind in ALSO.get(own.name, {}):
        if set(made) & set(SHOWS[own.name].split()):
            meaning = f", {KINDS[kind]}." if kind != "healthy" else f". {own.because} No cure is needed."
            return "right", ALSO.get(own.name, {}).get(kind) or f"Right: {told(kind)}{meaning}"
        return "open", _open(kind, made)
    with examined.ready():
        if said := HALF.get(own.name, {}).get(kind) or _kept(kind, facts, made):
            return "half", f"True, but not the whole of it: {said}? No points are lost."
        if said := next(against(kind, facts, made), ""):
            return "wrong", f"{name} does not fit: {said}."
    return "open", _open(kind, made)


def _kept(kind: str, facts: Facts, made: list[str]) -> str:
    """Parameters that are NaN and stay so are poisoned, whoever has done it."""
    if kind != "poisoned state" or not facts.kept:
        return ""
    here = listed(facts.kept)
    before = [name for name in facts.bad_at_start if name in facts.kept]
    if "fp32" not in made and not ("trace" in made and before):  # a trace sees what comes in, not what the step leaves
        return ""
    return (f"there was Inf or NaN in {here} before the step began. How did it get there" if before else
            f"after the step there is Inf or NaN in {here}, to stay. Before it was none. What made it")  # fmt: skip


def _open(kind: str, made: list[str]) -> str:
    tests, shows = TELLS[kind]
    left = [TESTS[test].name for test in tests.split() if test not in made]
    said = f"“{told(kind)}” may be: what you have tested neither shows it nor rules it out. No points are lost."
    if left:
        return f"{said} If it were so, {shows}. Try “{left[0]}”."
    return f"{said} Which other diagnosis explains more of what you have seen?"


def considered(kind: str) -> str:
    """What would have to be seen if it were this kind."""
    return f"If it were “{told(kind)}”, {TELLS[kind][1]}. Is that so? Then press “name it”."


def told(kind: str) -> str:
    """A kind as the panel calls it."""
    return NAMES.get(kind, kind)


@cache
def cures(number: int) -> tuple[tuple[str, str], ...]:
    """Name of the patient and code, three times; one is this patient's own. Where it stands is mixed."""
    name = ORDER[number - 1]
    chosen = [name, *OTHERS[name].split()]
    random.Random(number).shuffle(chosen)
    return tuple((one, PATIENTS[one].cure.partition("\n")[2]) for one in chosen)


def cure_judged(number: int, which: int) -> tuple[bool, str]:
    """Whether the cure at this place heals the patient, and why."""
    name, own = cures(number)[which][0], patient(number)
    if name == own.name:
        return True, f"{own.because} ({own.thread})"
    other = PATIENTS[name]
    return False, (f"The curve does not heal: “{other.cure.partition(chr(10))[0]}” That helps against "
                   f"“{told(other.kind)}”: {KINDS[other.kind]}.")  # fmt: skip
