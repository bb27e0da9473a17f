"""Real data that needs no network: the handwritten digits that come with scikit-learn."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mpkit import Batches


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
