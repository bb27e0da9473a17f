"""What a training step keeps in memory, by kind: predicted from counts, and the activations measured."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

KINDS = ("weights", "master copy", "gradients", "optimizer state", "activations")
STATES = {"SGD": 0, "SGD, momentum": 1, "Adam": 2}  # values that the optimizer keeps for each parameter


@dataclass(frozen=True)
class Way:
    """Bytes of one value of each kind."""

    weights: int
    master: int
    gradients: int
    state: int
    activations: int


# "FP16 + master": Micikevicius et al. 2018 (arXiv 1710.03740, section 3.1), counted as in Rajbhandari et al. 2020
# (ZeRO, arXiv 1910.02054, section 3.1): with Adam 2 + 2 + 4 + 4 + 4 = 16 bytes a parameter.
WAYS = {
    "FP32": Way(4, 0, 4, 4, 4),
    "autocast": Way(4, 0, 4, 4, 2),
    "FP16 + master": Way(2, 4, 2, 4, 2),
    "all in BF16": Way(2, 0, 2, 2, 2),
}


def ledger(parameters: float, activations: float, way: str = "FP32", optimizer: str = "Adam") -> dict[str, float]:
    """Bytes by kind, for a number of parameters and a number of values that the backward pass needs.

    ValueError: a negative number, or an unknown way or optimizer.
    """
    if parameters < 0 or activations < 0:
        raise ValueError(f"numbers from 0 on are asked for, but {parameters} and {activations} came.")
    for name, value, known in (("way", way, WAYS), ("optimizer", optimizer, STATES)):
        if value not in known:
            raise ValueError(f"{name} {value!r} is unknown; use one of {', '.join(known)}.")
    w = WAYS[way]
    sizes = (w.weights, w.master, w.gradients, w.state * STATES[optimizer])
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
