"""An eps that is 0 in the dtype of what it is added to: seen, and replaced by one that the format holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mpkit.diagnosis.wide import LOW

ADDS = frozenset("add add_ clamp_min clamp_min_ _foreach_add _foreach_add_".split())
TRIED = ("1e-5", "1e-3")  # the slope of rsqrt overflows in FP16 below 6e-4


def lost_eps(x: Any, other: Any) -> float | None:
    """The number that would be added to `x`, if it is small and 0 in the dtype of `x`; None: it is not."""
    first = x[0] if isinstance(x, list | tuple) and x else x
    scalar = other.item() if isinstance(other, Tensor) and not other.dim() and other.device.type == "cpu" else other
    if not (isinstance(scalar, float) and 0 < scalar < 1e-3 and isinstance(first, Tensor) and first.dtype in LOW):
        return None
    return None if torch.tensor(scalar, dtype=first.dtype) else scalar


class HeldEps(TorchDispatchMode):
    """While it is active, `eps` is added in the place of each that would be 0."""

    def __init__(self, eps: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._eps = eps

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ADDS and len(args) > 1 and lost_eps(*args[:2]) is not None:
            held = torch.full_like(args[1], self._eps) if isinstance(args[1], Tensor) else self._eps
            args = (args[0], held, *args[2:])
        return func(*args, **(kwargs or {}))
