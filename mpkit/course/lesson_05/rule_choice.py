"""What is raced: gradients by name, scaling rules, and three sliders that replace what their libraries chose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import ipywidgets as widgets

from mpkit.course.panels.panel import BadInput
from mpkit.course.panels.setting import OWN, offered
from mpkit.course.pictures.style import power
from mpkit.course.recorded.history import GradientTrace, synthetic
from mpkit.scaling import LogMaxScale, ScaleRule, StaticScale, preset

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
TRACES = {"made up: drifts": "synthetic", "classifier": "classifier", "autoencoder": "autoencoder",
          "bad start": "bad-start", "falling loss": "falling-loss"}  # fmt: skip
MOST = 5
INITS = (OWN, *range(0, 41, 4))
INTERVALS = (OWN, 1, 10, 50, 100, 200, 500, 1000, 2000)
BACKOFFS = (OWN, 0.25, 0.5, 0.75, 0.9)
_WIDE = {"description_width": "96px"}
_SLIDERS = {
    "init_scale": (INITS, "initial scale", power),
    "growth_interval": (INTERVALS, "grow after", lambda v: f"{v} steps"),
    "backoff_factor": (BACKOFFS, "backoff", lambda v: f"× {v}"),
}


class RuleChoice:
    """Widgets in `children`; `changed(change)` is called after each move of one of them.

    `names` can be read and set; `overrides` holds the sliders' values by field of the rules, without those left at the
    rules' own.
    """

    def __init__(self, changed: Callable[[Any], None]) -> None:
        self.buttons = {
            name: widgets.ToggleButton(value=False, description=name, layout=widgets.Layout(width="auto"))
            for name in RULES
        }
        self.sliders = {
            field: widgets.SelectionSlider(
                options=[("its own", OWN), *((text(v), v) for v in values if v != OWN)], description=name,
                style=_WIDE, layout=widgets.Layout(width="330px"),
            )
            for field, (values, name, text) in _SLIDERS.items()
        }  # fmt: skip
        wrap = widgets.Layout(flex_flow="row wrap")
        self.children = (
            widgets.HBox(list(self.buttons.values()), layout=wrap),
            widgets.HBox(list(self.sliders.values()), layout=wrap),
        )
        self._changed, self._quiet = changed, False
        for control in (*self.buttons.values(), *self.sliders.values()):
            control.observe(self._moved, names="value")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rules that take part."""
        return tuple(name for name, button in self.buttons.items() if button.value)

    @names.setter
    def names(self, names: Sequence[str]) -> None:
        for name in names:
            offered("rule", name, tuple(RULES))
        if not 1 <= len(set(names)) <= MOST:
            raise ValueError(f"one to {MOST} rules can be raced, but {len(set(names))} came: {', '.join(names)}.")
        self._quiet = True
        for name, button in self.buttons.items():
            button.value = name in names
        self._quiet = False
        self._changed(None)

    @property
    def overrides(self) -> dict[str, float]:
        """What the sliders ask for."""
        chosen = {field: slider.value for field, slider in self.sliders.items() if slider.value != OWN}
        if "init_scale" in chosen:
            chosen["init_scale"] = 2.0 ** chosen["init_scale"]
        return chosen

    def rule(self, name: str) -> ScaleRule:
        """The rule of that name as it is raced now. BadInput: it refuses what the sliders ask for."""
        rule = RULES[name]
        if isinstance(rule, LogMaxScale):  # it forgets its first scale after one step, and has nothing else to set
            return rule
        known = {field.name for field in dataclasses.fields(rule)}
        chosen: dict[str, Any] = {key: value for key, value in self.overrides.items() if key in known}
        try:
            return dataclasses.replace(rule, **chosen)
        except ValueError as error:
            raise BadInput(f"{name}: {error} The picture still shows the setting before.") from None

    def get(self, field: str) -> Any:
        """A slider's value, or None: each rule its own."""
        value = self.sliders[field].value
        return None if value == OWN else value

    def set(self, field: str, name: str, value: Any) -> None:
        """Move a slider; None is the rules' own. ValueError: it does not offer that; the text says `name`."""
        self.sliders[field].value = OWN if value is None else offered(name, value, _SLIDERS[field][0])

    def undo(self, change: Any) -> None:
        """Take a change back, without a call of `changed`."""
        if change is not None:
            self._quiet = True
            change["owner"].value = change["old"]
            self._quiet = False

    def _moved(self, change: Any) -> None:
        if not self._quiet:
            self._changed(change)


@cache
def trace_of(name: str) -> GradientTrace:
    """The gradients of that name (a value of TRACES), read once."""
    return synthetic() if name == "synthetic" else GradientTrace.load(name)
