"""What to say of the loop where every number is finite: calls in the wrong place, and weights that nobody trains."""

from __future__ import annotations

import torch
from torch import Tensor

from mpkit.diagnosis.diagnosis import Diagnosis
from mpkit.diagnosis.exam import MUCH, Exam, close, difference, ratio, size
from mpkit.diagnosis.remarks import never_cleared, norms
from mpkit.diagnosis.turn import Turn
from mpkit.diagnosis.words import called, told

DROPPED = 0.5  # scaled gradients would be 1/256 of what they were


def order(exam: Exam) -> Diagnosis | None:
    """Calls in the wrong place, as the gradients show that reach an optimizer."""
    seen = exam.base.seen
    if "scale" not in seen.calls:
        return _never_scaled(exam)
    if seen.scale == 1.0:
        return None
    if seen.beside and ratio(exam.other_scale.seen.raw, seen.raw) > DROPPED:
        return exam.found(
            "order", "scaler.scale (its result is not used)",
            f"backward was not called on what scaler.scale gave: the gradients are not scaled, and the scaler divides "
            f"them by {told(seen.scale)}.",
            "With the scaled loss divided by 2^8 what backward leaves is the same.",
            "Call backward on the scaled loss.\nscaler.scale(loss).backward()",
        )  # fmt: skip
    found = (rule(exam, turn) for rule in (_clipped_scaled, _scale_left) for turn in seen.turns)
    return next((one for one in found if one is not None), None)


def _never_scaled(exam: Exam) -> Diagnosis | None:
    """The scaler divided gradients by its scale, which the loss was not multiplied with, nor by hand."""
    seen, scaler = exam.base.seen, exam.subject.scaler
    if "step" not in seen.calls or "backward" not in seen.calls or seen.asked or not seen.stepped:
        return None
    exam.subject.restore()
    scale, left = float(scaler.get_scale()), size(exam.base.seen.raw)
    apart = size({name: exam.base.grads[name] * scale - raw for name, raw in seen.raw.items()})
    by_hand = exam.base.loss is not None and close(exam.base.loss * scale, seen.backward_loss)
    if by_hand or scale == 1.0 or not left or apart > MUCH * left:
        return None
    return exam.found(
        "order", "scaler.scale (missing)",
        f"backward was called on a loss that was not scaled, and the scaler divided the gradients by {told(scale)}.",
        f"The calls were {called(seen.script)}. Times {told(scale)} the gradients that reached the optimizer are those "
        "that backward left.", "Call backward on the scaled loss.\nscaler.scale(loss).backward()",
    )  # fmt: skip


def _clipped_scaled(exam: Exam, turn: Turn) -> Diagnosis | None:
    """Gradients were clipped before they were unscaled, and it made a difference."""
    if turn.clip is None or not turn.clip_scaled:
        return None
    scale, norm = exam.base.seen.scale, turn.clip_norm
    here, there = exam.base.grads, _own(exam, turn, exam.unscaled_first.grads)
    if difference(here, there) <= MUCH or _scaled_limit(exam, turn):
        return None
    return exam.found(
        "order", f"{turn.clip} (before unscale_){_which(exam, turn)}",
        f"The gradients were clipped while they carried the loss scale of {told(scale)}"
        + ("." if norm is None else f": clipping saw a norm of {told(norm)}, not {told(norm / scale)}."),
        f"Unscaled before clipping, the update is {told(1 / ratio(here, there))} times as large.",
        "Unscale first.\nscaler.unscale_(optimizer); clip_grad_norm_(parameters, 5.0); scaler.step(optimizer)",
    )  # fmt: skip


def _scaled_limit(exam: Exam, turn: Turn) -> bool:
    """Is the limit of clipping computed from the scale, as it may be instead of unscaling first?"""
    if not exam.base.seen.asks:
        return False
    other = exam.scale_told_double.seen.turns[exam.base.seen.turns.index(turn)]
    return other.clip is not None and 1.9 < other.max_norm / turn.max_norm < 2.1


def _scale_left(exam: Exam, turn: Turn) -> Diagnosis | None:
    """Gradients reached the optimizer with the scale, or divided by it twice."""
    if not turn.stepped or turn.clip == "clip_grad_value_":
        return None
    scale, raw = exam.base.seen.scale, _own(exam, turn, exam.base.seen.raw)
    times = ratio(exam.base.grads, raw)
    if turn.clip is not None:  # which makes them smaller, as it should
        times /= min(1.0, turn.max_norm / (size(raw) + 1e-6))
    ways = ((scale, "scaler.step (missing)", "still carry the loss scale"),
            (1 / scale, "unscale_ (made twice)", "were divided twice by the loss scale"))  # fmt: skip
    for factor, call, what in ways:
        if 0.7 < times / factor < 1.4:
            return exam.found(
                "order", f"{call}{_which(exam, turn)}",
                f"The gradients that reached the optimizer {what}, {told(scale)}"
                f"{'; unscale_ was given another object than the optimizer' if turn.unscaled_other else ''}.",
                f"They are {told(times)} times as large as backward left them, the scale divided out once"
                f"{' and clipping counted in' if turn.clip is not None else ''}.",
                "One object for unscale_ and step, and step through the scaler.\n"
                "scaler.unscale_(optimizer); ...; scaler.step(optimizer); scaler.update()",
            )  # fmt: skip
    return None


