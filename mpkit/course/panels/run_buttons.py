"""Start, Pause, Stop and a progress bar: the row of buttons of every panel that trains."""

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from mpkit.course.panels.runner import Runner

IDLE = "nothing is training now"


class RaceButtons:
    """`row` is the widget. `follow` sets what can be pressed; `count_to` moves the bar."""

    def __init__(
        self, start: Callable[[Any], None], pause: Callable[[Any], None], stop: Callable[[Any], None],
        name: str = "Start",
    ) -> None:  # fmt: skip
        narrow = widgets.Layout(width="92px")
        self.start = widgets.Button(description=name, button_style="primary", layout=widgets.Layout(width="112px"))
        self.pause = widgets.Button(description="Pause", disabled=True, tooltip=IDLE, layout=narrow)
        self.stop = widgets.Button(description="Stop", disabled=True, tooltip=IDLE, layout=narrow)
        self.progress = widgets.IntProgress(0, 0, 1, layout=widgets.Layout(width="280px"))
        self.count = widgets.Label("")
        self.row = widgets.HBox([self.start, self.pause, self.stop, self.progress, self.count])
        self.start.on_click(start)
        self.pause.on_click(pause)
        self.stop.on_click(stop)

    def follow(self, runner: Runner) -> None:
        """Offer what the runner can do now."""
        self.pause.disabled = self.stop.disabled = not runner.active
        self.start.button_style = "" if runner.active else "primary"  # the next thing to press is another one
        self.pause.tooltip = self.stop.tooltip = None if runner.active else IDLE
        self.pause.description = "Resume" if runner.state == "paused" else "Pause"

    def get_ready(self) -> None:
        """Say that the button was heard, before there is a step to count."""
        self.progress.value, self.count.value = 0, "getting ready …"

    def count_to(self, step: int, steps: int) -> None:
        """Show how far the race is."""
        self.progress.max, self.progress.value = steps, step
        self.count.value = f"{step} of {steps} steps"

    def clear(self) -> None:
        """No race to speak of."""
        self.progress.value, self.count.value = 0, ""
