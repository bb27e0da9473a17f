"""The queue of what a trace has looked at: numbers stay on their device until many of them are read together."""

from functools import cache

import torch
from torch import Tensor

from mpkit.formats import FloatFormat
from mpkit.tracing.descent import memory
from mpkit.tracing.findings import Findings
from mpkit.tracing.glance import glance, magnitudes, reads_at_once
from mpkit.tracing.judges import Judges
from mpkit.tracing.look import Look
from mpkit.unwatched import aside

# On a GPU every read waits for all that was started before it, so looks are collected and read together: until there
# are this many, or until the results that they hold on to take this share of the device's memory.
PATIENCE = 256
HELD_SHARE = 1 / 32
# A kernel for each small result would take longer to start than to run, so one reads many of them, before they change.
SMALL = 2**20  # bytes


class Ledger:
    """Takes looks in the order of the program and has them judged in that order."""

    def __init__(self, fmt: FloatFormat | None, keep: int) -> None:
        self.findings = Findings(keep)
        self._judges = Judges(fmt, self.findings)
        self._pending: list[Look] = []
        self._held = 0
        self._small: list[tuple[Tensor, list[Tensor]]] = []  # results to be read, and where their numbers go;
        self._places: set[int] = set()  # the memory that they are in
        self._readers: dict[int, list[Look]] = {}  # looks that wait, by the memory of their inputs

    def start_pass(self) -> None:
        """A new forward pass begins."""
        self.settle()
        self._judges.start_pass()

    def add(self, look: Look) -> None:
        """Judge a look: at once on the CPU, later elsewhere."""
        held = look.tensors()
        at_once = reads_at_once(held[0].device) if held else not self._pending
        if at_once and not look.outputs and not self._pending and self._judges.nothing_to_follow(look):
            return None
        self._pending.append(look)
        if at_once:
            look.after = glance(look.outputs)
            return self.settle()
        look.detach()
        look.after = [[] for _ in look.outputs]
        small = [(t, numbers) for t, numbers in zip(look.outputs, look.after, strict=True) if t.nbytes < SMALL]
        large = [(t, numbers) for t, numbers in zip(look.outputs, look.after, strict=True) if t.nbytes >= SMALL]
        self._small += small
        self._places.update(memory(t) for t, _ in small)
        for tensor in look.inputs:
            self._readers.setdefault(memory(tensor), []).append(look)
        _read(large)
        self._held += sum(t.nbytes for t in look.outputs)
        if len(self._pending) >= PATIENCE or (held and self._held > _held_limit(held[0].device)):
            self.settle()
        return None

    def changes(self, tensors: list[Tensor]) -> None:
        """These are about to change: read of what waits the results if one of them is among these, and such inputs."""
        places = set(map(memory, tensors)) if self._pending else set()
        if not self._places.isdisjoint(places):
            self.read()
        for place in places:
            for look in self._readers.pop(place, ()):
                look.keep(place)

    def read(self) -> None:
        """Read the small results that wait."""
        if self._small:
            small, self._small, self._places = self._small, [], set()
            with aside():
                _read(small)

    def settle(self) -> None:
        """Judge what is pending and let go of its tensors."""
        self.read()
        looks, self._pending, self._held, self._readers = self._pending, [], 0, {}
        if not looks:
            return
        with aside():
            amaxes = iter(magnitudes([numbers for look in looks for numbers in look.after]))
            for look in looks:
                self._judges.judge(look, [next(amaxes) for _ in look.after])


def _read(waiting: list[tuple[Tensor, list[Tensor]]]) -> None:
    for (_, numbers), seen in zip(waiting, glance([t for t, _ in waiting]), strict=True):
        numbers += seen


@cache
def _held_limit(device: torch.device) -> float:
    total = getattr(torch.get_device_module(device), "get_device_properties", None)
    return HELD_SHARE * float(total(device).total_memory) if total else 2.0**28
