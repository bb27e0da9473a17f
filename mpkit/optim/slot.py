"""One parameter of a `WeightKeeper`: where it is stored, what is kept besides; and the count of lost updates."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mpkit.formats import FloatFormat
from mpkit.trees import is_distributed, map_tensors


@dataclass
class UpdateCount:
    """How many single weights an optimizer meant to change, and how many of those kept their stored value."""

    moved: Tensor  # 0-dim int64
    lost: Tensor  # 0-dim int64

    @property
    def lost_share(self) -> float:
        """Lost updates as a share of all that were not zero; 0.0 before the first step. Waits for the device."""
        return int(self.lost) / max(int(self.moved), 1)


@dataclass
class Slot:
    """One parameter: its own memory, which holds the stored weight, and what is kept besides.

    While the parameter is lent, its data is an FP32 copy, and `grad` is the gradient of its own.
    """

    param: Tensor
    stored: Tensor
    extra: Tensor | None = None
    grad: Tensor | None = None

    def show(self, data: Tensor, grad: Tensor | None) -> None:
        """Let the parameter have this data and this gradient, which may be of another dtype than before."""
        self.param.grad = None
        self.param.data = data
        self.param.grad = grad


def shape_of(tensor: Tensor | None) -> torch.Size | None:
    """The shape, or None for no tensor."""
    return None if tensor is None else tensor.shape


def widened(value: Any) -> Any:
    """16-bit state in FP32, in lists too; anything else as it is."""
    return map_tensors(lambda x: x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, value)


def require_dtypes(groups: list[dict[str, Any]], fmt: FloatFormat) -> None:
    """Raise a TypeError, before anything has changed, unless every parameter is float32 or of the format's dtype.

    A DTensor is refused: what is set as its data does not reach its own part, so that no FP32 weight can be lent.
    """
    for param in (p[1] if isinstance(p, tuple) else p for group in groups for p in group["params"]):
        if is_distributed(param):
            raise TypeError(
                f"a parameter of shape {tuple(param.shape)} is a DTensor, and plain tensors are asked for; with FSDP2 "
                f"keep float32 parameters, let fully_shard(…, mp_policy=MixedPrecisionPolicy(param_dtype={fmt.dtype})) "
                "make the 16-bit copies, and use the optimizer without a wrapper."
            )
        if param.dtype not in (torch.float32, fmt.dtype):
            raise TypeError(
                f"a parameter of shape {tuple(param.shape)} is {param.dtype}, but the weights are to live in {fmt}; "
                f"use float32 parameters (model.float()) or {fmt.dtype or 'another format'}."
            )
