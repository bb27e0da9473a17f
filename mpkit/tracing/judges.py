"""What a look says: whether an operation made bad values, and where those that went in and came out belong."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from mpkit.formats import FloatFormat
from mpkit.tracing import names
from mpkit.tracing.descent import Marks, arrived, pass_on, union
from mpkit.tracing.event import CONSEQUENCE, LARGE, Where, condition, deliberate, describe, judge
from mpkit.tracing.findings import NOTHING, Causes, Finding, Findings
from mpkit.tracing.glance import glance, largest, magnitudes, suspicious, within_noise
from mpkit.tracing.look import Look, unexplained


class Judges:
    """One judge for each phase of a pass. They see looks in the order of the program, and follow what is bad.

    A finding counts when bad values that descend from it are in an output of the model, in the loss or in a parameter's
    gradient. While nothing is bad, nothing is followed.
    """

    def __init__(self, fmt: FloatFormat | None, findings: Findings) -> None:
        self.fmt, self.findings = fmt, findings
        self._marks = Marks()
        self._in_backward: Causes = NOTHING  # of this pass: what bad gradients come from,
        self._in_gradients: Causes = NOTHING  # and those of parameters, which later work on .grad descends from
        self._named: dict[str, Finding] = {}
        self._quiet = True  # nothing has been found in this pass, and nothing is bad from an earlier one

    def start_pass(self) -> None:
        """A new forward pass: bad gradients of the last one explain nothing any more."""
        self._in_backward = self._in_gradients = NOTHING
        self._marks.forget_the_dead()
        self._quiet = not self._marks and not self.findings.undecided

    def nothing_to_say(self, amaxes: list[float]) -> bool:
        """True if looks at results of these magnitudes change nothing: all is well, and has been in this pass."""
        fine = math.isfinite if self.fmt is None else lambda amax: condition(amax, self.fmt) == "fine"
        return self._quiet and all(map(fine, amaxes))

    def judge(self, look: Look, after: list[float]) -> None:
        """Judge a look, whose results have these largest magnitudes."""
        judges: dict[str, Callable[[Look, list[float]], None]] = {
            "input": self._inputs,
            "forward": self._forward,
            "unseen": self._unseen,
            "write": self._write,
            **dict.fromkeys(("output", "part", "loss"), lambda look, _: self._end(look)),
            "backward": self._backward,
            "gradients": self._gradients,
        }
        judges[look.phase](look, after)

    def _limits(self, look: Look) -> FloatFormat | None:
        return None if look.where.is_cast else self.fmt

    def _bad(self, amax: float, look: Look) -> bool:
        return condition(amax, self._limits(look)) in LARGE

    def _inputs(self, look: Look, after: list[float]) -> None:
        """Parameters, buffers and data that are bad before anything happened. Each is named once."""
        for name, tensor, amax in zip(look.labels, look.outputs, after, strict=True):
            if not self._bad(amax, look) or not (name.startswith("parameter") or suspicious(tensor, amax)):
                self._marks.set(tensor, NOTHING)
                continue
            if name not in self._named:
                where = replace(look.where, operation=name)
                self._named[name] = self._record("input", where, look, [tensor], [amax], [])
            self._marks.set(tensor, frozenset({self._named[name]}))

    def _forward(self, look: Look, after: list[float]) -> None:
        if look.unread and self._marks:  # nothing bad can come out of it where nothing bad is
            look.outputs, after = look.unread, magnitudes(glance(look.unread))
        bad = [self._bad(amax, look) for amax in after]
        if self._marks:
            self._use(look, hides=not any(bad))
        causes = NOTHING
        if any(bad):
            causes = self._bad_result(look, after)
        elif any(condition(amax, self._limits(look)) == "under" for amax in after):
            self._underflow(look, after, magnitudes(look.numbers_before()))
        look.where.causes = causes
        for tensor, is_bad in zip(look.outputs, bad, strict=True):
            self._marks.set(tensor, causes if is_bad else NOTHING)
        self._marks.forget_the_dead()

    def _unseen(self, look: Look, after: list[float]) -> None:
        """What a user's autograd.Function has handed on: that is the cause if nothing in it has been seen to be one."""
        if not any(map(self._marks.of, look.outputs)):
            self._forward(look, after)

    def _write(self, look: Look, after: list[float]) -> None:
        """`x[…] = value`: the rest of `x` may hold anything, so it is not read."""
        rounded = any(self._bad(amax, look) for amax in after)
        look.where.causes = self._bad_result(look, after) if rounded else union(map(self._marks.of, look.inputs))
        for tensor in look.unread:
            self._marks.set(tensor, look.where.causes, written=False)

    def _bad_result(self, look: Look, after: list[float]) -> Causes:
        """What a result with Inf, NaN or too large values comes from: earlier findings, or a new one."""
        operands, before = [*look.was, *look.inputs], magnitudes(look.numbers_before())
        if look.where.operation in names.TAKES_MINUS_INF:
            before = [0.0 if self._is_mask(t, amax) else amax for t, amax in zip(operands, before, strict=True)]
        came = [tensor for tensor, amax in zip(operands, before, strict=True) if self._bad(amax, look)]
        causes = union(map(self._marks.of, came)) or (self._in_gradients if came else NOTHING)
        kind = judge(after, before, self._limits(look), known=bool(causes))
        if not look.where.is_cast and deliberate(look.scalars):
            return causes
        if (kind == CONSEQUENCE or look.unseen) and not causes and not all(map(math.isfinite, after)):
            causes = self._source(look, before)
            kind = judge(after, before, self._limits(look), known=bool(causes))
        if kind in (None, CONSEQUENCE):
            return causes
        return causes | {self._record(kind, look.where, look, look.outputs, after, before)}

    def _is_mask(self, tensor: Tensor, amax: float) -> bool:
        """-Inf that no finding explains: beside it, what an attention makes of its other operands is its own."""
        return math.isinf(amax) and not self._marks.of(tensor) and not suspicious(tensor, amax)

    def _use(self, look: Look, hides: bool) -> None:
        """An operation that `hides` makes something good of what is bad: 1 / Inf = 0.

        That did harm, unless what is bad was discarded. A prediction does it in any result: nothing bad need show.
        """
        if (name := look.where.operation) in names.DISCARDS:
            return
        for place, tensor in enumerate([*look.was, *look.inputs]):
            lost = {f for f in self._marks.of(tensor) if not f.counts and (hides or f.predicted)}
            if lost and name in names.TAKES_MINUS_INF:
                lost = {f for f in lost if f.predicted or suspicious(tensor, math.inf)}
            seen = look.before[place : place + 1] if place < len(look.was) else glance([tensor])
            if lost and self._bad(magnitudes(seen)[0], look):
                self.findings.reach(lost)

    def _underflow(self, look: Look, after: list[float], before: list[float]) -> None:
        """Every value of a result would become 0. That is harmless if it is a sum that cannot be told from 0."""
        if judge(after, before, self._limits(look), known=False) != "underflow":
            return
        limits = self._limits(look)
        small = [(t, a) for t, a in zip(look.outputs, after, strict=True) if condition(a, limits) == "under"]
        lost = [(t, a) for t, a in small if not within_noise(t, a, look.inputs, largest(before))]
        tensors, amaxes = zip(*(lost or small), strict=True)
        finding = self._record("underflow", look.where, look, list(tensors), list(amaxes), before)
        if lost:
            self.findings.reach([finding])

    def _source(self, look: Look, before: list[float]) -> Causes:
        """Bad values went into an operation, and nothing explains them: they come from where nobody looked.

        An operation that nobody sees may have handed on what was bad a moment ago, so in doubt it is that.
        """
        if (found := unexplained(look, before)) is None:
            return NOTHING
        if look.phase != "backward" and (recent := self._marks.all()):
            return recent
        kind, where, tensor, amax = found
        causes = frozenset({self._record(kind, where, look, [tensor], [amax], [])})
        self._marks.set(tensor, causes)
        return causes

    def _end(self, look: Look) -> None:
        """An output of the model, or the loss: what it descends from counts; what has come to an end does not."""
        causes = look.where.causes if look.phase == "loss" else NOTHING
        causes |= union(
            self._marks.of(t) for t in look.inputs if self._marks.of(t) and self._bad(magnitudes(glance([t]))[0], look)
        )
        self.findings.reach(causes)
        if look.phase != "part":
            self.findings.close(inside_only=look.phase == "output")

    def _backward(self, look: Look, after: list[float]) -> None:
        came = arrived(look.node, self)
        for way in look.passed if came else ():
            self._pass_on(way, came)
        states = {condition(amax, self._limits(look)) for amax in after}
        if states <= {"fine"}:
            return
        before = magnitudes(look.numbers_before())
        if not states & LARGE:
            return self._underflow(look, after, before)
        causes = came if any(self._bad(amax, look) for amax in before) else NOTHING
        causes = causes or look.where.causes
        kind = judge(after, before, self._limits(look), known=bool(causes))
        if not causes and not all(map(math.isfinite, before)) and not all(map(math.isfinite, after)):
            causes = self._source(look, before)
            kind = judge(after, before, self._limits(look), known=bool(causes))
        if kind not in (None, CONSEQUENCE) and not (look.where.causes and not came):
            finding = self._record(kind, look.where, look, look.outputs, after, before)
            causes |= {finding}
            if finding.predicted:
                self.findings.reach([finding])
        self._in_backward |= causes
        for way in (way for way, amax in zip(look.ways, after, strict=True) if self._bad(amax, look)):
            self._pass_on(way, causes)
        return None

    def _gradients(self, look: Look, after: list[float]) -> None:
        """Results of autograd.grad, whose way there ends at no parameter: all that this pass found may be in them."""
        for tensor, amax in zip(look.outputs, after, strict=True):
            causes = self._in_backward if self._bad(amax, look) else NOTHING
            self.findings.reach(causes)
            self._marks.set(tensor, causes)

    def _pass_on(self, way: object, causes: Causes) -> None:
        if pass_on(way, causes, self):
            self.findings.reach(causes)
            self._in_gradients |= causes

    def _record(
        self, kind: str, where: Where, look: Look, outputs: Sequence[Tensor], after: list[float], before: list[float]
    ) -> Finding:
        self._quiet = False
        phase = "backward" if look.phase == "backward" else "forward"
        pairs = list(zip(outputs, after, strict=True))
        event = describe(kind, phase, where, pairs, largest(before), self._limits(look))
        decided = phase == "backward" or kind == "underflow"
        return self.findings.add(event, where.module != names.OUTSIDE, decided)
