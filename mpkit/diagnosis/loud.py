"""What to say where something is Inf or NaN, was so at the start, or differs from run to run."""

from __future__ import annotations

import math

from mpkit.diagnosis.diagnosis import Diagnosis
from mpkit.diagnosis.exam import Exam, same
from mpkit.diagnosis.words import short, source, told
from mpkit.trees import tensors_in


def bad_at_start(exam: Exam) -> Diagnosis | None:
    """State that was bad before the step began."""
    start = exam.subject.bad_at_start
    grads = [one for one in start if one.startswith("gradient ")]
    added = "zero_grad" not in exam.base.seen.calls[: _index(exam.base.seen.calls, "backward")]
    if grads and added and exam.base.has("gradient") and not exam.cleared.has("gradient"):
        return exam.found(
            "order", "zero_grad (missing before backward)",
            f"The {grads[0]} held Inf or NaN before this step began, and backward adds to what is there.",
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
    if "unscale_()" in str(error) or "already been called" in str(error):
        return exam.found("order", "unscale_", f"The scaler refuses: {error}",
                          f"The calls were {' → '.join(exam.base.seen.calls)}.",
                          "Unscale once an iteration, before clipping.\nscaler.unscale_(optimizer)")  # fmt: skip
    raise error


def not_repeatable(exam: Exam) -> Diagnosis | None:
    """The same again gives something else."""
    if same(exam.base, exam.again):
        return None
    if str(exam.base.given) != str(exam.again.given):  # as text, in which NaN is NaN
        return exam.found(
            "not repeatable", "the batch",
            "From the same weights and random numbers the first module was given something else: the step draws a new "
            "batch each time, or random numbers that only it knows.",
            f"Nothing was changed between the two runs; the loss was {_said(exam.base.loss)}, then "
            f"{_said(exam.again.loss)}.",
            "Draw one batch outside of the step, and pass it: batch=.\nmpkit.diagnose(step, model=model, batch=batch)",
        )  # fmt: skip
    event = exam.base.first
    return exam.found(
        "not repeatable", _first_difference(exam) or source(event) or "the step",
        f"From the same weights, batch and random numbers the loss was {_said(exam.base.loss)}, then "
        f"{_said(exam.again.loss)}.",
        "Nothing was changed between the two runs; rounding is the same each time.",
        "Look for memory that nobody has set (torch.empty), for state kept outside of parameters and buffers, and for "
        "streams that do not wait.\nrows = torch.zeros_like(block)",
    )  # fmt: skip


def not_finite(exam: Exam) -> Diagnosis | None:
    """Inf or NaN in the loss, the gradients or the state."""
    base = exam.base
    if base.fine:
        return None
    if not exam.fp32.fine:
        return _mathematics(exam)
    poisoned = base.has("buffer") or base.has("average") or base.has("moment")
    if poisoned and (base.skipped or not base.has("parameter")):
        return exam.found(
            "poisoned state", poisoned,
            f"This batch makes Inf or NaN ({short(base.first)}), and the forward pass wrote it to {poisoned}, "
            f"{'although the step was skipped' if base.skipped else 'where it stays'}.",
            f"In FP32 the same batch leaves {poisoned} finite.",
            "Put the buffers back when a step is skipped, or keep such batches away.\n"
            "before = copy.deepcopy(norm.state_dict()); ...; norm.load_state_dict(before)",
        )  # fmt: skip
    if base.has("parameter"):
        return _broken_by_the_step(exam)
    scale = _scale(exam)
    return precision(exam) if scale is None else scale


def _mathematics(exam: Exam) -> Diagnosis:
    """FP32 does not cure it: the data, or the formula."""
    base, proof = exam.base, "In FP32, without autocast, the same step is not finite either."
    labels = [t for t in tensors_in(exam.subject.batch) if not t.is_floating_point() and t.numel()]
    if "ignored" in base.notes or any(bool((t == t.flatten()[0]).all()) and float(t.flatten()[0]) < 0 for t in labels):
        return exam.found(
            "data", "labels of the batch", "All labels of this batch are the one that is ignored, so the mean is over "
            "nothing: 0 / 0.", proof, "Divide by at least one label.\nloss = total / count.clamp(min=1)",
        )  # fmt: skip
    bad = [t for t in tensors_in(exam.subject.batch) if t.is_floating_point() and not bool(t.isfinite().all())]
    if bad:
        return exam.found("data", "the batch", f"The batch holds {int((~bad[0].isfinite()).sum()):,} values that are "
                          "Inf or NaN.", proof, "Find where they come from, and leave them out.\n"
                          "assert batch.isfinite().all()")  # fmt: skip
    return exam.found(
        "invalid", source(base.first) or base.bad[0], f"{short(base.first)}. FP32 has no value for it either"
        f"{_which_samples(exam)}.", proof, "Keep the argument away from where the function or its slope has no value, "
        "also in the branch that is not taken.\nsafe = torch.where(x > 0, x, 1.0)\n"
        "y = torch.where(x > 0, safe.sqrt(), 0.0)",
    )  # fmt: skip


def _which_samples(exam: Exam) -> str:
    for which in (0, 1):
        run = exam.half(which)
        if run is not None and run.fine:
            return f"; it needs only the {'second' if which == 0 else 'first'} half of the batch"
    return ""


def _broken_by_the_step(exam: Exam) -> Diagnosis:
    base, name = exam.base, exam.base.has("parameter")
    if not base.has("gradient"):
        eps = base.notes.get("eps")
        return exam.found(
            "lost eps" if eps else "overflow", f"parameter {name}, in optimizer.step()",
            f"The gradients are finite, and after optimizer.step() the parameter {name} is not"
            f"{': ' + eps.text if eps else ''}.",
            "With weights and moments in FP32 the same step leaves it finite.",
            "Keep weights and moments in FP32 under autocast, or take an eps that the format has.\n"
            "torch.optim.Adam(model.parameters(), eps=1e-4)",
        )  # fmt: skip
    if base.seen.clip_norm is not None and not math.isfinite(base.seen.clip_norm):
        return exam.found(
            "overflow", f"clip_grad_norm_, after {source(base.first)}",
            f"{short(base.first)}. The norm of the gradients is {base.seen.clip_norm}, so clipping multiplies by 0 or "
            f"NaN: Inf x 0 is NaN, and the step wrote it to {name}.",
            "In FP32 the same batch is clipped as it should be, and every parameter stays finite.",
            "Look at the norm before the step, or use a scaler, which does.\n"
            "norm = clip_grad_norm_(parameters, 5.0)\nif norm.isfinite(): optimizer.step()",
        )  # fmt: skip
    return precision(exam, f", and the optimizer took the step: {name} is not finite any more")


def _scale(exam: Exam) -> Diagnosis | None:
    """Only the gradients are bad, and the loss scale alone explains it."""
    base, scale = exam.base, exam.base.seen.scale
    if "scale" not in base.seen.calls or base.has("loss") or scale == 1.0:
        return None
    if base.first is not None and base.first.phase == "forward" and base.first.kind != "input":
        return None
    if exam.smaller.fine and base.skipped:
        return exam.found(
            "healthy", "", f"One skipped step. At a scale of {told(scale)} the gradients overflow, at "
            f"{told(scale / 256)} they are finite. A scaler tries a larger scale now and then, to find the largest "
            "that fits.",
            "With the scale divided by 2^8 the same step is finite.", "None is needed.",
        )  # fmt: skip
    if exam.smaller.fine or exam.unscaled.fine:
        return exam.found(
            "loss scale", "scaler", f"The scale is {told(scale)}, and gradients overflow at it"
            f"{'' if exam.smaller.fine else ', and still at 1/256 of it'}.",
            f"With the scale {'divided by 2^8' if exam.smaller.fine else 'taken away'} the same step is finite.",
            "A scale that adapts, saved with the checkpoint and loaded again.\n"
            'torch.save({..., "scaler": scaler.state_dict()}, path)',
        )  # fmt: skip
    return None


def precision(exam: Exam, more: str = "") -> Diagnosis:
    """FP32 cures it, so the format is to blame: say which operation."""
    base, event = exam.base, exam.base.first
    eps = base.notes.get("eps")
    alone = exam.alone_in_fp32()
    proof = "In FP32 the same step is finite."
    if alone is not None and event is not None and (alone.fine or (not base.bad and alone.fine)):
        proof = f"With {event.operation} in {event.module} alone in FP32 the same step is finite."
    if eps and event is not None and event.kind == "invalid":
        return exam.found("lost eps", source(event), f"{eps.text}; {short(event)}{more}.", proof,
                          "An eps that the format can hold, or FP32 for this computation.\neps = 1e-5")  # fmt: skip
    return exam.found("overflow", source(event) or base.bad[0], f"{short(event)}{more}.", proof,
                      "Compute this in FP32, or make the numbers smaller before it.\n"
                      "with torch.autocast(device, enabled=False): y = f(x.float())")  # fmt: skip


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
