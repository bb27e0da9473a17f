"""What came of one run of a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mpkit.diagnosis.notes import Note
from mpkit.diagnosis.observed import Observed
from mpkit.tracing.event import TraceEvent


@dataclass
class Run:
    """What came of one run of the step.

    Attributes:
        loss: what the step returned, or what `backward` was called on, without the scale; None: neither is a number.
        grads: name → gradient as the optimizer got it, float32, divided by the scale.
        bad: what holds Inf or NaN after the run: "loss", "gradient NAME", "parameter NAME", "buffer NAME", "average
            NAME", "moment NAME.KEY"; in this order.
        seen: the calls of the loop, and their numbers.
        events, harmless: of a run that was watched. notes, unused: if asked for, those of `Notes`. moved: of a run that
            was watched, the names of the parameters that it changed, of those that the optimizers do not hold.
        outputs: if asked for, of every module that ran, in the order in which they ended: its name, the sum of what it
            returned.
        given: if asked for, what the first module that took tensors was given: the sum of each.
        state: name → tensor after the run, of what should move and is in 16 bits: parameters, averages, moments.
            Only of a run that keeps; of the others `grads` is empty, too.
        low: with the notes, the 16-bit dtypes that it computed in.
        left: of a run in FP32, the dtypes of 8 bits that the step asked torch for, and got.
        error: what the step raised, or None.
    """

    loss: float | None
    grads: dict[str, Tensor]
    bad: list[str]
    seen: Observed
    skipped: bool
    state: dict[str, Tensor]
    events: list[TraceEvent] = field(default_factory=list)
    harmless: list[TraceEvent] = field(default_factory=list)
    notes: dict[str, Note] = field(default_factory=dict)
    unused: dict[torch.Size, int] = field(default_factory=dict)
    outputs: list[tuple[str, float]] = field(default_factory=list)
    given: list[float] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)
    low: set[torch.dtype] = field(default_factory=set)
    left: set[str] = field(default_factory=set)
    error: Exception | None = None

    @property
    def fine(self) -> bool:
        """Did it raise nothing, and is everything finite?"""
        return not self.bad and self.error is None

    @property
    def first(self) -> TraceEvent | None:
        """The first cause that a watched run found."""
        return self.events[0] if self.events else None

    def has(self, what: str) -> str | None:
        """The first bad thing of this sort, such as "gradient", without that word; None: there is none."""
        return next((one.removeprefix(f"{what} ") for one in self.bad if one.split(" ")[0] == what), None)


def number(value: Any) -> float | None:
    """The loss that a step returned: a number, or in a dict or an object that has one; None: neither."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value.detach())
    if isinstance(value, dict):
        value = value.get("loss")
    value = getattr(value, "loss", value)
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value.detach())
    return float(value) if isinstance(value, int | float) else None
