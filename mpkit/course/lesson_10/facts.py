"""What the tests of one patient show, as facts that speak against a diagnosis. Every number in them is measured."""

import math
from functools import cached_property

from mpkit.course.lesson_10 import calls
from mpkit.course.lesson_10.case_facts import CaseFacts
from mpkit.course.lesson_10.examination import Examination, true_loss
from mpkit.course.lesson_10.in_words import listed, number
from mpkit.diagnosis.exam import MUCH, close, difference, same, size
from mpkit.formats import FP16

KEPT = ("parameter", "buffer", "average", "moment")


class Facts(CaseFacts):
    """Facts of an examination. What needs a run makes it when first asked for; ask inside `examination.ready()`."""

    def __init__(self, examined: Examination) -> None:
        super().__init__(examined.curves, examined.case)
        self.examined = examined

    # ---- the same step again ----

    @cached_property
    def repeats(self) -> bool:
        """Does the same step give the same?"""
        return same(self.examined.exam.base, self.examined.exam.again)

    @cached_property
    def moves(self) -> bool:
        """Does one more step on the same data give another loss? A NaN after a number is another."""
        return _other(true_loss(self.examined.exam.base), true_loss(self.examined.second))

    @cached_property
    def bad_at_once(self) -> str:
        """The loss of the very first step, if it is Inf or NaN; else ""."""
        loss = true_loss(self.examined.exam.base)
        fresh = self.examined.patient.after == 0
        return number(loss) if fresh and loss is not None and not math.isfinite(loss) else ""

    # ---- FP32 ----

    @cached_property
    def bad(self) -> list[str]:
        """What is not finite after the step as it is."""
        return self.examined.exam.base.bad

    @cached_property
    def bad_in_fp32(self) -> list[str]:
        """What is not finite after the step in FP32."""
        return self.examined.exam.fp32.bad

    @cached_property
    def kept(self) -> list[str]:
        """What is not finite, and stays for the next step."""
        return [name for name in self.bad if name.split(" ")[0] in KEPT]

    @cached_property
    def gap(self) -> float:
        """By how much the gradients differ from those of FP32, relative; NaN: some are not finite."""
        return difference(self.examined.exam.base.grads, self.examined.exam.fp32.grads)

    @cached_property
    def agrees(self) -> bool:
        """Is all finite, and what FP32 gives: this loss, its gradients, what stays, and the next loss?"""
        base, wide, examined = self.examined.exam.base, self.examined.exam.fp32, self.examined
        if base.bad or wide.bad or self.eight_bit or examined.stuck:
            return False
        later = close(examined.second.loss, examined.wide_second.loss)
        return later and close(base.loss, wide.loss) and self.gap <= MUCH

    @property
    def eight_bit(self) -> bool:
        """Does the step cast to FP8, in the run in FP32 as well?"""
        return bool(self.examined.exam.fp32.left)

    @property
    def only_bf16(self) -> bool:
        """Is BF16 the only format below FP32? It ends where FP32 does."""
        return self.examined.formats == ["BF16"]

    @property
    def only_kept(self) -> bool:
        """Is there Inf or NaN only in what stays, where a trace does not look?"""
        return bool(self.bad) and self.kept == self.bad

    @cached_property
    def moves_in_fp32(self) -> bool:
        """Does one more step in FP32 give another loss?"""
        return _other(true_loss(self.examined.exam.fp32), true_loss(self.examined.wide_second))

    @cached_property
    def learns_in_fp32(self) -> bool:
        """Is the loss lower after a step in FP32?"""
        loss, after = true_loss(self.examined.exam.fp32), true_loss(self.examined.wide_second)
        return loss is not None and after is not None and after < loss

    @property
    def low(self) -> bool:
        """Is anything that should move kept in 16 bits?"""
        return bool(self.examined.exam.subject.low)

    # ---- the scale, the gradients ----

    @property
    def has_scale(self) -> bool:
        """Is the loss multiplied by a scaler?"""
        return "scale" in self.examined.exam.base.seen.calls

    @cached_property
    def bad_without_scale(self) -> bool:
        """Are gradients not finite without a loss scale either?"""
        return bool(self.examined.exam.unscaled.has("gradient"))

    @cached_property
    def zeros(self) -> float:
        """The share of gradients that are exactly 0."""
        grads = list(self.examined.exam.base.grads.values())
        return sum(float((g == 0).sum()) for g in grads) / sum(g.numel() for g in grads) if grads else 0.0

    @property
    def passes(self) -> int:
        """How many backward passes the step makes."""
        return self.examined.exam.base.seen.backward_calls

    @cached_property
    def held(self) -> bool:
        """Does the optimizer hold what gets gradients?"""
        groups = getattr(self.examined.case.optimizer, "param_groups", [])
        names = self.examined.exam.subject.names
        held = {names.get(p) for group in groups for p in group["params"]}
        return bool(held & self.examined.exam.base.grads.keys())

    @cached_property
    def norms(self) -> tuple[float, float]:
        """The norm of the gradients as backward left them, without the scale, and as the optimizer gets them."""
        base = self.examined.exam.base
        return size(base.seen.raw), size(base.grads)

    @property
    def bad_at_start(self) -> list[str]:
        """What was not finite before the step began."""
        return self.examined.exam.subject.bad_at_start

    # ---- the trace ----

    @property
    def first(self) -> str:
        """The kind of what the trace names first; "" if it names nothing."""
        event = self.examined.exam.base.first
        return event.kind if event else ""

    @property
    def made_forward(self) -> bool:
        """Was the first bad value made in the forward pass?"""
        event = self.examined.exam.base.first
        return event is not None and event.kind != "input" and event.phase == "forward"

    @property
    def too_large(self) -> bool:
        """Was the first bad value made of one that was too large?"""
        event = self.examined.exam.base.first
        return event is not None and (event.kind == "overflow" or FP16.max < event.input_amax < math.inf)

    @property
    def of_ordinary(self) -> bool:
        """Was the first bad value a NaN made of numbers that FP16 has?"""
        event = self.examined.exam.base.first
        return event is not None and event.kind == "invalid" and event.input_amax <= FP16.max

    @property
    def notes(self) -> dict[str, str]:
        """What casts do, by sort."""
        return {sort: note.text for sort, note in self.examined.notes.items()}

    @property
    def calls(self) -> list[str]:
        """The calls of the step."""
        return self.examined.exam.base.seen.calls

    @property
    def disorder(self) -> str:
        """What is wrong with the calls."""
        return calls.disorder(self.calls)

    def not_finite(self) -> str:
        """What is not finite as it is, in words."""
        return listed(self.bad)


def _other(one: float | None, other: float | None) -> bool:
    if one is None or other is None or not math.isfinite(one):
        return False
    return one != other
