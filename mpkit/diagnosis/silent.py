"""What to say where every number is finite: the loop, and updates that are lost."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mpkit.diagnosis.diagnosis import Diagnosis
from mpkit.diagnosis.exam import Exam, difference, ratio, size
from mpkit.diagnosis.loud import precision
from mpkit.diagnosis.wide import LOW
from mpkit.diagnosis.words import told

MUCH = 0.1  # a gradient that differs from that of FP32 by so much, relative, is more than rounding
MOST = 0.5  # of the values


def order(exam: Exam) -> Diagnosis | None:
    """Calls in the wrong place, as the gradients show that reach the optimizer."""
    seen = exam.base.seen
    calls, scale = seen.calls, seen.scale
    if scale == 1.0 or "scale" not in calls:
        return None
    clip = calls.index("clip_grad_norm_") if "clip_grad_norm_" in calls else None
    if clip is not None and "unscale_" not in calls[:clip]:
        apart = difference(exam.base.grads, exam.unscaled_first.grads)
        if apart > MUCH:
            times = 1 / ratio(exam.base.grads, exam.unscaled_first.grads)
            return exam.found(
                "order", "clip_grad_norm_ (before unscale_)",
                f"The gradients were clipped while they carried the loss scale of {told(scale)}: clipping saw a norm "
                f"of {told(seen.clip_norm or math.nan)}, where {told((seen.clip_norm or math.nan) / scale)} is meant.",
                f"Unscaled before clipping, the update is {told(times)} times as large.",
                "Unscale first.\nscaler.unscale_(optimizer); clip_grad_norm_(parameters, 5.0); scaler.step(optimizer)",
            )  # fmt: skip
    if not seen.stepped:
        return None
    times = ratio(exam.base.grads, seen.raw)
    if clip is not None:  # which makes them smaller, as it should
        times /= min(1.0, seen.max_norm / (size(seen.raw) + 1e-6))
    ways = ((scale, "scaler.step (missing)", "still carry the loss scale"),
            (1 / scale, "unscale_ (made twice)", "were divided twice by the loss scale"))  # fmt: skip
    for factor, verb, what in ways:
        if 0.7 < times / factor < 1.4:
            return exam.found(
                "order", verb,
                f"The gradients that reached the optimizer {what}, {told(scale)}"
                f"{'; unscale_ was given another object than the optimizer' if seen.unscaled_other else ''}.",
                f"They are {told(times)} times those that backward left, without the scale"
                f"{' and clipped' if clip is not None else ''}.",
                "One object for unscale_ and step, and step through the scaler.\n"
                "scaler.unscale_(optimizer); ...; scaler.step(optimizer); scaler.update()",
            )  # fmt: skip
    return None


def not_trained(exam: Exam) -> Diagnosis | None:
    """The optimizer stepped, and nothing with a gradient is in it."""
    subject, base = exam.subject, exam.base
    if not base.seen.stepped or subject.optimizer is None:
        return None
    held = {p for group in subject.optimizer.param_groups for p in group["params"]}
    with_gradient = [name for p, name in subject.names.items() if name in base.grads and bool(base.grads[name].any())]
    inside = [name for p, name in subject.names.items() if p in held and name in with_gradient]
    if inside or not with_gradient:
        return None
    return exam.found(
        "not trained", ", ".join(with_gradient[:2]),
        f"The optimizer holds {len(held)} tensors, none of the {len(with_gradient)} parameters that get a gradient.",
        f"optimizer.step() ran, and {with_gradient[0]} did not move.",
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


def hidden_overflow(exam: Exam) -> Diagnosis | None:
    """An Inf that was swallowed on the way, and changed the result."""
    base = exam.base
    if base.first is None and not base.harmless:
        return None
    apart = difference(base.grads, exam.fp32.grads)
    if apart < MUCH:
        return None
    if not base.events:
        base.events = base.harmless
    return precision(exam, f". It does not reach the loss as Inf, but gradients differ from those of FP32 by "
                           f"{told(100 * min(apart, 1e4))} %")  # fmt: skip


def noted(exam: Exam) -> Diagnosis | None:
    """What casts did to numbers."""
    notes = exam.base.notes
    if "integers" in notes:
        return exam.found(
            "lost integer", notes["integers"].where, f"{notes['integers'].text}.",
            f"In FP32 all are different, and the loss is {exam.fp32.loss:.6g} in place of {exam.base.loss:.6g}.",
            "Count in integers or FP32, and cast what is computed from them.\ntorch.arange(n).float()",
        )  # fmt: skip
    if "saturated" in notes:
        return exam.found(
            "saturated", notes["saturated"].where, f"{notes['saturated'].text}.",
            "They were counted in this step; the format has no Inf that would show it.",
            "A scale from the tensor of today, or from the last few steps.\nscale = 448 / tensor.abs().max()",
        )  # fmt: skip
    return None


def underflow(exam: Exam) -> Diagnosis | None:
    """Gradients that are 0 here and not in FP32."""
    held = {p for group in getattr(exam.subject.optimizer, "param_groups", []) for p in group["params"]}
    trained = {name for p, name in exam.subject.names.items() if p in held or not held}
    lost = {n: _share((exam.base.grads[n] == 0) & (g != 0), g != 0) for n, g in exam.fp32.grads.items()
            if n in exam.base.grads and n in trained}  # fmt: skip
    worst = max(lost, key=lambda name: lost[name], default=None)
    if worst is None or lost[worst] < MOST:
        return None
    size = float(exam.fp32.grads[worst].abs().max())
    return exam.found(
        "underflow", f"gradient {worst}",
        f"{told(100 * lost[worst])} % of the gradient of {worst} is 0, and not 0 in FP32, where its largest value is "
        f"{size:.2g}.",
        f"In FP32 {told(100 * _share(exam.fp32.grads[worst] != 0))} % of it is not 0.",
        "A loss scale: that is what it is for.\nscaler = torch.amp.GradScaler(device)",
    )  # fmt: skip


def lost_update(exam: Exam) -> Diagnosis | None:
    """What stands still in 16 bits, and moves in FP32."""
    base, subject = exam.base, exam.subject
    subject.restore()
    low = [(name, t) for name, t in subject.moving() if t.dtype in LOW]
    if not low:
        return None
    if base.seen.backward_calls > 1 and (apart := difference(base.grads, exam.fp32.grads)) > MUCH:
        name = next(iter(base.grads))
        return exam.found(
            "lost update", f"gradient {name}",
            f"{base.seen.backward_calls:,} backward passes add to a gradient in 16 bits; the sum differs by "
            f"{told(100 * apart)} % from that in FP32.", "With gradients in FP32 the same passes add up to "
            f"{told(1 / ratio(base.grads, exam.fp32.grads))} times as much.", _WIDER.format(what="gradients"),
        )  # fmt: skip
    stuck: dict[str, tuple[float, float]] = {}  # the share that did not move, and the share that is due
    for name, start in [(name, t.detach().clone()) for name, t in low]:
        if name in base.state and name in exam.fp32.state:
            due = exam.fp32.state[name].float() != start.float()
            shares = _share((base.state[name] == start) & due, due), float(due.float().mean())
            if min(shares) > MOST:
                stuck[f"ema: {name}" if name.startswith("average") else name] = shares
    if not stuck:
        return None
    (name, (lost, due_share)), names = next(iter(stuck.items())), list(stuck)
    return exam.found(
        "lost update", ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        f"{told(100 * lost)} % of {name} did not move in this step: what is added is below half of the spacing of its "
        "16-bit format there.",
        f"Held in FP32, {told(100 * due_share)} % of it moves in the same step.",
        _WIDER.format(what=f"{name.removeprefix('ema: ').split(' ')[0]}s"),
    )  # fmt: skip


_WIDER = "Keep {what} in FP32, whatever the model computes in.\nmodel.float(); with torch.autocast(device, dtype): ..."


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
    if planted.has("gradient") and not exam.after_planted().fine:
        return exam.found(
            "order", "zero_grad (not after a skipped step)",
            "After a skipped step the gradients are not cleared, and the next backward pass adds to the Inf in them.",
            "An Inf was planted into a gradient once; the step after it, without one, is skipped too.",
            "Clear the gradients before every backward pass.\noptimizer.zero_grad()",
        )  # fmt: skip
    return None


def _share(which: Tensor, of: Tensor | None = None) -> float:
    total = which.numel() if of is None else int(of.sum())
    return float(which.sum()) / total if total else 0.0
