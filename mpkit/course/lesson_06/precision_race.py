"""The live race of lesson 06: several precisions train side by side while the learner watches."""

from __future__ import annotations

import time
from typing import Any

import ipywidgets as widgets

from mpkit.course.lesson_06.live_race import COMPETITORS, REFERENCE, TASKS, LiveRace
from mpkit.course.lesson_06.precision_race_picture import RaceFigure, description
from mpkit.course.lesson_06.precision_race_words import headline, line
from mpkit.course.panels import runner as background
from mpkit.course.panels.panel import BadInput, Panel, Picture, guarded
from mpkit.course.panels.run_buttons import RaceButtons
from mpkit.course.panels.runner import Runner
from mpkit.course.read_number import read_number

CHOSEN = ("FP16, no scaling", "FP16, dynamic", "BF16")
BETWEEN_PICTURES = 0.4  # seconds
ENDED = "The race was stopped, because you changed the {}. Press Start for a new one."


class PrecisionRacePanel(Panel):
    """Choose a task and competitors, press Start, and watch them train; FP32 always takes part.

    `race` is the race that is shown, or None before the first. `start`, `pause`, `stop` do what the buttons do, and
    `run_to_end` trains without a front end. A new panel stops the race of an older one.

    Raises:
        ValueError: `task` or `competitors` is set to something that is not on the panel.
    """

    def __init__(self) -> None:
        background.stop(type(self).__name__)
        self.race: LiveRace | None = None
        self.runner = self._new_runner()
        self._figure, self._drawn, self._setting = RaceFigure(), 0.0, False
        self._build()
        self.picture = Picture()
        self.words = widgets.HTML(layout=widgets.Layout(min_height="28px"))
        wrap = widgets.Layout(flex_flow="row wrap")
        first = widgets.HBox([self.task_choice, self.lr_field], layout=wrap)
        second = widgets.HBox([widgets.Label("against FP32"), *self.toggles.values()], layout=wrap)
        super().__init__(first, second, self.buttons.row, self.picture, self.words)
        self._draw()

    def _build(self) -> None:
        self.task_choice = widgets.ToggleButtons(
            options=list(TASKS), description="task", tooltip="what everybody learns",
            tooltips=[task.about for task in TASKS.values()], layout=widgets.Layout(width="430px", display="flex"),
            style={"description_width": "40px", "button_width": "112px"},
        )  # fmt: skip
        self.lr_field = widgets.Text(
            "0.001", description="learning rate", tooltip="learning rate of the next race", continuous_update=False,
            style={"description_width": "90px"}, layout=widgets.Layout(width="190px"),
        )  # fmt: skip
        self.toggles = {
            name: widgets.ToggleButton(
                name in CHOSEN, description=name, tooltip=f"{name} takes part", layout=widgets.Layout(width="auto")
            )
            for name in COMPETITORS
            if name != REFERENCE
        }
        self.buttons = RaceButtons(self.start, self.pause, self.stop)
        self.task_choice.observe(self._task_changed, names="value")
        self.lr_field.observe(self._lr_changed, names="value")
        for toggle in self.toggles.values():
            toggle.observe(self._competitors_changed, names="value")

    @property
    def task(self) -> str:
        """Name of the task of the next race: one of `mpkit.course.lesson_06.live_race.TASKS`."""
        return str(self.task_choice.value)

    @task.setter
    def task(self, name: str) -> None:
        if name not in TASKS:
            raise ValueError(f"task={name!r} is not on this panel; use one of {', '.join(TASKS)}.")
        self.task_choice.value = name

    @property
    def competitors(self) -> list[str]:
        """Who takes part in the next race, FP32 left out."""
        return [name for name, toggle in self.toggles.items() if toggle.value]

    @competitors.setter
    def competitors(self, names: list[str]) -> None:
        if unknown := [name for name in names if name not in self.toggles]:
            raise ValueError(f"{unknown[0]!r} is not on this panel; use some of {' | '.join(self.toggles)}.")
        for name, toggle in self.toggles.items():
            toggle.value = name in names

    @guarded
    def start(self, _button: Any = None) -> None:
        """Begin a race with the settings that are shown; where no event loop runs, run it to its end."""
        self._prepare(None)
        if not self.runner.start():
            self.runner.run_to_end()
        self._changed()

    @guarded
    def pause(self, _button: Any = None) -> None:
        """Pause the race, or go on with it."""
        (self.runner.resume if self.runner.state == "paused" else self.runner.pause)()

    @guarded
    def stop(self, _button: Any = None) -> None:
        """End the race where it is."""
        self.runner.stop()

    def run_to_end(self, steps: int | None = None) -> PrecisionRacePanel:
        """Run a race of `steps` (None: the task's) with the settings shown, here and now; returns the panel."""
        self._prepare(steps)
        self.runner.run_to_end()
        return self

    def summary(self) -> str:
        """Who ended level with FP32 and who is stuck; the same on every machine."""
        return line(self.race)

    def png(self) -> bytes:
        """The picture shown now."""
        return bytes(self.picture.value)

    def alt(self) -> str:
        """The finding and the table."""
        return description(self.race)

    def _prepare(self, steps: int | None) -> None:
        self.runner.stop()
        if not self.competitors:
            raise BadInput("Nobody is there to race against FP32; choose at least one competitor.")
        variants = [COMPETITORS[name] for name in (REFERENCE, *self.competitors)]
        try:
            race = LiveRace(variants, TASKS[self.task], read_number(self.lr_field.value), steps)
        except ValueError as error:
            raise BadInput(f"{error} The race has not started.") from None
        self.say("")
        self.race, self.runner, self._drawn = race, self._new_runner(), 0.0

    def _new_runner(self) -> Runner:
        return Runner(type(self).__name__, self._work, self._changed, self._failed)

    def _work(self) -> bool:
        assert self.race is not None
        return self.race.take_turn()

    @guarded
    def _changed(self) -> None:
        """After a slice, and whenever the runner's state changed: buttons at once, the picture not too often."""
        state = self.runner.state
        if state == "stopped" and self.race is not None:
            self.race.stop()
        self.buttons.follow(self.runner)
        if state != "running" or time.monotonic() - self._drawn > BETWEEN_PICTURES:
            self._draw()
            self._drawn = time.monotonic()

    @guarded
    def _failed(self, error: Exception) -> None:
        """Show what went wrong in the training, as for a button."""
        self._changed()
        raise error

    def _draw(self) -> None:
        race = self.race
        self.picture.value = self._figure.show(race).png()
        self.picture.tooltip = headline(race)
        self.words.value = f'<div role="status" aria-live="off">{line(race)}</div>'
        if race is not None:
            self.buttons.count_to(race.step, race.steps)

    def _end_because(self, what: str) -> None:
        if self.runner.active:
            self.runner.stop()
            self.say(ENDED.format(what))

    @guarded
    def _task_changed(self, _change: Any) -> None:
        self._end_because("task")
        self._setting = True
        self.lr_field.value = f"{TASKS[self.task].lr:g}"
        self._setting = False

    @guarded
    def _competitors_changed(self, _change: Any) -> None:
        self._end_because("competitors")

    @guarded
    def _lr_changed(self, _change: Any) -> None:
        if self.runner.active and not self._setting:
            self.say("This learning rate is for the next race.")
