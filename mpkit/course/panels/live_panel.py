"""`LivePanel`: a panel that trains while the learner watches. Start, Pause, Stop, and a picture now and then."""

import time
from typing import Any, Generic, Protocol, Self, TypeVar

from mpkit.course.panels.panel import BadInput, guarded
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.run_buttons import RaceButtons
from mpkit.course.panels.runner import Runner

BETWEEN_PICTURES = 0.4  # seconds


class _Race(Protocol):
    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...
    def take_turn(self) -> bool: ...
    def stop(self) -> None: ...


RaceT = TypeVar("RaceT", bound=_Race)


class LivePanel(PicturePanel, Generic[RaceT]):
    """A PicturePanel with a race that trains: `race` is the one that is shown, or None.

    A race has taken `step` of `steps`; `take_turn` does the smallest unit of work, for a button
    waits that long, and returns whether there is more; `stop` ends it.
    A subclass says in `new_race` how one is made of the settings, and draws it like anything that it looked at.
    """

    start_button = "Start"
    what = "race"  # as errors call it

    def __init__(self, **start: Any) -> None:
        self.race: RaceT | None = None
        self.runner = self._new_runner()
        self.buttons = RaceButtons(self.start, self.pause, self.stop, self.start_button)
        self.below_rows = [self.buttons.row]
        super().__init__(**start)

    def new_race(self, steps: int | None) -> RaceT:
        """A race of `steps` (None: its usual length) with the settings that are shown.

        BadInput, or ValueError: it cannot be made. To the second it is added that nothing has started.
        """
        raise NotImplementedError

    def began(self) -> None:
        """Called when `race` has become a new one; nothing is drawn yet."""

    def work(self) -> bool:
        """One unit of work; returns whether there is more."""
        assert self.race is not None
        return self.race.take_turn()

    @guarded
    def start(self, _button: Any = None) -> None:
        """Train with the settings that are shown; where no event loop runs, to the end."""
        self.buttons.get_ready()  # seen at once: a first race may have to load data and half of torch
        try:
            self._prepare(None)
        except Exception:
            self._count()
            raise
        if not self.runner.start():
            self.runner.run_to_end()
        self._changed()

    @guarded
    def pause(self, _button: Any = None) -> None:
        """Pause the training, or go on with it."""
        (self.runner.resume if self.runner.state == "paused" else self.runner.pause)()

    @guarded
    def stop(self, _button: Any = None) -> None:
        """End the training where it is."""
        self.runner.stop()

    def run_to_end(self, steps: int | None = None) -> Self:
        """Train `steps` steps (None: as many as the button does) here and now; returns the panel."""
        self._prepare(steps)
        self.runner.run_to_end()
        return self

    def end_race(self) -> None:
        """Stop the race, and show none."""
        self.runner.stop()
        self.race = None
        self.buttons.clear()

    def _prepare(self, steps: int | None) -> None:
        try:
            race = self.new_race(steps)
        except BadInput:
            raise
        except ValueError as error:
            raise BadInput(f"{error} The {self.what} has not started.") from None
        self.runner.stop()
        self.say("")
        self.race, self.runner, self._drawn = race, self._new_runner(), 0.0
        self.began()

    def _new_runner(self) -> Runner:
        return Runner(type(self).__name__, self._locked_work, self._changed, self._failed)

    def _locked_work(self) -> bool:
        with self.lock:  # a control that ends the race may be in another thread: not in the middle of a step
            return self.work()

    @guarded
    def _changed(self) -> None:
        """After a slice, and whenever the runner's state changed: buttons at once, the picture not too often."""
        state = self.runner.state
        self.buttons.follow(self.runner)
        if self.race is None:
            return
        if state == "stopped":
            self.race.stop()
        if state != "running" or time.monotonic() - self._drawn > BETWEEN_PICTURES:
            self.show()
            self._count()
            self._drawn = time.monotonic()

    def _count(self) -> None:
        if self.race is None:
            self.buttons.clear()
        else:
            self.buttons.count_to(self.race.step, self.race.steps)

    @guarded
    def _failed(self, error: Exception) -> None:
        """Show what went wrong in the training, as for a button."""
        self._changed()
        raise error
