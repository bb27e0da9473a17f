"""What a run trains on: mini-batches that depend on the step's number alone."""

from dataclasses import dataclass
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
        shuffle = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(len(self.inputs), generator=shuffle)
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size].to(self.inputs.device)
        return self.inputs[chosen], self.targets[chosen]
