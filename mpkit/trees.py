"""The one walk over nested tensors: dicts, lists, tuples and named tuples, as models take and give them."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch


def map_leaves(change: Callable[[Any], Any], tree: Any) -> Any:
    """`tree` with every leaf replaced by `change(leaf)`. A leaf is all that is no dict, list or tuple.

    Containers are made anew and keep their type: a named tuple its fields, a subclass of dict all that it holds besides
    (the factory of a defaultdict, the attributes of a transformers ModelOutput). Their order stays.
    """
    if isinstance(tree, dict):
        made = {} if type(tree) is dict else copy.copy(tree)
        for key, value in tree.items():  # one by one: a ModelOutput refuses update(), and a Counter's adds
            made[key] = map_leaves(change, value)
        return made
    if isinstance(tree, list | tuple):
        build = getattr(tree, "_make", type(tree))  # named tuples take their fields one by one
        return build([map_leaves(change, value) for value in tree])
    return change(tree)


def map_tensors(change: Callable[[Tensor], Any], tree: Any) -> Any:
    """`tree` with every tensor replaced by `change(tensor)`; other leaves stay as they are."""
    return map_leaves(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, tree)


def leaves_in(tree: Any) -> Iterator[Any]:
    """Every leaf of `tree`, in order; one that is there twice comes twice."""
    if isinstance(tree, dict | list | tuple):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves_in(branch)
    else:
        yield tree


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Every tensor in `tree`, as `leaves_in` gives them."""
    return (leaf for leaf in leaves_in(tree) if isinstance(leaf, Tensor))


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """`x` on `device`, without a wait, except on a CPU: that would read it before the copy is there."""
    return x.to(device, non_blocking=device.type != "cpu")


def bare(x: Tensor) -> Tensor:
    """`x` without what torch.func's transforms wrap around a tensor while they work."""
    while _functorch.is_functorch_wrapped_tensor(x):
        x = _functorch.get_unwrapped(x)
    return x


def is_gone(x: Tensor) -> bool:
    """Was the memory of `x`, which is not empty, given back? A sharded model (FSDP) does so with gathered weights."""
    return not x.untyped_storage().nbytes()


def storage_key(x: Tensor) -> int:
    """A number that tensors share if they share memory; 0 for what has no storage of its own, as sparse tensors."""
    try:
        return int(bare(x).untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return 0


def is_distributed(x: Tensor) -> bool:
    """True for a DTensor."""
    return type(x) is not Tensor and hasattr(x, "placements")
