"""What to say where the state was bad at the start, where the step raises an error, and where it does not repeat."""

from __future__ import annotations

import math
import re

from mpkit.diagnosis.diagnosis import Diagnosis
from mpkit.diagnosis.exam import Exam, same
from mpkit.diagnosis.loud import precision
from mpkit.diagnosis.mathematics import mathematics
from mpkit.diagnosis.refused import refused
from mpkit.diagnosis.words import begun, held, source

ENDED = (
    "mpkit.diagnose: the step went through once, and raised this when it ran again from the same state. If it draws "
    "from an iterator, that has moved on: draw one batch outside of the step, and pass it: batch=."
)


def scale_of_zero(exam: Exam) -> Diagnosis | None:
    """A scale that cannot grow any more."""
    scale = exam.base.seen.scale
    if scale > 0 and math.isfinite(scale):
        return None
    return exam.found(
        "loss scale", "scaler", f"The loss scale is {scale:g}: every gradient is 0 or NaN, and nothing can be learnt.",
        "It was read in this step.", "Start again from a scale above 0, and diagnose the step from there: something "
        "halved it at every step.\nscaler = torch.amp.GradScaler(device)",
    )  # fmt: skip


def bad_at_start(exam: Exam) -> Diagnosis | None:
    """State that was bad before the step began."""
    start = exam.subject.bad_at_start
    grads = [one for one in start if one.startswith("gradient ")]
    added = "zero_grad" not in exam.base.seen.calls[: _index(exam.base.seen.calls, "backward")]
    if grads and added and exam.base.has("gradient") and not exam.cleared.has("gradient"):
        return exam.found(
            "order", "zero_grad (missing before backward)",
            f"{begun(held(grads[0]))} held Inf or NaN before this step began, and backward adds to what is there.",
            "With the old gradients cleared, the same step is finite.",
            "Clear the gradients before every backward pass, also after a skipped step.\noptimizer.zero_grad()",
        )  # fmt: skip
    others = [one for one in start if not one.startswith("gradient ")]
    if not others:
        return None
    return exam.found(
        "poisoned state", others[0],
        f"The {others[0]} held Inf or NaN before this step began{_and_more(others)}.",
        "No batch and no precision can cure it: it is there before the first operation.",
        "Go back to a state before it, or set these values anew; then diagnose the step from there, to learn what "
        "poisoned it.",
    )  # fmt: skip


def raised(exam: Exam) -> Diagnosis | None:
    """The step raised an error that precision explains; any other is raised again."""
    error = exam.base.error
    if error is None:
        return None
    if "without overflow" in str(error):
        return exam.found(
            "overflow", source(exam.base.first) or "a number of the code",
            f"The code names a number that the format does not have: {error}.",
            f"In FP32 the step {'is finite' if exam.fp32.fine else 'goes on'}.",
            "Take the end of the tensor's own format.\nx.masked_fill(mask, torch.finfo(x.dtype).min)",
        )  # fmt: skip
    if (found := refused(exam)) is not None:
        return found
    base = exam.base
    base.events = base.events or base.harmless  # nothing came of them, because the step stopped
    if _own_check(error) and base.events:
        more = f"; the step stops there with {type(error).__name__}: {error}"
        return precision(exam, more) if exam.fp32.fine else mathematics(exam)
    raise error


def _own_check(error: Exception) -> bool:
    """A step that looks for Inf and NaN itself, and stops at them."""
    about = re.search(r"\b(nan|inf|infinity|finite|non-?finite)\b", str(error), re.IGNORECASE)
    return isinstance(error, AssertionError | FloatingPointError) or about is not None


def not_repeatable(exam: Exam) -> Diagnosis | None:
    """The same again gives something else."""
    if exam.again.error is not None:
        exam.again.error.add_note(ENDED)
        raise exam.again.error
    if same(exam.base, exam.again):
        exam.again.grads.clear()  # those of `base`: once is enough
        return None
    if str(exam.base.given) != str(exam.again.given):  # as text, in which NaN is NaN
        return _other_data(exam)
    event = exam.base.first
    return exam.found(
        "not repeatable", _first_difference(exam) or source(event) or "the step",
        f"From the same weights, batch and random numbers the loss was {_said(exam.base.loss)}, then "
        f"{_said(exam.again.loss)}.",
        "Nothing was changed between the two runs; rounding is the same each time.",
        "Look for memory that nobody has set (torch.empty), for state kept outside of parameters and buffers, such as "
        "a counter or an iterator, and for streams that do not wait.\nrows = torch.zeros_like(block)",
    )  # fmt: skip


def _other_data(exam: Exam) -> Diagnosis:
    """The first module was given something else."""
    given = exam.subject.batch is not None
    return exam.found(
        "not repeatable", "what the model is given" if given else "the batch",
        "From the same weights and random numbers "
        + ("and the same batch the first module was given something else: the step counts its calls, draws from an "
           "iterator, or draws random numbers that diagnose does not find." if given else
           "the first module was given something else: the step draws a new batch each time, or random numbers that "
           "only it knows."),
        f"Nothing was changed between the two runs; the loss was {_said(exam.base.loss)}, then "
        f"{_said(exam.again.loss)}.",
        "Let the step depend on its batch alone: count and draw outside of it, and pass the result with the batch.\n"
        "mpkit.diagnose(step, model=model, batch=(inputs, labels, noise))" if given else
        "Draw one batch outside of the step, and pass it: batch=.\nmpkit.diagnose(step, model=model, batch=batch)",
    )  # fmt: skip


def _first_difference(exam: Exam) -> str:
    """The module that is the first to give something else."""
    for (name, was), (_, now) in zip(exam.base.outputs, exam.again.outputs, strict=False):
        if was != now and not (math.isnan(was) and math.isnan(now)):
            return f"output of {name}"
    return ""


def _said(loss: float | None) -> str:
    return "no number" if loss is None else f"{loss:.6g}"


def _index(calls: list[str], name: str) -> int:
    return calls.index(name) if name in calls else len(calls)


def _and_more(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
