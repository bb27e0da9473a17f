"""The panel of lesson 05: scaling rules raced on the gradients of a run, or training, against the window of scales."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets

from mpkit.course.lesson_05.live_rules import STEPS, LiveScales
from mpkit.course.lesson_05.rule_choice import MOST, TRACES, RuleChoice, trace_of
from mpkit.course.lesson_05.rule_race import Lap, race
from mpkit.course.lesson_05.scaler_race_picture import ScalerRaceFigure
from mpkit.course.lesson_05.scaler_race_words import CLOSED_LOOP, OPEN_LOOP, finding, live_finding, row
from mpkit.course.panels.panel import BadInput, Panel, Picture, guarded
from mpkit.course.panels.run_buttons import RaceButtons
from mpkit.course.panels.runner import Runner
from mpkit.course.panels.setting import offered
from mpkit.scaling import ScaleRule

DEFAULT = ("torch", "megatron", "LogMax", "article")
MADE_UP = "No network made these gradients, so there is nothing to train. Choose one of the other four first."
BETWEEN_PICTURES = 0.4  # seconds


class ScalerRacePanel(Panel):
    """Up to five rules on one trace of gradients; the sliders replace what the libraries chose; the button trains.

    `trace` (a name of TRACES), `rules` (names of RULES, one to five), `log2_init`, `interval`, `backoff` (None: each
    library's own) can be read and set; the picture follows. `laps` holds the numbers. `start`, `pause`, `stop` do what
    the buttons do, `train_to_end` trains without a front end; `live` is that race, None while a recording is shown.

    Raises:
        ValueError: a name or a value that the panel does not offer.
    """

    def __init__(self, trace: str = "made up: drifts", rules: Sequence[str] = DEFAULT) -> None:
        self.trace_choice = widgets.ToggleButtons(
            options=list(TRACES), value=next(iter(TRACES)), description="gradients of",
            style={"description_width": "96px", "button_width": "128px"},
            layout=widgets.Layout(width="100%", display="flex"),
        )  # fmt: skip
        self.choice = RuleChoice(self._redraw)
        self.buttons = RaceButtons(self.start, self.pause, self.stop, "Train live")
        self.picture, self.words = Picture(), widgets.HTML()
        self.laps: dict[str, Lap] = {}
        self.live: LiveScales | None = None
        self.runner = self._new_runner()
        self._drawn, self._memo = 0.0, dict[tuple[ScaleRule, str], Lap]()
        self._figures: dict[str, ScalerRaceFigure] = {}
        super().__init__(self.trace_choice, *self.choice.children, self.buttons.row, self.picture, self.words)
        self.trace_choice.value = offered("trace", trace, tuple(TRACES))
        self.choice.names = tuple(rules)
        self.trace_choice.observe(self._redraw, names="value")

    @property
    def trace(self) -> str:
        """Name of the run whose gradients are shown."""
        return str(self.trace_choice.value)

    @trace.setter
    def trace(self, value: str) -> None:
        self.trace_choice.value = offered("trace", value, tuple(TRACES))

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules in the race."""
        return self.choice.names

    @rules.setter
    def rules(self, names: Sequence[str]) -> None:
        self.choice.names = tuple(names)

    @property
    def log2_init(self) -> int | None:
        """Exponent of every rule's first scale, or None: each its own."""
        chosen: int | None = self.choice.get("init_scale")
        return chosen

    @log2_init.setter
    def log2_init(self, value: int | None) -> None:
        self.choice.set("init_scale", "log2_init", value)

    @property
    def interval(self) -> int | None:
        """Clean steps before growth, or None: each its own."""
        chosen: int | None = self.choice.get("growth_interval")
        return chosen

    @interval.setter
    def interval(self, value: int | None) -> None:
        self.choice.set("growth_interval", "interval", value)

    @property
    def backoff(self) -> float | None:
        """Factor at an overflow, or None: each its own."""
        chosen: float | None = self.choice.get("backoff_factor")
        return chosen

    @backoff.setter
    def backoff(self, value: float | None) -> None:
        self.choice.set("backoff_factor", "backoff", value)

    @guarded
    def start(self, _button: Any = None) -> None:
        """Train with the settings that are shown; where no event loop runs, to the end."""
        self._prepare(STEPS)
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

    def train_to_end(self, steps: int = STEPS) -> ScalerRacePanel:
        """Train `steps` steps with the settings shown, here and now; returns the panel."""
        self._prepare(steps)
        self.runner.run_to_end()
        return self

    def summary(self) -> str:
        """The picture in words."""
        live = ", live" if self.live else ""
        return "\n".join([f"{self._shown}{live}: {self._title}.", *(row(*item) for item in self.laps.items())])

    def png(self) -> bytes:
        """The picture shown now."""
        return bytes(self.picture.value)

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        rows = "; ".join(row(name, lap) for name, lap in self.laps.items())
        return f"{self._title}. Loss scale of each rule over the training steps of {self._shown}. {rows}."

    @guarded
    def _redraw(self, change: Any = None) -> None:
        """Show the recorded race of these settings; a race that trains ends."""
        if len(self.rules) > MOST:
            self.choice.undo(change)
            raise BadInput(f"{MOST} rules are raced already. Press one of them to take it out, then choose another.")
        name = TRACES[self.trace]
        laps = {rule: self._lap(self.choice.rule(rule), name) for rule in self.rules}
        self.runner.stop()
        self.live = None
        self.buttons.clear()
        if name not in self._figures:
            self._figures[name] = ScalerRaceFigure(trace_of(name))
        self._show(self._figures[name], laps, finding(laps), OPEN_LOOP, self.trace)

    def _lap(self, rule: ScaleRule, name: str) -> Lap:
        """A race that was run before is not run again: popart's takes 40 ms."""
        if (rule, name) not in self._memo:
            self._memo[rule, name] = race(rule, trace_of(name))
        return self._memo[rule, name]

    def _show(self, figure: ScalerRaceFigure, laps: dict[str, Lap], title: str, words: str, trace: str) -> None:
        self.laps, self._shown, self._title = laps, trace, title
        self.picture.value = figure.show(laps, title).png()
        self.picture.tooltip = title
        self.words.value = f'<div role="status" aria-live="polite">{title}.{words}</div>'

    def _prepare(self, steps: int) -> None:
        name = TRACES[self.trace]
        if name == "synthetic":
            raise BadInput(MADE_UP)
        rules = {rule: self.choice.rule(rule) for rule in self.rules}
        try:
            live = LiveScales(name, rules, steps)
        except ValueError as error:
            raise BadInput(f"{error} The training has not started.") from None
        self.runner.stop()
        self.say("")
        self.live, self.runner, self._drawn, self._live_trace = live, self._new_runner(), 0.0, self.trace
        self._live_figure = ScalerRaceFigure(trace_of(name).first(steps), f"Live: {live.about}; seed 0")

    def _new_runner(self) -> Runner:
        return Runner(type(self).__name__, self._work, self._changed, self._failed)

    def _work(self) -> bool:
        assert self.live is not None
        return self.live.advance()

    @guarded
    def _changed(self) -> None:
        """After a slice, and whenever the runner's state changed: buttons at once, the picture not too often."""
        state, live = self.runner.state, self.live
        self.buttons.follow(self.runner)
        if live is None:
            return
        if state == "stopped":
            live.stop()
        if state != "running" or time.monotonic() - self._drawn > BETWEEN_PICTURES:
            self._show(self._live_figure, live.laps, live_finding(live), CLOSED_LOOP, self._live_trace)
            self.buttons.count_to(live.step, live.steps)
            self._drawn = time.monotonic()

    @guarded
    def _failed(self, error: Exception) -> None:
        """Show what went wrong in the training, as for a button."""
        self._changed()
        raise error
