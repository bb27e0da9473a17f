"""What to say where something becomes Inf or NaN."""

from __future__ import annotations

import math

from mpkit.diagnosis.diagnosis import Diagnosis
from mpkit.diagnosis.eps import TRIED
from mpkit.diagnosis.exam import MUCH, Exam, difference
from mpkit.diagnosis.mathematics import mathematics
from mpkit.diagnosis.run import Run
from mpkit.diagnosis.words import begun, short, source, told

IN_FP32 = "In FP32 the same step is finite. "


def not_finite(exam: Exam) -> Diagnosis | None:
    """Inf or NaN in the loss, the gradients or the state."""
    base = exam.base
    if base.fine:
        return None
    if exam.fp32.error is not None:  # nothing is known of FP32
        return precision(exam)
    if not exam.fp32.fine:
        return mathematics(exam)
    if (moment := base.has("moment")) and not base.has("gradient") and not base.has("parameter"):
        return exam.found(
            "overflow", f"{moment}, in optimizer.step()", f"The gradients are finite, and {moment} is not: it holds "
            "squares or sums that its 16-bit format does not reach.",
            "With weights and moments in FP32 the same step leaves it finite.",
            "Keep weights and moments in FP32 under autocast.\nmodel.float()",
        )  # fmt: skip
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


def _broken_by_the_step(exam: Exam) -> Diagnosis:
    base, name = exam.base, exam.base.has("parameter")
    if not base.has("gradient"):
        eps = _held_eps(exam)
        return exam.found(
            "lost eps" if eps else "overflow", f"parameter {name}, in optimizer.step()",
            f"The gradients are finite, and after optimizer.step() the parameter {name} is not"
            f"{': ' + exam.again.notes['eps'].text if eps else ''}.",
            f"With weights and moments in FP32{f', or with an eps of {eps},' if eps else ''} the same step leaves it "
            "finite.",
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
    if event is not None and (eps := _held_eps(exam)) is not None:
        return exam.found(
            "lost eps", source(event), f"{begun(exam.again.notes['eps'].text)}; {short(event)}{more}.",
            f"{IN_FP32 if exam.fp32.fine and not base.fine else ''}With an eps of {eps} in its place "
            f"{'the gradients are those of FP32' if base.fine else 'it is finite too'}.",
            f"An eps that the format can hold, or FP32 for this computation.\neps = {eps}",
        )  # fmt: skip
    alone = exam.alone_in_fp32()
    error = exam.fp32.error
    proof = IN_FP32.strip() if not base.fine else "In FP32 it is not so."
    if error is not None:
        proof = f"The format ends there; in FP32 the step could not be tried: {error}"
    cured = alone is not None and _cures(exam, alone)
    if cured and event is not None and base.fine:
        proof = f"With {event.operation} in {event.module} alone in FP32 the gradients are those of FP32."
    elif cured and event is not None:
        proof = f"With {event.operation} in {event.module} alone in FP32 the same step is finite."
    if event is not None and event.kind == "invalid" and event.input_amax == 0 and exam.fp32.fine:
        return exam.found("underflow", source(event), f"{short(event)}: what is 0 there is not in FP32{more}.", proof,
                          "Compute this in FP32, or make the numbers larger before it.\n"
                          "with torch.autocast(device, enabled=False): y = f(x.float())")  # fmt: skip
    return exam.found("overflow", source(event) or "".join(base.bad[:1]), f"{short(event)}{more}.", proof,
                      "Compute this in FP32, or make the numbers smaller before it.\n"
                      "with torch.autocast(device, enabled=False): y = f(x.float())")  # fmt: skip


def _held_eps(exam: Exam) -> str | None:
    """An eps with which the step is cured, where one was seen that is 0 in its format; None: that is not it."""
    if "eps" not in exam.again.notes:
        return None
    return next((eps for eps in TRIED if _cures(exam, exam.with_eps(eps))), None)


def _cures(exam: Exam, run: Run) -> bool:
    """Is the run finite where the step is not, or are its gradients those of FP32?"""
    return run.fine if not exam.base.fine else difference(run.grads, exam.fp32.grads) < MUCH
