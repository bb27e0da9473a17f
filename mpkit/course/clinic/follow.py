"""Run a case, and keep the curves that its owner would look at."""

from typing import Any

from torch import Tensor

from mpkit.course.clinic.patient import Case


def follow(case: Case, steps: int) -> dict[str, list[float]]:
    """Run `steps` steps of a case and record a number of each.

    Returns:
        Curves of `steps` numbers: "loss", as logged; "scale", after the step, if there is a scaler; "stepped", 1 if the
        optimizer was called and 0 if not, if there is one; and the case's own signs, by name.
    """
    curves: dict[str, list[float]] = {}
    calls: list[Any] = []
    hook = case.optimizer and case.optimizer.register_step_post_hook(lambda *_: calls.append(None))
    try:
        with case.around():
            for number in range(steps):
                calls.clear()
                seen = {"loss": _step(case, number)}
                if case.scaler is not None:
                    seen["scale"] = float(case.scaler.get_scale())
                if case.optimizer is not None:
                    seen["stepped"] = float(bool(calls))
                for name, value in (seen | case.signs()).items():
                    curves.setdefault(name, []).append(value)
    finally:
        if hook:
            hook.remove()
    return curves


def _step(case: Case, number: int) -> float:
    batch = case.batch if case.stream is None else case.stream(number)
    loss = case.step() if batch is None else case.step(batch)
    if case.update is not None:
        case.update()
    return float(loss.detach()) if isinstance(loss, Tensor) else float(loss)
