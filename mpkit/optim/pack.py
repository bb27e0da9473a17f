"""Small parameters as one, so that a GPU starts a kernel for all of them and not one for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mpkit.optim.slot import Slot

# Values: of a parameter up to which a copy costs less than calls for it alone; of a pack, for its copies take memory.
SMALL = {"cuda": 2**16, "cpu": 2**13}
MOST = 2**20


class Pack:
    """Some slots, and `one` that stands for them: its `stored` and `extra` are copies of theirs, one after the other.

    A pack of a single slot is that slot, and copies nothing.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = slots
        self.one = slots[0]
        if len(slots) > 1:
            extras = [slot.extra for slot in slots if slot.extra is not None]
            stored = self.joined(slot.stored for slot in slots)
            self.one = Slot(slots[0].param, stored, self.joined(extras) if extras else None)

    def parts(self, flat: Tensor) -> list[Tensor]:
        """What of `flat`, shaped as `one.stored`, belongs to each slot: views in the slots' shapes."""
        if len(self.slots) == 1:
            return [flat]
        pieces = torch.split(flat, [slot.stored.numel() for slot in self.slots])
        return [piece.view(slot.stored.shape) for slot, piece in zip(self.slots, pieces, strict=True)]

    def joined(self, tensors: Iterable[Tensor]) -> Tensor:
        """One tensor a slot, as one shaped as `one.stored`."""
        tensors = list(tensors)
        return tensors[0] if len(tensors) == 1 else torch.cat([tensor.flatten() for tensor in tensors])

    def give_back(self) -> None:
        """Copy what `one` stores, and keeps besides, into the slots."""
        if len(self.slots) == 1:
            return
        torch._foreach_copy_([slot.stored for slot in self.slots], self.parts(self.one.stored))
        if self.one.extra is not None:
            extras = [slot.extra for slot in self.slots if slot.extra is not None]
            torch._foreach_copy_(extras, self.parts(self.one.extra))


def packed(slots: Sequence[Slot]) -> list[Pack]:
    """Slots as packs: small ones of the same device and dtype together, each larger one by itself."""
    together: dict[tuple[object, ...], list[list[Slot]]] = {}
    for slot in slots:
        stored = slot.stored
        plain = type(stored) is Tensor and stored.is_contiguous()  # no DTensor
        small = plain and stored.numel() <= SMALL.get(stored.device.type, 0)
        packs = together.setdefault((stored.device, stored.dtype) if small else (id(slot),), [[]])
        if sum(one.stored.numel() for one in packs[-1]) + stored.numel() > MOST and packs[-1]:
            packs.append([])
        packs[-1].append(slot)
    return [Pack(some) for packs in together.values() for some in packs]
