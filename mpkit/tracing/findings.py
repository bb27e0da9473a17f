"""Which of the things that a trace has found count: those that reach an output, the loss or a gradient."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from mpkit.tracing.event import TraceEvent


@dataclass(eq=False)
class Finding:
    """An event, and whether it has reached anything."""

    event: TraceEvent
    number: int
    inside: bool  # found while the model ran, so the model's output says whether it matters
    counts: bool = False

    @property
    def predicted(self) -> bool:
        """Nothing is Inf or NaN yet: only a format that was asked for would make it so."""
        return not self.event.inf_count and not self.event.nan_count


Causes = frozenset[Finding]  # what a bad tensor descends from
NOTHING: Causes = frozenset()


class Findings:
    """All findings of one use of a trace. `first` stays when the last `keep` of them have pushed it out."""

    def __init__(self, keep: int) -> None:
        self._found = 0
        self._first: Finding | None = None
        self._causes: deque[Finding] = deque(maxlen=keep)
        self._others: deque[Finding] = deque(maxlen=keep)
        self._open: list[Finding] = []  # their pass has not come to the end that shows whether they reach anything

    def add(self, event: TraceEvent, inside: bool, decided: bool) -> Finding:
        """A new finding, which does not count before it is seen to reach something."""
        finding = Finding(event, self._found, inside)
        self._found += 1
        (self._others if decided else self._open).append(finding)
        return finding

    def reach(self, causes: Iterable[Finding]) -> None:
        """These have reached something that matters."""
        for finding in sorted(causes, key=lambda f: f.number):
            if not finding.counts:
                finding.counts = True
                if finding in self._others:
                    self._others.remove(finding)
                self._causes.append(finding)
                if self._first is None or finding.number < self._first.number:
                    self._first = finding

    def close(self, inside_only: bool) -> None:
        """The end of a pass: what has reached nothing so far is harmless, unless it does so later."""
        closed = [f for f in self._open if f.inside or not inside_only]
        self._open = [f for f in self._open if inside_only and not f.inside]
        self._others.extend(f for f in closed if not f.counts)

    @property
    def undecided(self) -> bool:
        """True while the end of a pass may still decide about a finding."""
        return bool(self._open)

    @property
    def first(self) -> TraceEvent | None:
        """The earliest that counts or may still count."""
        found = [f for f in (self._first, *self._open) if f is not None]
        return min(found, key=lambda f: f.number).event if found else None

    @property
    def events(self) -> list[TraceEvent]:
        """All that count or may still count, in the order in which they were found."""
        found = {*self._causes, *self._open}
        return [f.event for f in sorted(found, key=lambda f: f.number)][-(self._causes.maxlen or 0) :]

    @property
    def harmless(self) -> list[TraceEvent]:
        """All that reached nothing."""
        return [f.event for f in self._others]
