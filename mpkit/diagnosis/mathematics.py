"""What to say where FP32 has no value either: the data, the labels, or the formula."""

from __future__ import annotations

import math

from torch import Tensor

from mpkit.diagnosis.data import data_in
from mpkit.diagnosis.diagnosis import Diagnosis
from mpkit.diagnosis.exam import Exam
from mpkit.diagnosis.run import Spent
from mpkit.diagnosis.words import counted, short, source
from mpkit.tracing.event import TraceEvent
from mpkit.tracing.names import OUTSIDE

IGNORED = -100  # the label that torch's cross entropy leaves out
PROOF = "In FP32, without autocast, the same step is not finite either."
MASKED = (
    "A row whose every position is masked has no softmax: leave it one, or leave the row out.\n"
    "mask = mask & ~mask.all(-1, keepdim=True)  # where true means masked"
)
# By what the operation's name holds: one sentence, then code.
CURES = {
    "softmax": MASKED,
    "attention": MASKED,
    "exp": "exp has no value in FP32 beyond 88: bound its argument, or take the largest away first.\n"
    "y = torch.exp(x - x.max())",
    "log": "log has no value at 0 and below: keep its argument away from there, or compute in logarithms.\n"
    "y = torch.log(x.clamp(min=1e-12))  # or log_softmax, logsigmoid, log1p",
    "div": "Divide by what cannot be 0.\ny = x / s.clamp(min=1e-6)",
    "reciprocal": "Divide by what cannot be 0.\ny = 1 / s.clamp(min=1e-6)",
    "rsqrt": "Divide by what cannot be 0.\ny = torch.rsqrt(s + 1e-6)",
}  # fmt: skip
SLOPE = (
    "Keep the argument away from where the function or its slope has no value, also in the branch that is not taken.\n"
    "safe = torch.where(x > 0, x, 1.0)\ny = torch.where(x > 0, safe.sqrt(), 0.0)"
)


def mathematics(exam: Exam) -> Diagnosis:
    """FP32 does not cure it. What is said of the data was tried without it."""
    base, event = exam.base, exam.base.first
    if (found := _labels(exam) or _data(exam)) is not None:
        return found
    if event is not None and event.kind == "input":
        event = _before_the_model(exam)
        if event is None:
            return exam.found(
                "data", "what the model is given",
                f"{short(base.first)} when it begins: the data, or what the step makes of it before.", PROOF,
                "Look at what goes into the model.\nassert inputs.isfinite().all()",
            )  # fmt: skip
    made = _forgiven(exam, event)
    event, proof = made or event, PROOF + (f" With these values of {made.operation} set to 0 it is." if made else "")
    return exam.found("invalid", source(event) or base.bad[0],
                      f"{short(event)}. FP32 has no value for it either{_which_samples(exam)}.", proof,
                      _cure(event))  # fmt: skip


def _labels(exam: Exam) -> Diagnosis | None:
    """All labels are the one that the loss ignores: seen in the loss, or cured by other labels."""
    marked = [(t, t == IGNORED) for t in _held(exam) if not t.is_floating_point() and not t.is_complex() and t.numel()]
    marked = [(t, mask) for t, mask in marked if bool(mask.all())]
    if marked and (exam.without(marked, "labels set to 0").fine):
        proof = f"{PROOF} With these labels set to 0 it is."
    elif "ignored" in exam.again.notes and not marked:  # another label than -100, or labels made in the step
        proof = f"{PROOF} The labels were counted in the loss."
    else:
        return None
    return exam.found(
        "data", "labels of the batch", "All labels of this batch are the one that is ignored, so the mean is over "
        "nothing: 0 / 0.", proof, "Divide by at least one label.\nloss = total / count.clamp(min=1)",
    )  # fmt: skip


def _data(exam: Exam) -> Diagnosis | None:
    """With the bad values of the data set to 0 it is finite; those of -Inf, of which masks are made, are tried last."""
    floats = [t for t in _held(exam) if t.is_floating_point()]
    event = exam.base.first
    masks = event is not None and ("softmax" in event.operation or "attention" in event.operation)
    for name in ("Inf or NaN", "-Inf, Inf or NaN")[: 1 if masks else 2]:
        marked = [(t, ~t.isfinite() if name[0] == "-" else t.isnan() | (t == math.inf)) for t in floats]
        marked = [(t, mask) for t, mask in marked if bool(mask.any())]
        if marked and exam.without(marked, f"{name} of the data set to 0").fine:
            count = sum(int(mask.sum()) for _, mask in marked)
            return exam.found(
                "data", "the batch", f"The batch holds {counted(count)} {name}.",
                f"{PROOF} With {f'these {count:,} values' if count > 1 else 'this value'} set to 0 it is.",
                "Find where they come from, and leave them out.\nassert batch.isfinite().all()",
            )  # fmt: skip
    return None


def _held(exam: Exam) -> list[Tensor]:
    """What the step is given, and what it has closed over."""
    return list(data_in([exam.subject.batch, exam.subject.step]))


def _before_the_model(exam: Exam) -> TraceEvent | None:
    """What made the bad values that the model was given; the trace forgives it: no gradient goes there."""
    made = (one for one in exam.base.harmless if one.module == OUTSIDE and one.phase == "forward")
    return next(made, None)


def _forgiven(exam: Exam, event: TraceEvent | None) -> TraceEvent | None:
    """What made the -Inf that the model was given: the trace forgives it as a mask, which only softmax takes for one.

    Tried: without its bad values the step must be finite.
    """
    finite = all(math.isfinite(total) for total in exam.base.given)
    if event is None or finite or "softmax" in event.operation or "attention" in event.operation:
        return None
    if event.phase == "forward" and math.isfinite(event.input_amax):
        return None
    made = _before_the_model(exam)
    return made if made is not None and exam.cleaned(made).fine else None


def _cure(event: TraceEvent | None) -> str:
    if event is None or event.phase == "backward":
        return SLOPE
    return next((cure for name, cure in CURES.items() if name in event.operation), SLOPE)


def _which_samples(exam: Exam) -> str:
    for which in (0, 1):
        try:
            run = exam.half(which)
        except Spent:
            return ""
        if run is not None and run.fine:
            return f"; it needs only the {'second' if which == 0 else 'first'} half of the batch"
    return ""
