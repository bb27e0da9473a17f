"""Count the gradient values that rounding flushes to zero."""

import torch
from torch import Tensor


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
        self._nonzero = self._nonzero + torch.count_nonzero(grad)
        self._kept = self._kept + torch.count_nonzero(rounded)

    @property
    def flushed(self) -> float:
        """Share (0 to 1) of the non-zero gradient values that became zero; 0 if there was none."""
        nonzero = int(self._nonzero)
        return (nonzero - int(self._kept)) / nonzero if nonzero else 0.0
