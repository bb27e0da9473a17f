"""Parameters that are checked together, and how one of them is named."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mpkit.trees import is_distributed

ParamGroups = list[dict[str, Any]]


@dataclass
class Bucket:
    """Some parameters of one optimizer that share a device and a dtype."""

    device: torch.device
    dtype: torch.dtype
    params: list[Tensor]
    plain: bool  # no DTensor, and so far every parameter had a dense gradient that torch's kernel takes


Gathered = list[tuple[Bucket, list[Tensor | None]]]  # the gradient of every parameter of every bucket


def local(tensor: Tensor) -> Tensor:
    """Return the memory that this rank holds: a DTensor's own part, any other tensor itself."""
    part: Tensor = tensor.to_local() if is_distributed(tensor) else tensor  # type: ignore[attr-defined]
    return part


def describe(param_groups: ParamGroups, wanted: Tensor) -> str:
    """Name a parameter: as the optimizer knows it (`named_parameters`), else by its place and shape."""
    for i, group in enumerate(param_groups):
        for j, param in enumerate(group["params"]):
            if param is wanted:
                if group.get("param_names"):
                    return str(group["param_names"][j])
                return f"param_groups[{i}]['params'][{j}], shape {tuple(param.shape)}"
    return f"a parameter of shape {tuple(wanted.shape)}"
