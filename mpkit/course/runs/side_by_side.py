"""Several runs, one step each in turn, so that they can be watched and stopped anywhere."""

from collections.abc import Mapping

from mpkit import StepRecord
from mpkit.training import Run


class SideBySide:
    """`records` holds what every run has done so far, by name. All have the same number of steps."""

    def __init__(self, runs: Mapping[str, Run]) -> None:
        self.runs = dict(runs)
        self.records: dict[str, list[StepRecord]] = {name: [] for name in runs}
        self.steps = min(run.steps for run in runs.values())
        self.stopped = False
        self._order = list(runs)
        self._turn = 0

    @property
    def step(self) -> int:
        """Steps that every run has taken."""
        return self._turn // len(self._order)

    @property
    def over(self) -> bool:
        """Have all taken all their steps?"""
        return self.step == self.steps

    def take_turn(self) -> bool:
        """One step of the next run; returns whether there is another turn to take."""
        if self.over or self.stopped:
            return False
        self._train(self._order[self._turn % len(self._order)])
        self._turn += 1
        return not self.over

    def advance(self) -> bool:
        """One step of every run (the rest of a round that was begun); returns whether there is more to do."""
        more = self.take_turn()
        while more and self._turn % len(self._order):
            more = self.take_turn()
        return more

    def stop(self) -> None:
        """End where they are. What was recorded stays."""
        self.stopped = True
        for run in self.runs.values():
            run.stop()

    def _train(self, name: str) -> None:
        self.records[name].append(next(self.runs[name]))
