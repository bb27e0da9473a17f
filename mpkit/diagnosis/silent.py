"""What to say where every number is finite, and some are lost: swallowed, flushed, rounded away."""

from __future__ import annotations

import torch
from torch import Tensor

from mpkit.diagnosis.diagnosis import Diagnosis
from mpkit.diagnosis.exam import MUCH, Exam, difference, ratio
from mpkit.diagnosis.loud import precision
from mpkit.diagnosis.wide import LOW
from mpkit.diagnosis.words import told

MOST = 0.5  # of the values


def hidden_overflow(exam: Exam) -> Diagnosis | None:
    """An Inf that was swallowed on the way, and changed the result."""
    base = exam.base
    if base.first is None and not base.harmless:
        return None
    apart = difference(base.grads, exam.fp32.grads)
    if apart < MUCH:
        return None
    if exam.fp32.error is not None:
        return None
    if not base.events:
        base.events = base.harmless
    return precision(exam, f". It does not reach the loss as Inf, but gradients differ from those of FP32 by "
                           f"{told(100 * min(apart, 1e4))} %")  # fmt: skip


def noted(exam: Exam) -> Diagnosis | None:
    """What casts did to numbers."""
    notes = exam.again.notes
    if "integers" in notes and _matters(exam):
        return exam.found(
            "lost integer", notes["integers"].where, f"{notes['integers'].text}.",
            f"In FP32 {_losses(exam)} gradients differ by "
            f"{told(100 * difference(exam.base.grads, exam.fp32.grads))} %.",
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
    held, mastered = exam.subject.held, exam.subject.mastered
    trained = {name for p, name in exam.subject.names.items() if p in held or name in mastered or not held}
    if not _half_may_be_lost(exam, [grad for name, grad in exam.base.grads.items() if name in trained]):
        return None  # whatever FP32 would say
    lost = {n: _share((exam.base.grads[n] == 0) & (g != 0), g != 0) for n, g in exam.fp32.grads.items()
            if n in exam.base.grads and n in trained}  # fmt: skip
    lost = {name: share for name, share in lost.items() if share >= MOST and _is_firm(exam, name)}
    worst = max(lost, key=lambda name: lost[name], default=None)
    if worst is None:
        return None
    size = float(exam.fp32.grads[worst].abs().max())
    return exam.found(
        "underflow", f"gradient {worst}",
        f"{told(100 * lost[worst])} % of the gradient of {worst} is 0, and not 0 in FP32, where its largest value is "
        f"{size:.2g}.",
        f"In FP32 {told(100 * _share(exam.fp32.grads[worst] != 0))} % of it is not 0.",
        "A loss scale: that is what it is for.\nscaler = torch.amp.GradScaler(device)",
    )  # fmt: skip


def _is_firm(exam: Exam, name: str) -> bool:
    """Is FP32's gradient no noise, as that of a parameter which changes nothing is?"""
    if not exam.again.low or name not in exam.nudged.grads:
        return True
    return difference({name: exam.nudged.grads[name]}, {name: exam.fp32.grads[name]}) < MOST


def _half_may_be_lost(exam: Exam, grads: list[Tensor]) -> bool:
    """Is there a gradient with as many zeros as other values, without the rows of an embedding that nothing used?"""
    if not grads:
        return False
    counts = torch.stack([torch.count_nonzero(grad) for grad in grads]).tolist()
    due = [g.numel() - exam.again.unused.get(g.shape, 0) * g.shape[-1] if g.dim() else 1 for g in grads]
    return any(count <= (1 - MOST) * whole for count, whole in zip(counts, due, strict=True))


def lost_update(exam: Exam) -> Diagnosis | None:
    """What stands still in 16 bits, and moves in FP32."""
    base, subject = exam.base, exam.subject
    if not subject.low:
        return None
    if base.seen.backward_calls > 1 and (apart := difference(base.grads, exam.fp32.grads)) > MUCH:
        name = next(iter(base.grads))
        return exam.found(
            "lost update", f"gradient {name}",
            f"{base.seen.backward_calls:,} backward passes add to a gradient in 16 bits; the sum differs by "
            f"{told(100 * apart)} % from that in FP32.", "With gradients in FP32 the same passes add up to "
            f"{told(1 / ratio(base.grads, exam.fp32.grads))} times as much.", _WIDER.format(what="gradients"),
        )  # fmt: skip
    if exam.fp32.error is not None:
        return None
    subject.restore()  # after the run in FP32
    stuck: dict[str, tuple[float, float]] = {}  # the share that did not move, and the share that is due
    for name, start in [(name, t.detach().clone()) for name, t in subject.moving() if t.dtype in LOW]:
        if name in base.state and name in exam.fp32.state:
            due = exam.fp32.state[name].float() != start.float()
            shares = _share((base.state[name] == start) & due, due), float(due.float().mean())
            if min(shares) > MOST and _for_good(exam, name, start, due & (base.state[name] == start)):
                stuck[f"ema: {name}" if name.startswith("average") else name] = shares
    if not stuck:
        return None
    (name, (lost, due_share)), names = next(iter(stuck.items())), list(stuck)
    return exam.found(
        "lost update", ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        f"{told(100 * lost)} % of the {name.removeprefix('ema: ')} did not move in this step: what is added is below "
        "half of the spacing of its 16-bit format there.",
        f"Held in FP32, {told(100 * due_share)} % of it moves in the same step.",
        _WIDER.format(what=f"{name.removeprefix('ema: ').split(' ')[0]}s"),
    )  # fmt: skip


_WIDER = "Keep {what} in FP32, whatever the model computes in.\nmodel.float(); with torch.autocast(device, dtype): ..."


def _for_good(exam: Exam, name: str, start: Tensor, stuck: Tensor) -> bool:
    """Nothing keeps the rest of it, and what stands still does so in the next steps: stochastic rounding would not."""
    if name.startswith("parameter") and exam.subject.has_remainder(name.removeprefix("parameter ")):
        return False
    later = exam.further.state.get(name)
    return later is None or _share((later != start) & stuck, stuck) < 0.01


def _matters(exam: Exam) -> bool:
    return exam.fp32.error is None and difference(exam.base.grads, exam.fp32.grads) > 0.01


def _losses(exam: Exam) -> str:
    if exam.base.loss is None or exam.fp32.loss is None:
        return ""
    return f"the loss is {exam.fp32.loss:.6g} in place of {exam.base.loss:.6g}, and"


def _share(which: Tensor, of: Tensor | None = None) -> float:
    total = which.numel() if of is None else int(of.sum())
    return float(which.sum()) / total if total else 0.0
