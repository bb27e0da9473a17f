"""What is right for each patient: kinds that can be defended, and three cures of which one is its own."""

import random
from functools import cache

from mpkit.course.clinic import PATIENTS
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
    "stale-scale": {
        "overflow": "Right, values are too large. FP8 has no Inf, so they stay at the end: saturated.",
        "stale cast": "Right, something is out of date: the scale. What it does to the weights is saturation.",
    },
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
# Which test speaks for a kind, or against it.
SPEAKS = {
    "overflow": "FP32 would cure it, and the trace would name where finite became Inf",
    "underflow": "the tally would show zeros, and FP32 none",
    "saturated": "the trace would show values cut at the end of an 8-bit format",
    "lost update": "something would move in FP32 and stand still as it is",
    "lost integer": "the trace would show integers that fall together in a cast",
    "lost eps": "FP32 would cure it, and the trace would show an eps that is 0",
    "order": "the calls in the trace would be in the wrong place, too many or too few, or ignore a skip",
    "loss scale": "the scale curve, or a smaller scale, would make the difference",
    "stale cast": "one more step would give the same loss to the last digit, and in FP32 another",
    "not trained": "one more step would give the same loss, in FP32 too, though there are gradients",
    "checkpoint": "the checkpoint would differ from the model, or lack something",
    "poisoned state": "something that the step keeps would not be finite afterwards",
    "invalid": "FP32 would give NaN or Inf as well",
    "data": "FP32 would give NaN as well, and the batch would differ from an ordinary one",
    "not repeatable": "running it again from the same state would give something else",
    "healthy": "no curve would stay bad, and the run would learn",
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


def judged(number: int, kind: str) -> tuple[bool, str]:
    """Whether a kind is right for a patient, and what to say."""
    chosen = patient(number)
    if kind == chosen.kind:
        return True, f"Right: {told(kind)}, {KINDS[kind]}."
    if said := ALSO.get(chosen.name, {}).get(kind):
        return True, said
    return False, f"Not {told(kind)}: then {SPEAKS[kind]}."


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
