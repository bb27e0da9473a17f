"""Copies of the parameters in a wider format, which an optimizer moves in their place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from mpkit.unwatched import aside


class Masters:
    """Which of the optimizers' tensors may stand for parameters: `confirmed`, after a step, says which do.

    Both before and after the step such a tensor, in the parameter's dtype, is the parameter, and the step gave it a
    gradient: one of a layer that was replaced may be equal by chance, as biases of 0 are, but gets none.

    Args:
        names: the model's parameters, and what they are called.
        held: what the optimizers hold.
    """

    def __init__(self, names: Mapping[Any, str], held: Collection[Tensor]) -> None:
        foreign = [t for t in held if t not in names and t.is_floating_point()]
        self._pairs = [(name, p, t) for p, name in names.items() if p not in held for t in foreign if _equal(p, t)]

    def confirmed(self, fed: Collection[int]) -> set[str]:
        """The names of the parameters that have a master; `fed` are the ids of the tensors that got a gradient."""
        return {name for name, p, t in self._pairs if id(t) in fed and _equal(p, t)}


def _equal(parameter: Tensor, tensor: Tensor) -> bool:
    """Is it the parameter, but for its dtype? Waits for the device, if the shapes agree."""
    if parameter.shape != tensor.shape or parameter.layout != tensor.layout:
        return False
    with aside():
        return torch.equal(tensor.detach().to(parameter), parameter.detach())
