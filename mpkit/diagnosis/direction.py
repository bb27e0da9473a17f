"""What to say where every number is finite and a gradient is not FP32's: a third verdict."""

from __future__ import annotations

from mpkit.diagnosis.diagnosis import Diagnosis
from mpkit.diagnosis.exam import MUCH, Exam, difference, size
from mpkit.diagnosis.run import Spent
from mpkit.diagnosis.words import told

ASTRAY = 0.5  # relative: a gradient is half as much error as it is FP32's
COUNTS = 1e-3  # of all gradients together; a bias before a batch norm has one of 0, whose rounding has no size


def lost_digits(exam: Exam) -> Diagnosis | None:
    """Gradients that are other ones in FP32, though those do not depend on the last digits of the weights.

    One parameter's, or all of them together: one that should be 0 has no size of its own.
    """
    if not comparable(exam):
        return None
    base, fp32 = exam.base.grads, exam.fp32.grads
    largest = sorted((name for name in fp32 if name in base), key=lambda n: float((base[n] - fp32[n]).norm()))[::-1]
    whole = size(fp32)
    for names in ([], *([name] for name in largest)):
        true = {name: fp32[name] for name in names} or fp32
        apart = difference(base, true)
        if not (apart > ASTRAY and size(true) > COUNTS * whole and difference(exam.nudged.grads, true) < MUCH):
            continue
        worst = largest[0] if not names else names[0]
        what = f"the gradient of {worst} differs" if names else f"the gradients differ, most of all that of {worst},"
        return exam.found(
            "lost digits", f"gradient {worst}",
            f"Every number is finite, and {what} by {told(100 * min(apart, 1e4))} % from FP32's. The loss is "
            f"{_said(exam.base.loss)}, and {_said(exam.fp32.loss)} in FP32.",
            "It is no noise: with every weight moved by one spacing of the 16-bit format, FP32's own gradient changes "
            f"by {told(100 * difference(exam.nudged.grads, true))} %.",
            "Look for a difference of nearly equal numbers, such as E[x²] - E[x]², for a long sum in 16 bits, and for "
            "inputs far from 0; compute that in FP32.\nwith torch.autocast(device, enabled=False): y = f(x.float())",
        )  # fmt: skip
    return None


def comparable(exam: Exam) -> bool:
    """Did it compute in 16 bits, and does FP32 answer, with the same random numbers (dropout draws by dtype)?"""
    return bool(exam.again.low) and not exam.subject.draws and exam.fp32.fine


def compared(exam: Exam) -> str:
    """How a healthy step stands against FP32, if that was asked."""
    if exam.again.low and exam.subject.draws and "fp32" not in vars(exam):
        return (
            "It was not held against FP32: the step draws random numbers, and they fall differently in another dtype."
        )
    if "fp32" not in vars(exam):
        return ("On the way, too, nothing became Inf or NaN, and no gradient is half zeros: a run in FP32 has nothing "
                "to cure.")  # fmt: skip
    if exam.fp32.error is not None:
        return f"It could not be tried in FP32: {exam.fp32.error}"
    apart = difference(exam.base.grads, exam.fp32.grads)
    said = f"In FP32 its gradients differ by {told(100 * apart)} %."
    if apart < MUCH:
        return said
    if exam.subject.draws:
        return f"{said} The step draws random numbers, which fall differently in another dtype."
    if not comparable(exam):
        return said
    try:
        moved = difference(exam.nudged.grads, exam.fp32.grads)
    except Spent:
        return said
    said += f" With every weight moved by one spacing of the 16-bit format, FP32's own differ by {told(100 * moved)} %"
    if moved > MUCH:
        return f"{said}: they are as small as rounding, as near the end of a training, and that is noise."
    return f"{said}, so some digits are lost on the way, though less than half of what counts."


def _said(loss: float | None) -> str:
    return "no number" if loss is None else f"{loss:.6g}"
