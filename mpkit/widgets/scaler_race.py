"""The panel of lesson 05: scaling rules raced on the gradients of a run, against the window that was right."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any

import ipywidgets as widgets

from mpkit.gradient_trace import GradientTrace, synthetic
from mpkit.plots.scaler_race import ScalerRaceFigure
from mpkit.plots.scaler_race_words import finding, row
from mpkit.plots.style import power
from mpkit.race import Lap, race
from mpkit.scaling import LogMaxScale, ScaleRule, StaticScale, preset
from mpkit.widgets.panel import BadInput, Panel, Picture, guarded

RULES: dict[str, ScaleRule] = {
    "no scaling": preset("none"),
    "static 2¹⁰": StaticScale(2.0**10),
    "torch": preset("torch"),
    "apex-amp": preset("apex-amp"),
    "deepspeed": preset("deepspeed"),
    "fairseq": preset("fairseq"),
    "megatron": preset("megatron"),
    "keras": preset("keras"),
    "LogMax": preset("openseq2seq-logmax"),
    "popart": preset("popart"),
    "article": preset("article"),
    "article, scaled norm": preset("article-scaled-norm"),
}
DEFAULT = ("torch", "megatron", "LogMax", "article")
MOST = 5
TRACES = {"made up: drifts": "synthetic", "classifier": "classifier", "autoencoder": "autoencoder",
          "bad start": "bad-start", "falling loss": "falling-loss"}  # fmt: skip
OWN = "own"
OPEN_LOOP = " The gradients come from an FP32 run that took every step: they do not react to what a rule does."
INITS = (OWN, *range(0, 41, 4))
INTERVALS = (OWN, 1, 10, 50, 100, 200, 500, 1000, 2000)
BACKOFFS = (OWN, 0.25, 0.5, 0.75, 0.9)


@cache
def _trace(name: str) -> GradientTrace:
    return synthetic() if name == "synthetic" else GradientTrace.load(name)


class ScalerRacePanel(Panel):
    """Up to five rules on one trace of gradients; the sliders replace what the libraries chose.

    `trace` (a name of TRACES), `rules` (names of RULES, one to five), `log2_init`, `interval`, `backoff` (None: each
    library's own) can be read and set; the picture follows. `laps` holds the numbers.

    Raises:
        ValueError: a name or a value that the panel does not offer.
    """

    def __init__(self, trace: str = "made up: drifts", rules: Sequence[str] = DEFAULT) -> None:
        wide = {"description_width": "96px"}
        self.trace_choice = widgets.ToggleButtons(
            options=list(TRACES), value=next(iter(TRACES)), description="gradients of",
            style={**wide, "button_width": "128px"}, layout=widgets.Layout(width="100%", display="flex"),
        )  # fmt: skip
        self.buttons = {
            name: widgets.ToggleButton(value=False, description=name, layout=widgets.Layout(width="auto"))
            for name in RULES
        }
        made = ((INITS, "initial scale", power), (INTERVALS, "grow after", lambda v: f"{v} steps"),
                (BACKOFFS, "backoff", lambda v: f"× {v}"))  # fmt: skip
        self.init_slider, self.interval_slider, self.backoff_slider = (
            widgets.SelectionSlider(
                options=[("its own", OWN), *((text(v), v) for v in values if v != OWN)], description=name,
                style=wide, layout=widgets.Layout(width="330px"),
            )
            for values, name, text in made
        )  # fmt: skip
        self.picture, self.words = Picture(), widgets.HTML()
        self._busy, self._memo = False, dict[tuple[ScaleRule, str], Lap]()
        self._figures: dict[str, ScalerRaceFigure] = {}
        wrap = widgets.Layout(flex_flow="row wrap")
        sliders = widgets.HBox([self.init_slider, self.interval_slider, self.backoff_slider], layout=wrap)
        buttons = widgets.HBox(list(self.buttons.values()), layout=wrap)
        super().__init__(self.trace_choice, buttons, sliders, self.picture, self.words)
        self.laps: dict[str, Lap] = {}
        self._busy = True
        self.trace, self.rules, self._busy = trace, tuple(rules), False
        for control in (self.trace_choice, self.init_slider, self.interval_slider, self.backoff_slider,
                        *self.buttons.values()):  # fmt: skip
            control.observe(self._redraw, names="value")
        self._redraw()

    @property
    def trace(self) -> str:
        """Name of the run whose gradients are shown."""
        return str(self.trace_choice.value)

    @trace.setter
    def trace(self, value: str) -> None:
        self.trace_choice.value = _offered("trace", value, tuple(TRACES))

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules in the race."""
        return tuple(name for name, button in self.buttons.items() if button.value)

    @rules.setter
    def rules(self, names: Sequence[str]) -> None:
        for name in names:
            _offered("rule", name, tuple(RULES))
        if not 1 <= len(set(names)) <= MOST:
            raise ValueError(f"one to {MOST} rules can be raced, but {len(set(names))} came: {', '.join(names)}.")
        was, self._busy = self._busy, True
        for name, button in self.buttons.items():
            button.value = name in names
        self._busy = was
        self._redraw()

    @property
    def log2_init(self) -> int | None:
        """Exponent of every rule's first scale, or None: each its own."""
        chosen: int | None = _own(self.init_slider.value)
        return chosen

    @log2_init.setter
    def log2_init(self, value: int | None) -> None:
        self.init_slider.value = OWN if value is None else _offered("log2_init", value, INITS)

    @property
    def interval(self) -> int | None:
        """Clean steps before growth, or None: each its own."""
        chosen: int | None = _own(self.interval_slider.value)
        return chosen

    @interval.setter
    def interval(self, value: int | None) -> None:
        self.interval_slider.value = OWN if value is None else _offered("interval", value, INTERVALS)

    @property
    def backoff(self) -> float | None:
        """Factor at an overflow, or None: each its own."""
        chosen: float | None = _own(self.backoff_slider.value)
        return chosen

    @backoff.setter
    def backoff(self, value: float | None) -> None:
        self.backoff_slider.value = OWN if value is None else _offered("backoff", value, BACKOFFS)

    def rule(self, name: str) -> ScaleRule:
        """The rule of that name as it is raced now. BadInput: it refuses what the sliders ask for."""
        rule = RULES[name]
        if isinstance(rule, LogMaxScale):  # it forgets its first scale after one step, and has nothing else to set
            return rule
        known = {field.name for field in dataclasses.fields(rule)}
        wanted = {"init_scale": None if self.log2_init is None else 2.0**self.log2_init,
                  "growth_interval": self.interval, "backoff_factor": self.backoff}  # fmt: skip
        chosen: dict[str, Any] = {key: value for key, value in wanted.items() if key in known and value is not None}
        try:
            return dataclasses.replace(rule, **chosen)
        except ValueError as error:
            raise BadInput(f"{name}: {error} The picture still shows the setting before.") from None

    def summary(self) -> str:
        """The picture in words."""
        return "\n".join(
            [f"{self._shown}: {finding(self.laps)}.", *(row(name, lap) for name, lap in self.laps.items())]
        )

    def png(self) -> bytes:
        """The picture shown now."""
        return bytes(self.picture.value)

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        rows = "; ".join(row(name, lap) for name, lap in self.laps.items())
        return f"{finding(self.laps)}. Loss scale of each rule over the training steps of {self._shown}. {rows}."

    @guarded
    def _redraw(self, change: Any = None) -> None:
        if self._busy:
            return
        if len(self.rules) > MOST:
            self._undo(change)
            raise BadInput(f"{MOST} rules are raced already. Press one of them to take it out, then choose another.")
        name = TRACES[self.trace]
        laps = {rule: self._lap(self.rule(rule), name) for rule in self.rules}
        self.laps, self._shown = laps, self.trace
        title = finding(laps)
        self.picture.value = self._figure(name).show(laps, title).png()
        self.picture.tooltip = title
        self.words.value = f'<div role="status" aria-live="polite">{title}.{OPEN_LOOP}</div>'

    def _lap(self, rule: ScaleRule, name: str) -> Lap:
        """A race that was run before is not run again: popart's takes 40 ms."""
        if (rule, name) not in self._memo:
            self._memo[rule, name] = race(rule, _trace(name))
        return self._memo[rule, name]

    def _figure(self, name: str) -> ScalerRaceFigure:
        if name not in self._figures:
            self._figures[name] = ScalerRaceFigure(_trace(name))
        return self._figures[name]

    def _undo(self, change: Any) -> None:
        if change is not None:
            self._busy = True
            change["owner"].value = change["old"]
            self._busy = False


def _own(value: Any) -> Any:
    return None if value == OWN else value


def _offered(name: str, value: Any, offered: Sequence[Any]) -> Any:
    if value not in offered or value == OWN:
        known = ", ".join(str(one) for one in offered if one != OWN)
        raise ValueError(f"{name} {value!r} is not in this panel; use one of {known}.")
    return value
