"""What to say where a scaler refuses what the loop asks of it."""

from __future__ import annotations

import re

import torch

from mpkit.diagnosis.diagnosis import Diagnosis
from mpkit.diagnosis.exam import Exam
from mpkit.diagnosis.words import called

# What `torch.amp.GradScaler` and `LossScaler` say in each case.
UNSCALED = re.compile(r"_scale is None|before any scale\(\)")
HALVES = re.compile(r"unscale FP16 gradients|is float16\. Keep the weights")
UNJUDGED = re.compile(r"prior to update|nothing to judge")
STEPPED = re.compile(r"^step\(\) (has already been called|was called twice)")
TWICE = re.compile(r"unscale_\(\)|already been called")


def refused(exam: Exam) -> Diagnosis | None:
    """An error of the scaler, and the call or the dtype that is at the bottom of it."""
    said = str(exam.base.error)
    if HALVES.search(said):
        return _halves(exam)
    script = exam.base.seen.script
    if UNSCALED.search(said) and "scale" not in script:
        found = ("scaler.scale (missing)", "Scale the loss, and call backward on that.\nscaler.scale(loss).backward()")
    elif UNJUDGED.search(said) and "step" not in script:
        found = ("scaler.step (missing)", "Step through the scaler.\nscaler.step(optimizer); scaler.update()")
    elif STEPPED.search(said):
        found = ("scaler.step (twice without scaler.update)", "Update once, behind the last scaler.step.\n"
                 "scaler.step(optimizer); scaler.update()")  # fmt: skip
    elif TWICE.search(said):
        found = ("unscale_", "Unscale once an iteration, before clipping.\nscaler.unscale_(optimizer)")
    else:
        return None
    where, cure = found
    return exam.found("order", where, f"The scaler refuses: {said}", f"The calls were {called(script)}.", cure)


def _halves(exam: Exam) -> Diagnosis:
    """Weights in FP16, whose gradients a scaler does not divide."""
    held = {name: p for p, name in exam.subject.names.items() if p.requires_grad}
    halves = [name for name, p in held.items() if p.dtype == torch.float16]
    return exam.found(
        "refused", f"parameter {halves[0]}" if halves else "scaler",
        f"The scaler refuses gradients in FP16, and {len(halves):,} of {len(held):,} parameters are in FP16: what a "
        "step adds to such a weight is often below half of its spacing.",
        f"With weights in FP32 {'the scaler takes them' if exam.fp32.error is None else 'it raises as well'}.",
        "Keep weights in FP32; autocast casts them for each operation.\n"
        "model.float(); with torch.autocast(device, torch.float16): loss = ...",
    )  # fmt: skip
