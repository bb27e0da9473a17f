"""The queue of what a trace has looked at: numbers stay on their device until many of them are read together."""

from functools import cache

import torch

from mpkit.formats import FloatFormat
from mpkit.tracing.findings import Findings
from mpkit.tracing.glance import glance, magnitudes, reads_at_once
from mpkit.tracing.judges import Judges
from mpkit.tracing.look import Look

# On a GPU every read waits for all that was started before it, so looks are collected and read together: until there
# are this many, or until the results that they hold on to take this share of the device's memory.
PATIENCE = 256
HELD_SHARE = 1 / 32


class Ledger:
    """Takes looks in the order of the program and has them judged in that order."""

    def __init__(self, fmt: FloatFormat | None, keep: int) -> None:
        self.findings = Findings(keep)
        self._judges = Judges(fmt, self.findings)
        self._pending: list[Look] = []
        self._held = 0

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
        look.after = glance(look.outputs)
        self._pending.append(look)
        if at_once:
            return self.settle()
        look.detach()
        self._held += sum(t.nbytes for t in look.outputs)
        if len(self._pending) >= PATIENCE or (held and self._held > _held_limit(held[0].device)):
            self.settle()
        return None

    def settle(self) -> None:
        """Judge what is pending and let go of its tensors."""
        looks, self._pending, self._held = self._pending, [], 0
        if not looks:
            return
        with torch._C.DisableTorchFunction():
            amaxes = iter(magnitudes([numbers for look in looks for numbers in look.after]))
            for look in looks:
                self._judges.judge(look, [next(amaxes) for _ in look.after])


@cache
def _held_limit(device: torch.device) -> float:
    total = getattr(torch.get_device_module(device), "get_device_properties", None)
    return HELD_SHARE * float(total(device).total_memory) if total else 2.0**28
