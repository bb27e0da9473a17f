"""What happens to numbers below the level where a trace looks: in casts, also autocast's, and in small additions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mpkit.diagnosis.eps import lost_eps
from mpkit.diagnosis.path import ModulePath
from mpkit.diagnosis.wide import LOW
from mpkit.formats import BF16, E4M3, E5M2, FP16
from mpkit.tracing.gradients import in_backward

FP8 = {fmt.dtype: fmt.max for fmt in (E4M3, E5M2)}
NAMES = {fmt.dtype: fmt.name for fmt in (FP16, BF16, E4M3, E5M2)}
MEAN = 1  # torch's number for reduction="mean", the one that divides by the count of labels (ATen/core/Reduction.h)
ROUND = 1 / 32  # half of E4M3's last step below 448, relative: so much beyond the end is only rounding


@dataclass(frozen=True)
class Note:
    """One thing that was seen: a sentence with its numbers, and the module that ran."""

    text: str
    where: str


class Notes(TorchDispatchMode):
    """While it is active, every operation comes by here.

    `seen` has the first note of each sort: "eps", "integers", "saturated", "ignored". `unused` has, by the shape of an
    embedding, how many of its rows no index asked for; 0 if it was asked for several times. `low` has the dtypes of 16
    bits that something was computed in.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: dict[str, Note] = {}
        self.unused: dict[torch.Size, int] = {}
        self.low: set[torch.dtype] = set()
        self._clamped: dict[int, tuple[Tensor, float]] = {}  # by size: what was clamped to the end of an FP8 format
        self._path = ModulePath(model)

    def __enter__(self) -> Any:
        self._path.__enter__()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._path.__exit__(*error)
        self._clamped = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype in LOW:
            self.low.add(result.dtype)
        name = func.overloadpacket.__name__
        look = getattr(self, f"_look_{name}", None)
        if look is not None:
            look(result, *args, **(kwargs or {}))
        return result

    def _note(self, what: str, text: str) -> None:
        self.seen.setdefault(what, Note(text, self._path.now))

    def _look_add(self, result: Any, x: Any, other: Any = None, **_: Any) -> None:
        """An eps that is 0 in the dtype of what it is added to."""
        if (eps := lost_eps(x, other)) is not None:
            self._note("eps", f"an eps of {eps:g} is added to {_short(x.dtype)}, where it is 0")

    _look_add_ = _look_add

    def _look__foreach_add(self, result: Any, tensors: list[Tensor], other: Any = None, **_: Any) -> None:
        if isinstance(other, float) and tensors:
            self._look_add(result, tensors[0], other)

    _look__foreach_add_ = _look__foreach_add

    def _look_clamp_min(self, result: Any, x: Tensor, least: Any = None, **_: Any) -> None:
        self._look_add(result, x, least)

    def _look__to_copy(self, result: Tensor, x: Tensor, **_: Any) -> None:
        if result.dtype in FP8:  # what was clamped to its end before the cast counts as well
            source, end = self._clamped.pop(result.numel(), (x, FP8[result.dtype]))
            self._saturates(source if end == FP8[result.dtype] else x, FP8[result.dtype], _short(result.dtype))
        elif result.dtype in LOW and x.numel() > 1 and not x.requires_grad and not in_backward():
            self._integers(x, result)  # weights, activations and gradients are no integers, and each look is a wait

    def _look_arange(self, result: Tensor, *_: Any, **__: Any) -> None:
        if result.dtype in LOW and (distinct := _distinct(result)) < result.numel():
            self._note("integers", f"{result.numel():,} positions counted in {_short(result.dtype)} are {distinct:,} "
                                   "different numbers")  # fmt: skip

    def _look_clamp(self, result: Tensor, x: Tensor, low: Any = None, high: Any = None, **_: Any) -> None:
        if isinstance(high, int | float) and float(high) in FP8.values():
            self._clamped[result.numel()] = (x.detach(), float(high))

    def _look_nll_loss_forward(self, result: Any, scores: Tensor, target: Tensor, weight: Any, reduction: int,
                               ignored: int) -> None:  # fmt: skip
        if reduction == MEAN and target.numel() and bool((target == ignored).all()):
            self._note("ignored", f"all {target.numel():,} labels are {ignored}, which the loss ignores: 0 / 0")

    _look_nll_loss2d_forward = _look_nll_loss_forward

    def _look_embedding_dense_backward(self, result: Tensor, grad: Tensor, indices: Tensor, *_: Any, **__: Any) -> None:
        rows = result.shape[0] - _distinct(indices)
        self.unused[result.shape] = 0 if result.shape in self.unused else rows

    def _saturates(self, x: Tensor, end: float, fmt: str) -> None:
        wide = x.detach().float()
        beyond = int((wide.abs() > end * (1 + ROUND)).sum())
        if beyond > 0.01 * wide.numel():
            largest = float(wide.abs().nan_to_num(posinf=0).max())
            self._note("saturated", f"{beyond:,} of {wide.numel():,} values are cut on the way to {fmt}, which ends at "
                                    f"{end:g}; the largest is {largest:,.0f}")  # fmt: skip

    def _integers(self, x: Tensor, result: Tensor) -> None:
        """Integers, as such or as floats, that were different and are not any more."""
        bound = 2.0 / torch.finfo(result.dtype).eps  # from here on integers are rounded
        wide = x.detach()
        if wide.dtype in LOW or wide.is_complex():
            return
        for part in (wide.flatten()[:256], wide):  # a few values tell of nearly every tensor
            if wide.is_floating_point() and not bool((part == part.round()).all()):
                return
        if not float(wide.abs().max()) > bound:
            return
        before, after = _distinct(wide), _distinct(result.detach().float())
        if after < 0.9 * before:
            self._note("integers", f"{before:,} different integers, up to {float(wide.abs().max()):,.0f}, become "
                                   f"{after:,} in {_short(result.dtype)}")  # fmt: skip


def _distinct(tensor: Tensor) -> int:
    return int(torch.unique(tensor).numel())


def _short(dtype: torch.dtype) -> str:
    return NAMES.get(dtype, str(dtype).removeprefix("torch."))
