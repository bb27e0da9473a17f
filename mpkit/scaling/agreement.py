"""Which processes agree on a skip: those of the gradients' device meshes, of a group, or none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from mpkit.scaling import misuse
from mpkit.trees import is_distributed, to_device

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Agreement:
    """What `process_group` of a `LossScaler` means; see there. TypeError: it is no such thing.

    ValueError: this process does not belong to the group.
    """

    def __init__(self, process_group: ProcessGroup | Literal["auto"] | None) -> None:
        group: Any = process_group
        if group not in ("auto", None):
            if dist.is_available() and group == dist.GroupMember.NON_GROUP_MEMBER:
                raise ValueError(misuse.NOT_IN_GROUP)
            if not dist.is_available() or not isinstance(group, dist.ProcessGroup):
                raise TypeError(misuse.NOT_A_GROUP.format(got=group))
        self._group = group

    def __deepcopy__(self, memo: dict[int, Any]) -> Agreement:
        return self  # a copy talks to the same processes

    def __reduce__(self) -> Any:
        if self._group not in ("auto", None):
            raise TypeError(misuse.GROUP_IN_PICKLE)
        return type(self), (self._group,)

    def groups(self, params: Iterable[Tensor]) -> list[ProcessGroup]:
        """The groups to reduce over, one after the other.

        "auto": those of every mesh dimension of every DTensor among `params`, with or without a gradient: all
        processes of a mesh then come to the same list. After them each process of the mesh has what any had.
        """
        if self._group != "auto":
            return [] if self._group is None else [self._group]
        meshes = dict.fromkeys(p.device_mesh for p in params if is_distributed(p))  # type: ignore[attr-defined]
        return [group for mesh in meshes for group in mesh.get_all_groups() if group.size() > 1]


def reduce(tensor: Tensor, groups: list[ProcessGroup], op: Any = None) -> None:
    """All-reduce `tensor` in place over each of the groups; `op`: MAX by default."""
    for group in groups:
        there = to_device(tensor, _device_of(group, tensor.device))
        dist.all_reduce(there, dist.ReduceOp.MAX if op is None else op, group)
        if there is not tensor:
            tensor.copy_(there)


def _device_of(group: ProcessGroup, wished: torch.device) -> torch.device:
    """Where the group exchanges numbers: NCCL cannot on a CPU, where the flag is if gradients are offloaded."""
    devices = group._device_types
    return wished if not devices or any(d.type == wished.type for d in devices) else torch.device(devices[0].type)
