"""Count the gradient values that rounding flushes to zero."""

import torch
from torch import Tensor

from mpkit.trees import bare


class Meter:
    """Counts the gradient values that rounding turns into zero. Nothing is read from the device until you look."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again from zero."""
        self._nonzero: Tensor | int = 0
        self._kept: Tensor | int = 0

    def see(self, grad: Tensor, rounded: Tensor) -> None:
        """Count one gradient tensor before and after rounding."""
        self._nonzero = self._nonzero + torch.count_nonzero(bare(grad))
        self._kept = self._kept + torch.count_nonzero(bare(rounded))

    def counts(self, device: torch.device | str = "cpu") -> Tensor:
        """Non-zero values seen, and how many of them were kept: (2,) int64 on `device`."""
        return torch.stack([torch.as_tensor(n, dtype=torch.int64, device=device) for n in (self._nonzero, self._kept)])

    @property
    def flushed(self) -> float:
        """Share (0 to 1) of the non-zero gradient values that became zero; 0 if there was none."""
        return flushed_share(int(self._nonzero), int(self._kept))


def flushed_share(nonzero: float, kept: float) -> float:
    """Share (0 to 1) of `nonzero` values that were not kept; 0 if there was none."""
    return (nonzero - kept) / nonzero if nonzero else 0.0
