"""`mpkit.diagnose`: what is wrong with this step? It changes one thing, runs the batch again, and says what cured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mpkit.diagnosis import before, direction, loop, loud, silent
from mpkit.diagnosis.diagnosis import Diagnosis
from mpkit.diagnosis.exam import Exam
from mpkit.diagnosis.remarks import remarks, unmeasured
from mpkit.diagnosis.run import Spent, Subject
from mpkit.diagnosis.snapshot import listed
from mpkit.diagnosis.turn import SCALER

# In this order: what was there before the step, what explains the most, and what is cheapest to show.
RULES: tuple[Callable[[Exam], Diagnosis | None], ...] = (
    before.scale_of_zero, before.bad_at_start, before.raised, before.not_repeatable, loud.not_finite,
    loop.stale_cast, loop.not_trained, loop.update_missing, silent.noted, loop.order,
    silent.hidden_overflow, silent.underflow, silent.lost_update, loop.on_a_skip, direction.lost_digits,
)  # fmt: skip

MOST = 8  # runs of the step
SAVED = "state_dict"  # what is put back has it
NOT_TRIED = "{}: not tried, the step has run {} times"

ONE_PROCESS = (
    "diagnose reruns a step in one process, and the others would wait for it: call it without torch.distributed, on "
    "the model inside of DDP or FSDP. mpkit.guard works on all ranks."
)


def diagnose(
    step: Callable[..., Any],
    *,
    model: nn.Module,
    optimizer: Any = None,
    scaler: Any = None,
    scheduler: Any = None,
    ema: nn.Module | None = None,
    batch: Any = None,
) -> Diagnosis:
    """Find out what is wrong with a training step, and prove it by reruns.

    The step is run from the same place with one thing changed each time, eight times at most, and everything is put
    back: parameters, buffers, gradients, optimizer, scaler, scheduler, average, random numbers, batch. A healthy step
    runs two to six times: watched by a trace, once more, in FP32 if it computes in 16 bits, with a scaler once or twice
    with an Inf planted, and once more in FP32 if its gradients are other ones there. Meanwhile there is one more copy
    of all that is put back, and at most four of the gradients, in float32: with AdamW in FP32, 12 times the parameters
    in place of 4.

    Args:
        step: forward and backward pass, or the whole iteration with the calls of scaler, clipping, optimizer and
            scheduler; faults of the loop show only in the latter. It may return the loss.
        model: what is trained. optimizer, scaler (`LossScaler` or `torch.amp.GradScaler`), scheduler: those that the
            step uses; of optimizers and schedulers a list, if there are several. ema: a module that averages the
            weights. Of those not given the first scaler is taken as if it had been; optimizers, schedulers, other
            scalers and averages by `AveragedModel` are put back, with a warning; anything else is left as it comes out.
        batch: given to `step`, if it is not None; halves of it are tried where that helps. Without it, they are not.

    Call it inside the contexts that the loop runs in: a fault may be in them.

    Returns:
        A `Diagnosis`: print it.

    Raises:
        TypeError: `step` cannot be called, `model` or `ema` is no module, or another argument is not what it should be.
        RuntimeError: in one of several processes of torch.distributed.
        Whatever the step raises, unless precision explains it; the state is put back first.
    """
    _check(step, model, ema, scaler, scheduler)
    subject = Subject(step, model, optimizer, scaler, scheduler, ema, batch)
    try:
        exam = Exam(subject)
        subject.most = MOST
        for rule in RULES:
            try:
                if (found := rule(exam)) is not None:
                    return found
            except Spent:
                exam.tests.append(NOT_TRIED.format(rule.__name__.replace("_", " "), subject.runs))
        return exam.found("healthy", cause="Nothing was found: every number is finite, and the step repeats."
                          + remarks(exam), proof=direction.compared(exam) + unmeasured(exam))  # fmt: skip
    finally:
        subject.restore()


def _check(step: Any, model: Any, ema: Any, scaler: Any, scheduler: Any) -> None:
    if not callable(step):
        raise TypeError(f"step must be a function that runs forward and backward, but {type(step).__name__} came; "
                        "pass the function itself, not what it returns.")  # fmt: skip
    for name, one in (("model", model), ("ema", ema)):
        if not isinstance(one, nn.Module) and not (name == "ema" and one is None):
            raise TypeError(f"{name} must be an nn.Module, but {type(one).__name__} came.")
    for name, given, verbs in (("scaler", scaler, (*SCALER, SAVED)), ("scheduler", scheduler, ("step", SAVED))):
        for each in listed(given):
            if not all(hasattr(each, verb) for verb in verbs):
                raise TypeError(f"{name} must have {', '.join(verbs)}, but {type(each).__name__} came; pass the {name} "
                                "that the step uses.")  # fmt: skip
    spread = torch.distributed.is_available() and torch.distributed.is_initialized()
    if spread and torch.distributed.get_world_size() > 1:
        raise RuntimeError(ONE_PROCESS)
