"""Scale by what the steps before have seen, so that a tensor is read once: Transformer Engine's delayed scaling."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class DelayedAmax:
    """The largest magnitudes of the last steps, as a frozen state: `history = history.update(amax)`.

    Micikevicius et al. 2022, arXiv 2209.05433, section 3.2; Transformer Engine's DelayedScaling keeps 1,024 steps
    and takes the largest of them.

    Args:
        length: how many steps are remembered.
        margin: `amax` is made 2^margin times larger, as room for growth.
        seen: the magnitudes so far, the latest last.

    Raises:
        ValueError: `length` below 1.
    """

    length: int = 1024
    margin: int = 0
    seen: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length={self.length} came; a history needs at least one step.")

    @property
    def amax(self) -> Tensor | None:
        """What to scale by now, on the magnitudes' device and without a wait; None before the first step.

        0 while no step has seen more: `scaled_cast` and its like then scale by the present, as they do for None.
        """
        if not self.seen:
            return None
        return torch.stack(self.seen).amax(0) * 2.0**self.margin

    def update(self, amax: Tensor) -> Self:
        """The history after a step with this largest magnitude; for Inf and NaN, of a skipped step, the one before."""
        amax = amax.detach()
        before = self.seen[-1] if self.seen else torch.zeros_like(amax)
        amax = torch.where(amax.isfinite(), amax, before)
        return replace(self, seen=(*self.seen, amax)[-self.length :])