def _own(exam: Exam, turn: Turn, grads: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of one optimizer; all where there is only one, which may hold copies of a model's parameters."""
    if len(exam.base.seen.turns) == 1:
        return grads
    return {name: grads[name] for p, name in exam.subject.names.items() if id(p) in turn.own and name in grads}


def _which(exam: Exam, turn: Turn) -> str:
    """Which of several optimizers it is: by a parameter."""
    if len(exam.base.seen.turns) == 1:
        return ""
    first = next((name for p, name in exam.subject.names.items() if id(p) in turn.own), "other parameters")
    return f", of the optimizer of {first}"


def not_trained(exam: Exam) -> Diagnosis | None:
    """The optimizer stepped, and nothing with a gradient is in it."""
    subject, base = exam.subject, exam.base
    if not base.seen.stepped or subject.optimizer is None:
        return None
    held = {p for one in subject.optimizers for group in one.param_groups for p in group["params"]}
    foreign = [p for p in held if p not in subject.names]  # perhaps of a layer that was replaced
    left = [name for p, name in subject.names.items() if p not in held and name not in subject.mastered
            and name not in base.moved and name in base.grads and bool(base.grads[name].any())]  # fmt: skip
    inside = any(name in base.grads for p, name in subject.names.items() if p in held)
    if not left or (inside and not foreign):  # some trained and others left out is somebody's choice
        return None
    return exam.found(
        "not trained", ", ".join(left[:2]),
        f"The optimizer holds {len(held)} tensors, {len(foreign)} of them not of this model, and not {left[0]}, "
        "which gets a gradient.",
        f"optimizer.step() ran, and {left[0]} did not move.",
        "Build the optimizer after the last change of the model.\noptimizer = torch.optim.SGD(model.parameters())",
    )  # fmt: skip


def stale_cast(exam: Exam) -> Diagnosis | None:
    """Inside an autocast block that was there before: the weights move, and the loss does not see it."""
    base, subject = exam.base, exam.subject
    outside = any(torch.is_autocast_enabled(device) for device in {p.device.type for p in subject.names})
    if not (outside and base.seen.stepped and torch.is_autocast_cache_enabled()):
        return None
    second = exam.one_more(clear_cache=False)
    if second.loss != base.loss:
        return None
    cleared = exam.one_more(clear_cache=True)
    if cleared.loss == base.loss:
        return None
    return exam.found(
        "stale cast", "autocast around the loop",
        f"The weights moved, and a second step on the same batch has the same loss to the last digit, {base.loss:.6g}: "
        "autocast keeps its 16-bit copies until its outermost block ends, and that block is around the loop.",
        f"With that cache cleared between the two steps the second loss is {cleared.loss:.6g}.",
        "One autocast block for each forward pass, none around the loop.\n"
        "for batch in loader:\n    with torch.autocast(device, dtype): loss = ...",
    )  # fmt: skip


def update_missing(exam: Exam) -> Diagnosis | None:
    """The scaler steps, and is never told that the step is over."""
    calls, scaler = exam.base.seen.calls, exam.subject.scaler
    if "step" not in calls or "update" in calls or not scaler.is_enabled():
        return None
    second = exam.one_more(clear_cache=False)
    refused = "" if second.error is None else f" A second step raised {type(second.error).__name__}: {second.error}"
    return exam.found(
        "order", "scaler.update (missing)",
        "scaler.step was called and scaler.update was not: the scale never adapts, and the scaler takes the next step "
        "for a part of this one.",
        f"The calls were {called(exam.base.seen.script)}.{refused}",
        "Update once, behind the last scaler.step.\nscaler.step(optimizer); scaler.update()",
    )  # fmt: skip


def on_a_skip(exam: Exam) -> Diagnosis | None:
    """What the loop does when a step is skipped: tried with an Inf that is planted."""
    if "step" not in exam.base.seen.calls or exam.subject.scaler is None:
        return None
    planted = exam.planted
    if not planted.skipped:
        return None
    if "scheduler.step" in planted.seen.calls:
        return exam.found(
            "order", "scheduler.step (after a skipped step)",
            "The scheduler steps although the optimizer did not: with every skip the learning rate runs ahead by one.",
            "An Inf was planted into a gradient: scaler.step skipped the optimizer, and scheduler.step was called.",
            "Step the scheduler only if the optimizer did.\nbefore = scaler.get_scale(); scaler.update()\n"
            "if scaler.get_scale() >= before: scheduler.step()",
        )  # fmt: skip
    if planted.has("gradient") and planted.seen.added_to_old and exam.after_planted().bad:
        if never_cleared(exam):
            return exam.found(
                "order", "zero_grad (missing)", "The step never clears the gradients: each backward pass adds to what "
                f"was there before{norms(exam)}.", "Gradients were there when it began, and an Inf that was planted "
                "into one is still there in the step after it.",
                "Clear the gradients before every backward pass.\noptimizer.zero_grad()",
            )  # fmt: skip
        return exam.found(
            "order", "zero_grad (not after a skipped step)",
            "After a skipped step the gradients are not cleared, and the next backward pass adds to the Inf in them.",
            "An Inf was planted into a gradient once; the step after it, without one, is skipped too.",
            "Clear the gradients before every backward pass.\noptimizer.zero_grad()",
        )  # fmt: skip
    return None
