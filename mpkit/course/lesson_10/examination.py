"""Six tests of a patient: each runs its step again with one thing changed, and says in a sentence what came of it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mpkit import FP16, tally
from mpkit.course.clinic import Case, Patient
from mpkit.course.lesson_10 import calls
from mpkit.course.lesson_10.in_words import about, listed, number, weights
from mpkit.course.lesson_10.in_words import apart as in_digits
from mpkit.course.lesson_10.waiting_room import Curves, admitted, apart, curves, patient
from mpkit.course.pictures.style import percent
from mpkit.diagnosis import KINDS, Diagnosis, diagnose, diagnose_checkpoint
from mpkit.diagnosis.exam import SMALL, Exam, close, difference, same, size
from mpkit.diagnosis.notes import NAMES
from mpkit.diagnosis.run import Run, Subject
from mpkit.trees import tensors_in


class Examination:
    """The tests of one patient on a device, each made when it is first asked for."""

    def __init__(self, which: int, device: str = "cpu") -> None:
        self.patient, self._which, self._device = patient(which), which, device
        self._said: dict[str, str] = {}
        with apart():
            self.case = admitted(which, device=device)

    def said(self, test: str) -> str:
        """What came of a test, one of TESTS."""
        if test not in self._said:
            with self.ready():
                self._said[test] = getattr(self, f"_{test}")()
        return self._said[test]

    @contextmanager
    def ready(self) -> Iterator[None]:
        """A block that may run the step; afterwards all is where it was."""
        with apart(), self.case.around():
            yield
            self.exam.subject.restore()

    @property
    def curves(self) -> Curves:
        """What the owner sees."""
        return curves(self._which, True, self._device)

    @cached_property
    def diagnosis(self) -> dict[str, str]:
        """What `mpkit.diagnose` says of this patient, part by part; code in a line of its own."""
        with self.case.around():
            found = diagnosed(self.case)
        parts = {"cause": found.cause, "proof": found.proof, "cure": found.cure, "tried": "; ".join(found.tests)}
        return {found.kind: found.where or KINDS[found.kind]} | {name: said for name, said in parts.items() if said}

    @cached_property
    def exam(self) -> Exam:
        """The step as it is, watched; reruns start from there."""
        case = self.case

        def whole(*batch: Any) -> Any:
            loss = case.step(*batch)
            if case.update is not None:
                case.update()
            return loss

        exam = Exam(Subject(whole, case.model, case.optimizer, case.scaler, case.scheduler, case.ema, case.batch))
        exam.again  # noqa: B018  (first, for a later run may leave something in a list that the script keeps)
        exam.subject.run()
        self.second = exam.subject.run(afresh=False)
        return exam

    @cached_property
    def wide_second(self) -> Run:
        """One more step in FP32, after a first one in FP32."""
        self.exam.subject.run(fp32=True)
        return self.exam.subject.run(fp32=True, afresh=False)

    def _again(self) -> str:
        base, again, second = self.exam.base, self.exam.again, self.second
        if not same(base, again):
            return (f"From the same state the loss is {number(base.loss)}, then {number(again.loss)}. Nothing was "
                    "changed between the two.")  # fmt: skip
        loss, after = true_loss(base), true_loss(second)
        one, then = in_digits(loss, after)
        still = " to the last digit" if after == loss and math.isfinite(loss or 0) else ""
        logs = f" The script logs {number(base.loss)}." if number(base.loss) != number(loss) else ""
        return f"From the same state the loss is {one} both times.{logs} One more step on the same data: {then}{still}."

    def _fp32(self) -> str:
        base, wide = self.exam.base, self.exam.fp32
        one, after = in_digits(true_loss(base), true_loss(self.second))
        other, then = in_digits(true_loss(wide), true_loss(self.wide_second))
        low = f", with {' and '.join(self.formats)}" if self.formats else ""
        said = [f"The loss is {other}, a step later {then} (as it is{low}: {one}, then {after})."]
        if wide.bad or base.bad:
            here, there = (listed(run.bad) for run in (base, wide))
            said.append(f"Not finite as it is: {here}; in FP32: {there}.")
        elif wide.grads and difference(base.grads, wide.grads) > 0.1:
            one, other = (number(size(run.grads)) for run in (base, wide))
            said.append(f"The gradients that reach the optimizer have a norm of {one}, in FP32 {other}.")
        return " ".join((*said, *self.stuck[-2:], *["The casts to FP8 stay."] * bool(wide.left)))

    @cached_property
    def formats(self) -> list[str]:
        """The formats below FP32 that the step computes in, by name."""
        return sorted(NAMES[dtype] for dtype in self.exam.again.low) + ["FP8"] * bool(self.exam.fp32.left)

    @cached_property
    def stuck(self) -> list[str]:
        """What does not move as it is, and does in FP32: a sentence each."""
        base, wide, subject = self.exam.base, self.exam.fp32, self.exam.subject
        subject.restore()
        found = []
        for name, start in [(name, tensor.detach().float().clone()) for name, tensor in subject.moving()]:
            if name in base.state and name in wide.state:
                here, there = (float((run.state[name].float() != start).float().mean()) for run in (base, wide))
                if here < 0.5 < there:
                    found.append(f"Of {name} {percent(here)} moves, in FP32 {percent(there)}.")
        return found

    def _scale(self) -> str:
        base = self.exam.base
        if "scale" not in base.seen.calls:
            return "There is no loss scale in this step, so there is nothing to change."
        if base.seen.scale == 1:
            return "The loss scale is 1, as without a scaler: nothing is left to divide."
        less, without = self.exam.smaller, self.exam.unscaled
        old, new = number(base.seen.scale), number(base.seen.scale * SMALL)
        here, there, plain = (_gradients(run) for run in (base, less, without))
        one, other = (run.seen.backward_loss for run in (base, less))  # a script may log something else
        if not close(one, other):
            return f"At {old} the loss is {number(one)}, at {new} {number(other)}."
        taken = "skipped" if without.skipped else "taken"
        said = [f"At {old} gradients are {here}"]
        said += [f"at {new} they are {there}"] if base.seen.scale * SMALL > 1 else []
        return f"{'; '.join(said)}; without a scale they are {plain}, and the step is {taken}."

    def _data(self) -> str:
        case = self.case
        said = [about(tensor) for tensor in tensors_in(case.batch)]
        what = f"The batch: {'; '.join(said)}." if said else "The step gets its data by itself."
        if case.stream is not None:
            what += f" The first batch of the run: {'; '.join(map(about, tensors_in(case.stream(0))))}."
        if case.state is not None:
            model = [tensor for tensor in case.model.state_dict().values() if isinstance(tensor, Tensor)]
            what += (f" The checkpoint has: {', '.join(case.state)}. Its weights: {weights(case.state['model'])}; "
                     f"in the model: {weights(dict(enumerate(model)))}.")  # fmt: skip
        return what

    def _tally(self) -> str:
        base, case = self.exam.base, self.case
        if not base.grads:
            return "This step has no backward pass, so there are no gradients."
        values = torch.cat([grad.flatten() for grad in base.grads.values()])
        counts, total = tally(values, FP16), values.numel()
        zero = int((values == 0).sum())
        shares = ", ".join(f"{percent(n / total)} {name}" for n, name in
                           ((counts.inf_count, "Inf"), (counts.nan_count, "NaN"), (zero, "zero")))  # fmt: skip
        said = f"Of {total:,} gradients that the optimizer gets {shares}; their norm is {number(size(base.grads))}."
        left = size(base.seen.raw)
        if math.isfinite(left) and not close(left, size(base.grads)):
            said += f" As backward left them, without the scale, it was {number(left)}."
        if base.seen.backward_calls > 1:
            said += f" {base.seen.backward_calls:,} backward passes add to them."
        if any(name.startswith("gradient") for name in self.exam.subject.bad_at_start):
            said += " Some were not finite before this step began."
        held = {p for group in getattr(case.optimizer, "param_groups", []) for p in group["params"]}
        names = {name for p, name in self.exam.subject.names.items() if p in held}
        alone = bool(held) and not names & base.grads.keys()
        return f"{said} None of them belongs to a tensor of the optimizer." if alone else said

    def _trace(self) -> str:
        base = self.exam.base
        if base.first is not None:
            said = str(base.first).replace(f" ({base.first.line})", "")
            said = said[0].upper() + said[1:]
        elif base.harmless:
            event = base.harmless[0]
            said = f"{event.operation} in {event.module} makes Inf or NaN, which reaches neither loss nor gradient."
        else:
            said = "No operation of the step makes Inf or NaN."
        noted = "".join(f" {note.text[0].upper()}{note.text[1:]}." for note in self.notes.values())
        return f"{said}{noted} Calls: {calls.told(base.seen.calls)}."

    @property
    def notes(self) -> dict[str, Any]:
        """What casts do to the numbers of this step, by sort."""
        return self.exam.again.notes


def diagnosed(case: Case) -> Diagnosis:
    """`mpkit.diagnose` of a case, or of its checkpoint where it came with one."""
    if case.state is not None:
        return diagnose_checkpoint(case.state, case.model, case.optimizer, case.scaler)
    with apart():
        return diagnose(case.step, model=case.model, optimizer=case.optimizer, scaler=case.scaler,
                        scheduler=case.scheduler, ema=case.ema, batch=case.batch)  # fmt: skip


def placed(found: Diagnosis, file: Patient) -> bool:
    """Does a diagnosis name the place that is written in a patient's file, or none where none is written?"""
    return file.where in found.where if file.where else not found.where


def _gradients(run: Run) -> str:
    return "not finite" if run.has("gradient") else "finite"


def true_loss(run: Run) -> float | None:
    """The loss that backward was called on where that is not finite, whatever the script logs; else what it logs."""
    went = run.seen.backward_loss
    return went if went is not None and not math.isfinite(went) else run.loss
