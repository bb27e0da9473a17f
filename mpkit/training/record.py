"""`StepRecord`: what happened in one training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, eq=False)
class StepRecord:
    """What happened in one training step.

    Two records are equal if everything but `seconds` is, to the bit; NaN equals NaN here.

    Attributes:
        step: counted from 0.
        loss: unscaled training loss before the update; the mean over seeds.
        losses: the same for each seed.
        scale: the loss scale that this step used.
        skipped: True if a gradient was Inf or NaN, so that the weights stayed as they were.
        flushed: share (0 to 1) of the non-zero gradient values, in the whole backward pass, that rounding turned
            into zero; 0 if the policy does not round gradients. None: it was not measured in this step.
        grad_norm: Euclidean norm of the unscaled gradient of all of the optimizer's parameters (all seeds together);
            not finite in a skipped step.
        seconds: wall-clock time of the step.
    """

    step: int
    loss: float
    losses: tuple[float, ...]
    scale: float
    skipped: bool
    flushed: float | None
    grad_norm: float
    seconds: float

    @classmethod
    def of(
        cls, step: int, numbers: Sequence[float], skips: bool, seconds: float, flushed: float | None = None
    ) -> StepRecord:
        """A record from one row of `StepTensors.numbers`; `skips`: the rule leaves a step with found_inf out."""
        *losses, scale, found_inf, norm = numbers
        loss = sum(losses) / len(losses)
        return cls(step, loss, tuple(losses), scale, skips and bool(found_inf), flushed, norm, seconds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StepRecord) and self._bits() == other._bits()

    def __hash__(self) -> int:
        return hash(self._bits())

    def _bits(self) -> str:
        return repr(replace(self, seconds=0.0))  # Python writes floats with all their digits
