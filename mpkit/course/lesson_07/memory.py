"""What a training step keeps in memory, by kind: predicted from counts, and measured: what is saved, and the peak."""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, UntypedStorage
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

KINDS = ("FP32 weights", "16-bit weights", "gradients", "optimizer state", "activations")
STATES = {"SGD": 0, "SGD, momentum": 1, "Adam": 2}  # values that the optimizer keeps for each parameter


@dataclass(frozen=True)
class Way:
    """Bytes of one value of each kind."""

    full: int
    low: int
    gradients: int
    state: int
    activations: int


# "autocast": a product needs its weights again in the backward pass, so autocast's 16-bit copies stay until then.
# "FP16 + master": Micikevicius et al. 2018 (arXiv 1710.03740, section 3.1), counted as in Rajbhandari et al. 2020
# (ZeRO, arXiv 1910.02054, section 3.1): with Adam 2 + 2 + 4 + 4 + 4 = 16 bytes a parameter.
WAYS = {
    "FP32": Way(4, 0, 4, 4, 4),
    "autocast": Way(4, 2, 4, 4, 2),
    "FP16 + master": Way(4, 2, 2, 4, 2),
    "BF16 + master, FP32 gradients": Way(4, 2, 4, 4, 2),
    "all in BF16": Way(0, 2, 2, 2, 2),
}


def ledger(parameters: float, activations: float, way: str = "FP32", optimizer: str = "Adam") -> dict[str, float]:
    """Bytes by kind, for a number of parameters and a number of values that the backward pass needs.

    All that a step keeps at some time is counted, whether at the same time or not; `peak_bytes` measures what is.

    ValueError: a negative number, or an unknown way or optimizer.
    """
    if parameters < 0 or activations < 0:
        raise ValueError(f"numbers from 0 on are asked for, but {parameters} and {activations} came.")
    for name, value, known in (("way", way, WAYS), ("optimizer", optimizer, STATES)):
        if value not in known:
            raise ValueError(f"{name} {value!r} is unknown; use one of {', '.join(known)}.")
    w = WAYS[way]
    sizes = (w.full, w.low, w.gradients, w.state * STATES[optimizer])
    return dict(zip(KINDS, (*(size * parameters for size in sizes), w.activations * activations), strict=True))


def saved_bytes(forward: Callable[[], Tensor], parameters: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of `forward()`, each memory once, parameters left out.

    Under autocast the low copies of the weights are among them.
    """
    own = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes(), tensor  # held, so that no address is used twice
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(size for size, _ in kept.values())


def owned(optimizer: Optimizer) -> list[Tensor]:
    """What is there between two steps: weights, the optimizer's state, and gradients that were kept."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    return [*weights, *gradients, *(value for of in optimizer.state.values() for value in of.values())]


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all memory that is made inside and not yet given back."""

    def __init__(self, already: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: dict[int, int] = {}
        self.peak: int = 0
        for tensor in already:
            self.count(tensor.untyped_storage())

    def count(self, storage: UntypedStorage) -> None:
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.peak = max(self.peak, sum(self.sizes.values()))
            weakref.finalize(storage, self.sizes.pop, storage._cdata)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it, and count what came out."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.count(leaf.untyped_storage())
        return out


def peak_bytes(step: Callable[[], object], kept: Iterable[Tensor]) -> int:
    """The most bytes that are alive at once during `step()`: `kept`, which is there before, and what is made in it.

    What an operation needs inside of itself does not count, nor does memory that torch has set aside.
    """
    live = _Live(kept)
    with live:
        step()
    return live.peak
