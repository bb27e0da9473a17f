"""The sweep of lesson 05: one rule's first scale and growth interval, all pairs of them, on recorded gradients."""

from __future__ import annotations

from functools import cache
from typing import Any

import ipywidgets as widgets

from mpkit.course.lesson_05.rule_choice import TRACES, trace_of
from mpkit.course.lesson_05.rule_race import sweep
from mpkit.course.lesson_05.settings_sweep_picture import Laps, SweepFigure, does_well, finding
from mpkit.course.panels.panel import Panel, Picture, guarded
from mpkit.course.panels.setting import offered

INITS = tuple(2.0**k for k in range(0, 41, 8))
INTERVALS = (10, 50, 200, 1000, 2000)
BACKOFFS = (0.25, 0.5, 0.75, 0.9)
GROWTHS = (1.5, 2.0, 4.0, 16.0)


class SettingsSweepPanel(Panel):
    """DynamicScale with thirty pairs of settings; `trace`, `backoff` and `growth` can be read and set.

    `laps` holds the thirty races by (init_scale, growth_interval).

    Raises:
        ValueError: a trace, a backoff or a growth factor that the panel does not offer.
    """

    def __init__(self) -> None:
        wide = {"description_width": "96px"}
        self.trace_choice = widgets.ToggleButtons(
            options=list(TRACES), value="classifier", description="recorded",
            style={**wide, "button_width": "128px"}, layout=widgets.Layout(width="100%", display="flex"),
        )  # fmt: skip
        self.backoff_slider, self.growth_slider = (
            widgets.SelectionSlider(
                options=[(f"× {value:g}", value) for value in values], value=value, description=name, style=wide,
                layout=widgets.Layout(width="330px"),
            )
            for values, value, name in ((BACKOFFS, 0.5, "at overflow"), (GROWTHS, 2.0, "growth"))
        )  # fmt: skip
        self.picture, self.words = Picture(), widgets.HTML()
        self._figure = SweepFigure(INITS, INTERVALS)
        sliders = widgets.HBox([self.backoff_slider, self.growth_slider], layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__(self.trace_choice, sliders, self.picture, self.words)
        for control in (self.trace_choice, self.backoff_slider, self.growth_slider):
            control.observe(self._redraw, names="value")
        self._redraw()

    @property
    def trace(self) -> str:
        """Name of the run whose gradients are used."""
        return str(self.trace_choice.value)

    @trace.setter
    def trace(self, value: str) -> None:
        self.trace_choice.value = offered("trace", value, tuple(TRACES))

    @property
    def backoff(self) -> float:
        """Factor at an overflow."""
        return float(self.backoff_slider.value)

    @backoff.setter
    def backoff(self, value: float) -> None:
        self.backoff_slider.value = offered("backoff", value, BACKOFFS)

    @property
    def growth(self) -> float:
        """Factor after enough clean steps."""
        return float(self.growth_slider.value)

    @growth.setter
    def growth(self, value: float) -> None:
        self.growth_slider.value = offered("growth", value, GROWTHS)

    def summary(self) -> str:
        """The picture in words: the finding, and the fewest and most steps lost."""
        lost = [lap.lost_steps for lap in self.laps.values()]
        return f"{self.trace}: {finding(self.laps)}. Steps lost: {min(lost)} to {max(lost)}."

    def png(self) -> bytes:
        """The picture shown now."""
        return bytes(self.picture.value)

    def alt(self) -> str:
        """The finding and the settings that do well."""
        well = [f"{init:g} and {interval}" for (init, interval), lap in self.laps.items() if does_well(lap)]
        return f"{self.summary()} First scale and interval of those that do well: {', '.join(well) or 'none'}."

    @guarded
    def _redraw(self, _change: Any = None) -> None:
        self.laps = _laps(TRACES[self.trace], self.backoff, self.growth)
        about = f"Gradients: {trace_of(TRACES[self.trace]).recipe}"
        self.picture.value = self._figure.show(self.laps, finding(self.laps), about).png()
        self.picture.tooltip = finding(self.laps)
        self.words.value = f'<div role="status" aria-live="polite">{self.summary()}</div>'


@cache
def _laps(name: str, backoff: float, growth: float) -> Laps:
    """Thirty races take a tenth of a second; a setting that was seen before takes none."""
    return sweep(trace_of(name), list(INITS), list(INTERVALS), backoff_factor=backoff, growth_factor=growth)
