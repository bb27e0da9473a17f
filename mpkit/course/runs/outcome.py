"""One way to train, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean, stdev

import torch

from mpkit import NoScaling, Policy, StepRecord
from mpkit.scaling import ScaleRule


@dataclass(frozen=True)
class Variant:
    """One way to train: a name for the picture, a policy, a rule for the loss scale, and who keeps the weights.

    `wrap`: makes a wrapper around the optimizer, such as `lambda opt: mpkit.optim.Kahan(opt, mpkit.BF16)`.
    """

    name: str
    policy: Policy
    rule: ScaleRule = field(default_factory=NoScaling)
    wrap: Callable[[torch.optim.Optimizer], torch.optim.Optimizer] | None = None


@dataclass
class Outcome:
    """What became of one variant. `scores` has one number a seed; it is empty until the run is over.

    `lost`: share of the weight updates that were lost, if a wrapper of `mpkit.optim` counted them; else None.
    `note`: what the picture says beside its name while it trains; "" for nothing.
    """

    variant: Variant
    records: list[StepRecord]
    scores: tuple[float, ...] = ()
    lost: float | None = None
    note: str = ""

    @property
    def label(self) -> str:
        """Its name, and the note."""
        return f"{self.variant.name}{self.note and f' ({self.note})'}"

    @property
    def skipped(self) -> int:
        """Steps that were skipped because a gradient was Inf or NaN."""
        return sum(record.skipped for record in self.records)

    @property
    def flushed(self) -> float | None:
        """Share of the non-zero gradient values that became zero: the mean over the steps in which it was measured.

        None: in no step.
        """
        measured = [record.flushed for record in self.records if record.flushed is not None]
        return fmean(measured) if measured else None

    @property
    def mean(self) -> float:
        """Mean score over the seeds."""
        return fmean(self.scores)

    @property
    def spread(self) -> float:
        """Standard deviation of the score over the seeds; 0 for a single seed."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0

    def relative_to(self, reference: Outcome) -> tuple[float, ...]:
        """How much larger each seed's score is than the same seed's in `reference`: 0.15 means 15 % larger.

        Pairing by seed removes the differences between seeds, which are often larger than the effect.
        """
        return tuple(mine / theirs - 1 for mine, theirs in zip(self.scores, reference.scores, strict=True))
