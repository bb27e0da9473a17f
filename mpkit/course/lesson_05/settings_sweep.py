"""The sweep of lesson 05: one rule's first scale and growth interval, all pairs of them, on recorded gradients."""

from functools import cache, partial
from typing import Any

from mpkit.course.lesson_05.rule_choice import RUNS, history_of
from mpkit.course.lesson_05.rule_race import sweep
from mpkit.course.lesson_05.settings_sweep_picture import Laps, SweepFigure, does_well, headline
from mpkit.course.panels.controls import buttons, slider
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import Setting

INITS = tuple(2.0**k for k in range(0, 41, 8))
INTERVALS = (10, 50, 200, 1000, 2000)
BACKOFFS = (0.25, 0.5, 0.75, 0.9)
GROWTHS = (1.5, 2.0, 4.0, 16.0)


class SettingsSweepPanel(PicturePanel):
    """DynamicScale with thirty pairs of settings; `laps` holds the thirty races by (init_scale, growth_interval)."""

    gradients = Setting(
        RUNS, buttons("recorded", "100%", 96, button=128), "classifier", doc="Whose gradients are used."
    )
    backoff = Setting(BACKOFFS, slider("at overflow", 330, 96), 0.5, text="× {:g}".format, doc="Factor at an overflow.")
    growth = Setting(
        GROWTHS, slider("growth", 330, 96), 2.0, text="× {:g}".format, doc="Factor after enough clean steps."
    )
    rows, drawn_by = (("gradients",), ("backoff", "growth")), partial(SweepFigure, INITS, INTERVALS)

    def look(self) -> None:
        """Race all pairs."""
        self.laps = _laps(RUNS[self.gradients], self.backoff, self.growth)

    def draw(self) -> Any:
        """Two maps: steps lost, gradients flushed."""
        return self.figure.show(self.laps, self.headline(), f"Gradients: {history_of(RUNS[self.gradients]).recipe}")

    def headline(self) -> str:
        """How many settings do well."""
        return headline(self.laps)

    def summary(self) -> str:
        """The headline, and the fewest and most steps lost."""
        lost = [lap.lost_steps for lap in self.laps.values()]
        return f"{self.gradients}: {self.headline()}. Steps lost: {min(lost)} to {max(lost)}."

    def alt(self) -> str:
        """The summary and the settings that do well."""
        well = [f"{init:g} and {interval}" for (init, interval), lap in self.laps.items() if does_well(lap)]
        return f"{self.summary()} First scale and interval of those that do well: {', '.join(well) or 'none'}."


@cache
def _laps(name: str, backoff: float, growth: float) -> Laps:
    """Thirty races take a tenth of a second; a setting that was seen before takes none."""
    return sweep(history_of(name), list(INITS), list(INTERVALS), backoff_factor=backoff, growth_factor=growth)
