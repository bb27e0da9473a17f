"""What FP16 and BF16 make of the losses of a trained classifier, with the kernel that a CPU has."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LostLosses:
    """Of each seed, (seeds,): `zero`, the share of samples whose loss is exactly 0, and the `mean` loss in nats."""

    zero: Tensor
    mean: Tensor


@torch.no_grad()
def lost_losses(logits: Tensor, labels: Tensor, dtype: torch.dtype) -> LostLosses:
    """Round logits (seeds, samples, classes) to `dtype` and take the cross-entropy with labels (samples,) in it.

    It runs on the CPU wherever the logits are: the kernel there is what is asked about.
    """
    low, right = logits.cpu().to(dtype), labels.cpu()
    losses = torch.stack([F.cross_entropy(each, right, reduction="none").double() for each in low])
    return LostLosses((losses == 0).double().mean(1), losses.mean(1))
