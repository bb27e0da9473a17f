"""What is said of a step besides its diagnosis: it may be meant, and nothing shows that it is not."""

from __future__ import annotations

from mpkit.diagnosis.exam import Exam, size
from mpkit.diagnosis.run import Spent
from mpkit.diagnosis.words import listing, told

IN_PLACE = (
    " The step changes its batch in place; it was put back before each run. A loader that gives out the same memory "
    "again gives out changed data then."
)


def remarks(exam: Exam) -> str:
    """All of them, as sentences that go on behind another one."""
    return IN_PLACE * exam.subject.batch_changed + _old_gradients(exam) + _unreached(exam)


def _old_gradients(exam: Exam) -> str:
    if not exam.base.seen.stepped or not never_cleared(exam):
        return ""
    return f" This step adds to gradients that were there when it began{norms(exam)}: clear them, unless the loop does."


def never_cleared(exam: Exam) -> bool:
    """Were there gradients when the first backward pass began, and is there no call that clears them?"""
    seen = exam.base.seen
    return seen.old > 0 and "zero_grad" not in seen.calls


def norms(exam: Exam) -> str:
    """How much the old gradients make of it, in brackets; "" if it cannot be tried any more."""
    try:
        alone = size(exam.cleared.seen.raw)
    except Spent:
        return ""
    return f" (their norm is {told(size(exam.base.seen.raw))} after it, of this batch alone {told(alone)})"


def _unreached(exam: Exam) -> str:
    """Parameters that are to be trained, and without a gradient."""
    subject, base = exam.subject, exam.base
    if "backward" not in base.seen.calls or not base.grads:
        return ""
    names = [n for p, n in subject.names.items() if p.requires_grad and p in subject.held and n not in base.grads]
    return f" No gradient reached {listing(names)}, which the optimizer holds." if names else ""


def unmeasured(exam: Exam) -> str:
    """What a comparison of gradients leaves out: the arithmetic of an optimizer in 16 bits; "" if there is none."""
    subject = exam.subject
    own = {f"parameter {name}" for p, name in subject.names.items() if p in subject.held}
    if not exam.base.seen.stepped or not any(name in own or name.startswith("moment ") for name in subject.low):
        return ""
    if "fp32" in vars(exam) and exam.fp32.error is None:
        return " Of the weights and moments in 16 bits it was compared whether they move, not by how much."
    return " What the optimizer makes of its weights and moments in 16 bits was not compared."
