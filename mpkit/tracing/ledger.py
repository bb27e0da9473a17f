"""The queue of what a trace has looked at: numbers stay on their device until many of them are read together."""

from collections.abc import Iterable
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
# An H200 reads 32 MiB in 18 us so, and in 12 us alone, but then the host is busy for 24 us (see `extremes`).
SMALL = 2**25  # bytes


class Ledger:
    """Takes looks in the order of the program and has them judged in that order."""

    def __init__(self, fmt: FloatFormat | None, keep: int) -> None:
        self.findings = Findings(keep)
        self._judges = Judges(fmt, self.findings)
        self._pending: list[Look] = []
        self._held = 0
        self._unread: list[Look] = []  # looks with small results that still have to be read,
        self._at: dict[int, list[Look]] = {}  # and looks that wait, by the memory of their results and inputs,
        self._indexed = 0  # as far as anybody asked

    def start_pass(self) -> None:
        """A new forward pass begins."""
        self.settle()
        self._judges.start_pass()

    def add(self, look: Look) -> None:
        """Judge a look: at once on the CPU, later elsewhere."""
        held = look.one()
        at_once = not self._pending if held is None else reads_at_once(held.device)
        self._pending.append(look)
        if at_once:
            look.after = glance(look.outputs)
            return self.settle()
        look.detach()
        look.after = [[] for _ in look.outputs]
        sizes = [t.nbytes for t in look.outputs]
        self._held += sum(sizes)
        if max(sizes, default=0) >= SMALL:
            _read([one for one in _waiting([look]) if one[0].nbytes >= SMALL])
        self._unread.append(look)
        if len(self._pending) >= PATIENCE or (held is not None and self._held > _held_limit(held.device)):
            self.settle()
        return None

    def changes(self, tensors: Iterable[Tensor]) -> None:
        """These are about to change: read what waits of the results and inputs in their memory."""
        if not self._pending:
            return
        for look in self._pending[self._indexed :]:
            unread = [tensor for tensor, _ in _waiting([look])]
            for place in set(map(memory, [*unread, *look.inputs])):
                self._at.setdefault(place, []).append(look)
        self._indexed = len(self._pending)
        for place in set(map(memory, tensors)):
            looks = self._at.pop(place, [])
            _read([(t, numbers) for t, numbers in _waiting(looks) if memory(t) == place])
            for look in looks:
                look.keep(place)

    def read(self) -> None:
        """Read the small results that wait."""
        looks, self._unread = self._unread, []
        if looks:
            with aside():
                _read(_waiting(looks))

    def settle(self) -> None:
        """Judge what is pending and let go of its tensors."""
        self.read()
        looks, self._pending, self._held, self._at, self._indexed = self._pending, [], 0, {}, 0
        if not looks:
            return
        with aside():
            amaxes = magnitudes([numbers for look in looks for numbers in look.after])
            if self._judges.nothing_to_say(amaxes):
                return
            following = iter(amaxes)
            for look in looks:
                self._judges.judge(look, [next(following) for _ in look.after])


def _waiting(looks: list[Look]) -> list[tuple[Tensor, list[Tensor]]]:
    """Results that nobody has read, and where their numbers go."""
    return [(t, numbers) for look in looks for t, numbers in zip(look.outputs, look.after, strict=True) if not numbers]


def _read(waiting: list[tuple[Tensor, list[Tensor]]]) -> None:
    for (_, numbers), seen in zip(waiting, glance([t for t, _ in waiting]), strict=True):
        numbers += seen


@cache
def _held_limit(device: torch.device) -> float:
    total = getattr(torch.get_device_module(device), "get_device_properties", None)
    return HELD_SHARE * float(total(device).total_memory) if total else 2.0**28
