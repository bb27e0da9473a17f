"""What a run trains on: mini-batches that depend on the step's number alone."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor


class StepData(Protocol):
    """What `fit` trains on: the batch of a step depends on the step's number alone, so a run can be resumed exactly."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one step, counted from 0."""


@dataclass(frozen=True)
class Batches:
    """Shuffled mini-batches of (inputs, targets), reshuffled every epoch; an incomplete last batch is left out.

    Args:
        inputs: float32, (samples, …).
        targets: (samples, …).
        batch_size: samples a step.
        seed: of the shuffling; epoch e uses the permutation drawn with seed + e.

    Raises:
        ValueError: batch_size is not between 1 and the number of samples, or the lengths differ.
    """

    inputs: Tensor
    targets: Tensor
    batch_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"{len(self.inputs)} inputs came with {len(self.targets)} targets; give one target each.")
        if not 1 <= self.batch_size <= len(self.inputs):
            raise ValueError(
                f"batch_size={self.batch_size} with {len(self.inputs)} samples; use a number between 1 and that."
            )

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs (batch_size, …) and targets of one step, counted from 0."""
        per_epoch = len(self.inputs) // self.batch_size
        epoch, index = divmod(step, per_epoch)
        order = _order(len(self.inputs), self.seed + epoch, self.inputs.device)
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.inputs[chosen], self.targets[chosen]


@lru_cache(maxsize=4)  # to draw and move it for every batch would take longer than a small model's step on a GPU
def _order(samples: int, seed: int, device: torch.device) -> Tensor:
    """A permutation, drawn on the CPU: the same on every device."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(seed)).to(device)
