"""The tests of one diagnosis: each is a rerun with one thing changed, made when it is first asked for, and noted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor

from mpkit.diagnosis.data import filled
from mpkit.diagnosis.diagnosis import Diagnosis
from mpkit.diagnosis.eps import HeldEps
from mpkit.diagnosis.run import Run, Subject
from mpkit.diagnosis.wide import nudged, one_cleaned, one_in_fp32
from mpkit.diagnosis.words import held
from mpkit.tracing.event import TraceEvent
from mpkit.trees import map_tensors, tensors_in

SMALL = 2.0**-8
MUCH = 0.1  # a gradient that differs from that of FP32 by so much, relative, is more than rounding
NOISE = 1e-3  # relative; kernels of a GPU that add in any order stay far below


class Exam:
    """What was tried with a subject, and what came of it. `base` is the step as it is, watched."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.tests: list[str] = []
        self.base = subject.run(watch=True, outputs=True, keep=True)
        self._note("as it is", self.base)

    def found(self, kind: str, where: str = "", cause: str = "", proof: str = "", cure: str = "") -> Diagnosis:
        """A diagnosis with all that was tried."""
        if "fp32" in vars(self) and (left := self.fp32.left):
            proof += f" In that run, too, the step casts to {' and '.join(sorted(left))} by torch's own cast."
        return Diagnosis(kind, where, cause, proof, cure, self.subject.runs, tuple(self.tests))

    def _note(self, test: str, run: Run) -> Run:
        said = (
            f"raised {type(run.error).__name__}"
            if run.error
            else f"Inf or NaN in {held(run.bad[0])}"
            if run.bad
            else "finite"
        )
        self.tests.append(f"{test}: {said}{', skipped' if run.skipped else ''}")
        return run

    @cached_property
    def again(self) -> Run:
        """The same from the same state; what casts do to numbers is noted here, apart from the trace of `base`."""
        return self._note("again", self.subject.run(notes=True, outputs=True, keep=True))

    @cached_property
    def fp32(self) -> Run:
        """All of it in FP32."""
        return self._note("in FP32", self.subject.run(fp32=True, keep=True))

    @cached_property
    def nudged(self) -> Run:
        """In FP32, every weight one spacing of the 16-bit format away: what changes with that, 16 bits cannot tell."""
        spacing = max(torch.finfo(dtype).eps for dtype in self.again.low)
        run = self.subject.run(nudged(self.subject.names, spacing), fp32=True, keep=True)
        return self._note("in FP32, weights moved by a spacing", run)

    @cached_property
    def smaller(self) -> Run:
        """The scaled loss divided by 2^8."""
        return self._note("scale / 2^8", self.subject.run(factor=SMALL))

    @cached_property
    def other_scale(self) -> Run:
        """Again with the scaled loss divided by 2^8: what backward leaves of that."""
        return self._note("scale / 2^8", self.subject.run(factor=SMALL, raw=True))

    @cached_property
    def unscaled(self) -> Run:
        """The scaled loss divided by the scale: as without one."""
        return self._note("without the scale", self.subject.run(factor=1 / self.base.seen.scale))

    @cached_property
    def unscaled_first(self) -> Run:
        """Gradients unscaled before they are clipped."""
        return self._note("unscaled before clipping", self.subject.run(unscale_first=True, keep=True))

    @cached_property
    def scale_told_double(self) -> Run:
        """With scaler.get_scale() answering twice the scale: what of the loop goes by that?"""
        return self._note("get_scale() doubled", self.subject.run(answer=2.0))

    @cached_property
    def cleared(self) -> Run:
        """Without the gradients that were there before."""
        return self._note("old gradients cleared", self.subject.run(self._without_gradients(), raw=True))

    def without(self, marked: list[tuple[Tensor, Tensor]], test: str) -> Run:
        """In FP32, with these values of the data set to 0."""
        return self._note(f"in FP32, {test}", self.subject.run(filled(marked), fp32=True))

    @cached_property
    def planted(self) -> Run:
        """What the loop does with an Inf in a gradient: one that was left there, and one that its backward makes."""
        own = [p for p, name in self.subject.names.items() if name in self.base.grads and p in self.subject.held]
        either = [p for p, name in self.subject.names.items() if name in self.base.grads]
        return self._note("an Inf planted", self.subject.run(plant=next(iter(own or either), None)))

    @cached_property
    def further(self) -> Run:
        """Three steps more, from where the first ended."""
        self.subject.run()
        for _ in range(2):
            self.subject.run(afresh=False)
        return self._note("three more steps", self.subject.run(afresh=False, keep=True))

    def after_planted(self) -> Run:
        """The next step after that one; call it right after `planted`."""
        return self._note("the step after it", self.subject.run(afresh=False))

    def one_more(self, clear_cache: bool) -> Run:
        """A second step on the same batch, from where the first one ended."""
        self.subject.run()
        self.subject.snapshot.rewind()  # the same dropout, or the loss is another one for that
        if clear_cache:
            torch.clear_autocast_cache()
        return self._note(f"a second step{', cache cleared' * clear_cache}", self.subject.run(afresh=False))

    def alone_in_fp32(self) -> Run | None:
        """The first cause alone in FP32; None: it cannot be singled out, or the rest does not take its result."""
        event = self.base.first
        if event is None or event.phase != "forward" or event.kind == "input":
            return None
        run = self.subject.run(one_in_fp32(self.subject.model, event.module, event.operation), keep=True)
        test = f"{event.operation} in {event.module} alone in FP32"
        if run.error is None:
            return self._note(test, run)
        self.tests.append(f"{test}: cannot be tried, what comes behind it does not take its result")
        return None

    def cleaned(self, event: TraceEvent) -> Run:
        """In FP32, with what that operation makes of Inf and NaN set to 0."""
        change = one_cleaned(self.subject.model, event.module, event.operation)
        return self._note(f"in FP32, Inf and NaN of {event.operation} set to 0", self.subject.run(change, fp32=True))

    def with_eps(self, eps: str) -> Run:
        """With this number in the place of each eps that is 0 in its format."""
        return self._note(f"with an eps of {eps}", self.subject.run(HeldEps(float(eps)), keep=True))

    def half(self, which: int) -> Run | None:
        """One half of the batch; None: it has no common first dimension of two or more."""
        sizes = {t.shape[0] if t.dim() else 0 for t in tensors_in(self.subject.batch)}
        if len(sizes) != 1 or (size := sizes.pop()) < 2:
            return None
        cut = slice(0, size // 2) if which == 0 else slice(size // 2, None)
        return self._note(f"samples {cut.start} to {(cut.stop or size) - 1}",
                          self.subject.run(batch=map_tensors(lambda t: t[cut], self.subject.batch)))  # fmt: skip

    @contextmanager
    def _without_gradients(self) -> Iterator[None]:
        for p in self.subject.names:
            p.grad = None
        yield


def same(a: Run, b: Run) -> bool:
    """Do two runs agree, but for the order of sums?"""
    return (
        sorted(a.bad) == sorted(b.bad)
        and close(a.loss, b.loss)
        and (bool(a.bad) or difference(a.grads, b.grads) < NOISE)
    )


def close(a: float | None, b: float | None) -> bool:
    """Two losses, NaN being NaN."""
    if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
        return str(a) == str(b)
    return abs(a - b) <= NOISE * max(abs(a), abs(b))


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """||a - b|| / ||b|| over all gradients that both have; 0 if both are 0."""
    names = [n for n in b if n in a]
    parts = [torch.linalg.vector_norm(a[n] - b[n]) for n in names]  # one difference at a time: they are large
    apart = float(torch.stack(parts).double().norm()) if parts else 0.0
    whole = size({n: b[n] for n in names})
    return apart / whole if whole else (math.inf if apart else 0.0)


def ratio(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """How many times as large `a` is, along `b`: <a, b> / <b, b>; NaN if b is 0."""
    names = [n for n in b if n in a]
    whole = size({n: b[n] for n in names}) ** 2
    along = [torch.dot(a[n].flatten(), b[n].flatten()) for n in names]
    return float(torch.stack(along).double().sum()) / whole if whole else math.nan


def size(grads: dict[str, Tensor]) -> float:
    """The norm of all of them together. One wait for the device."""
    if not grads:
        return 0.0
    return float(torch.stack(torch._foreach_norm(list(grads.values()))).double().norm())
