"""Real data that needs no network: the handwritten digits that come with scikit-learn."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Digits:
    """1,797 images of 8 × 8 pixels in [0, 1], flattened to 64, and their labels; a fixed split of 1,347 and 450."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def classification(self, batch_size: int = 64, seed: int = 0) -> Batches:
        """Image in, label out."""
        return Batches(self.train_images, self.train_labels, batch_size, seed)

    def reconstruction(self, batch_size: int = 256, seed: int = 0) -> Batches:
        """Image in, the same image out: what an autoencoder learns from."""
        return Batches(self.train_images, self.train_images, batch_size, seed)


def digits(device: torch.device | str = "cpu") -> Digits:
    """Load the digits (UCI "Optical Recognition of Handwritten Digits", bundled with scikit-learn).

    Raises:
        ModuleNotFoundError: scikit-learn is missing; the text says how to get it.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is not installed; run: pip install scikit-learn"
        ) from error
    bunch = load_digits()
    images = torch.tensor(bunch.data, dtype=torch.float32) / 16
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[:1347], order[1347:]
    parts = (images[train], labels[train], images[test], labels[test])
    return Digits(*(part.to(device) for part in parts))
