"""What separates patients that look alike: the same step again, with one thing changed, in one word each."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mpkit.course.clinic import Case
from mpkit.course.lesson_10.examination import Examination
from mpkit.course.lesson_10.waiting_room import apart, logged, patient
from mpkit.diagnosis.exam import same
from mpkit.diagnosis.patching import replaced
from mpkit.diagnosis.run import Run
from mpkit.diagnosis.wide import in_fp32

COLUMNS = ("as it is", "again", "in FP32", "without scale", "next loss", "next, FP32")


def reruns(number: int, device: str = "cpu") -> dict[str, str]:
    """What becomes of a patient's step as it is, again, in FP32 and without its loss scale; and of the step after it.

    Of a step: "finite" or "Inf, NaN", of all that it leaves. Of the step after it, on the same data: whether its loss
    is "another" or the "same" to the last digit. Without a loss scale: "-".
    """
    examined = Examination(number, device)
    with apart(), examined.case.around():
        exam, subject = examined.exam, examined.exam.subject
        base, wide = exam.base, exam.fp32
        scaled = "scale" in base.seen.calls and base.seen.scale != 1
        found = {
            "as it is": _state(base), "again": "the same" if same(base, exam.again) else "differs",
            "in FP32": _state(wide), "without scale": _state(exam.unscaled) if scaled else "-",
        }  # fmt: skip
        found["next loss"] = _moved(base, examined.second)
        subject.run(fp32=True)
        found["next, FP32"] = _moved(wide, subject.run(fp32=True, afresh=False))
        subject.restore()
    return found


def _state(run: Run) -> str:
    return "Inf, NaN" if run.bad else "finite"


def _moved(one: Run, other: Run) -> str:
    if one.loss != one.loss or other.loss != other.loss:
        return "NaN"
    return "same" if one.loss == other.loss else "another"


def first_bad_module(model: nn.Module, found: list[str]) -> None:
    """What people do with print: every module writes its name into `found` when its output holds Inf or NaN."""

    def hook(name: str) -> Any:
        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return look

    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(hook(name))


def in_fp32_from_the_start(number: int, device: str = "cpu") -> bool:
    """Does a patient's script, sick, stay finite without a skip if all of it runs in FP32 from its first step?"""
    chosen = patient(number)
    with apart():
        case = chosen.build(True, 0, device)
    with in_fp32([case.model], case.optimizer, set()):
        found = logged(case, chosen.steps)
    return all(math.isfinite(values[-1]) for values in found.values()) and all(found.get("stepped", [1.0]))


def anomaly(case: Case, loss: Callable[[Tensor, Tensor], Tensor] | None = None) -> str:
    """What torch's anomaly detection says of a step: the text of its error, without the stack that it prints.

    `loss`: used in place of the mean squared error.
    """
    other = replaced(F, "mse_loss", lambda _: loss) if loss else nullcontext()
    try:
        with apart(), case.around(), other, torch.autograd.set_detect_anomaly(True):
            case.step(case.batch)
    except RuntimeError as error:
        return str(error)
    return "nothing"


class Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is active, counts how often Python reads a number out of a tensor: on a GPU each is a wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, and do what was asked."""
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))
