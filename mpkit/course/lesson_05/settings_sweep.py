"""The sweep of lesson 05: one rule's initial scale and growth interval, all pairs of them, on recorded gradients."""

import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import ipywidgets as widgets

from mpkit.course.lesson_05.rule_choice import RUNS, history_of
from mpkit.course.lesson_05.rule_race import Lap, sweep
from mpkit.course.lesson_05.settings_sweep_picture import SweepFigure, does_well, headline
from mpkit.course.panels.controls import buttons, slider
from mpkit.course.panels.live_panel import BETWEEN_PICTURES
from mpkit.course.panels.panel import guarded
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.runner import Runner
from mpkit.course.panels.setting import Setting
from mpkit.course.pictures.style import power

INITS = tuple(2.0**k for k in range(0, 41, 8))
INTERVALS = (10, 50, 200, 1000, 2000)
BACKOFFS = (0.25, 0.5, 0.75, 0.9)
GROWTHS = (1.5, 2.0, 4.0, 16.0)
PAIRS = len(INITS) * len(INTERVALS)
AT_ONCE = 0.02  # seconds of races before the first picture: often that is all of them, and no empty grid flashes up


class Sweep:
    """The races of all pairs, one a turn.

    `laps`: those that were run, by (init_scale, growth_interval). `about`: where the gradients come from, once
    read. `own`: the factors are torch's.
    """

    def __init__(self, name: str, backoff: float, growth: float) -> None:
        self.name, self.about, self.own = name, "", (backoff, growth) == (0.5, 2.0)
        self.laps: dict[tuple[float, int], Lap] = {}
        self._races = self._run(backoff, growth)

    @property
    def over(self) -> bool:
        """Are all pairs raced?"""
        return len(self.laps) == PAIRS

    def take_turn(self) -> bool:
        """Read the gradients, at first, then run one race a call; returns whether there is more."""
        next(self._races, None)
        return not self.over

    def _run(self, backoff: float, growth: float) -> Iterator[None]:
        history = history_of(self.name)  # the made up ones take a second
        self.about = f"Gradients: {history.recipe}"
        yield
        for pair, lap in sweep(history, INITS, INTERVALS, backoff_factor=backoff, growth_factor=growth):
            self.laps[pair] = lap
            yield


class SettingsSweepPanel(PicturePanel):
    """DynamicScale with thirty pairs of settings, raced one after the other while a bar shows how far that is.

    What is asked in code (`laps`, `png`, `summary`, `alt`) is of the whole sweep: what is left of it is run first.
    """

    gradients = Setting(
        RUNS, buttons("recorded", "100%", 96, button=128), "autoencoder", doc="Whose gradients are used."
    )
    backoff = Setting(BACKOFFS, slider("at overflow", 330, 96), 0.5, text="× {:g}".format, doc="Factor at an overflow.")
    growth = Setting(
        GROWTHS, slider("growth", 330, 96), 2.0, text="× {:g}".format, doc="Factor after enough clean steps."
    )
    rows, drawn_by = (("gradients",), ("backoff", "growth")), partial(SweepFigure, INITS, INTERVALS)

    def __init__(self, **start: Any) -> None:
        self.bar = widgets.IntProgress(0, 0, PAIRS, layout=widgets.Layout(width="280px"))
        self.count = widgets.Label()
        self.below_rows = [widgets.HBox([self.bar, self.count])]
        self.runner, self._drawn = self._new_runner(), 0.0
        super().__init__(**start)

    @property
    def laps(self) -> dict[tuple[float, int], Lap]:
        """The thirty races, by (init_scale, growth_interval)."""
        self.finish()
        return self.sweep.laps

    def finish(self) -> None:
        """Race the pairs that are left."""
        if not self.sweep.over:
            self.runner.run_to_end()

    def look(self) -> None:
        """Race all pairs, here and now."""
        self._begin()
        while self.sweep.take_turn():
            pass

    @guarded
    def redraw(self) -> None:
        """Show what little time allows at once, and the rest as it comes; where no event loop runs, all."""
        known = self.sweep.name
        self._begin()
        end = time.perf_counter() + AT_ONCE
        while self.sweep.name == known and self.sweep.take_turn() and time.perf_counter() < end:
            pass
        self.show()
        if not self.sweep.over and not self.runner.start():
            self.runner.run_to_end()

    def show(self) -> None:
        """Show what is raced so far."""
        self._count()
        super().show()
        self._drawn = time.monotonic()

    def draw(self) -> Any:
        """Two maps: steps lost, gradients flushed."""
        return self.figure.show(self.sweep.laps, self.headline(), self.sweep.about, self.sweep.own)

    def headline(self) -> str:
        """How many settings do well, or how far the sweep is."""
        laps = self.sweep.laps
        return (
            headline(laps, self.sweep.own)
            if self.sweep.over
            else f"{len(laps)} of {PAIRS} settings are raced, the others follow"
        )

    def said(self) -> str:
        """The headline and, of a whole sweep, the fewest and most steps lost."""
        lost = [lap.lost_steps for lap in self.sweep.laps.values()]
        more = f" Steps lost: {min(lost)} to {max(lost)}." if self.sweep.over else ""
        return f"{self.gradients}: {self.headline()}.{more}"

    def summary(self) -> str:
        """The headline, and the fewest and most steps lost."""
        self.finish()
        return self.said()

    def alt(self) -> str:
        """The summary and the settings that do well."""
        well = [
            f"{power(round(math.log2(init)))} and {interval:,}"
            for (init, interval), lap in self.laps.items()
            if does_well(lap)
        ]
        return f"{self.summary()} Initial scale and interval of those that do well: {', '.join(well) or 'none'}."

    def png(self) -> bytes:
        """The picture of the whole sweep."""
        self.finish()
        return super().png()

    def _begin(self) -> None:
        self.runner.stop()
        self.sweep, self.runner = Sweep(RUNS[self.gradients], self.backoff, self.growth), self._new_runner()

    def _new_runner(self) -> Runner:
        return Runner(f"{type(self).__name__} {id(self)}", self._work, self._changed, self._failed)

    def _work(self) -> bool:
        with self.lock:  # a control that begins another sweep may be in another thread
            return self.sweep.take_turn()

    @guarded
    def _changed(self) -> None:
        """After a slice of the work: the bar at once, the picture not too often."""
        if self.runner.state == "stopped":  # by a control, whose own picture comes now
            return
        self._count()
        if self.runner.state == "done" or time.monotonic() - self._drawn > BETWEEN_PICTURES:
            self.show()

    @guarded
    def _failed(self, error: Exception) -> None:
        """Show what went wrong in a race, as for a button."""
        raise error

    def _count(self) -> None:
        done = len(self.sweep.laps)
        self.bar.value, self.count.value = done, f"{done} of {PAIRS} settings"
