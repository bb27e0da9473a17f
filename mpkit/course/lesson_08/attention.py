"""The attention panel of lesson 08: head size, growth, where the scores are scaled, and who computes the softmax."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from mpkit.course.lesson_08.attention_picture import AttentionFigure, Trials, count, finding
from mpkit.course.lesson_08.trial import SCALINGS, SOFTMAXES, attention_trial
from mpkit.course.panels.panel import Panel, Picture, guarded
from mpkit.course.panels.setting import offered
from mpkit.course.pictures.style import percent
from mpkit.formats import BF16, FP16

HEAD_SIZES = (16, 32, 64, 128, 256)
DEVIATIONS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 45.0, 64.0, 128.0, 256.0)
_LABEL = {"description_width": "150px"}


def _choice(label: str, options: tuple[str, ...], value: str) -> widgets.ToggleButtons:
    return widgets.ToggleButtons(
        options=options, value=value, description=label, style={"description_width": "90px", "button_width": "auto"}
    )


def _setting(group: str, name: str, options: tuple[Any, ...]) -> property:
    """A control's value as an attribute of the panel."""

    def read(self: Any) -> Any:
        return getattr(self, group)[name].value

    def write(self: Any, value: Any) -> None:
        getattr(self, group)[name].value = offered(name, value, options)

    return property(read, write)


class AttentionPanel(Panel):
    """`head_size`, `deviation`, `scaling` and `softmax` can be read and set; see `attention_trial`."""

    head_size = _setting("sliders", "head_size", HEAD_SIZES)
    deviation = _setting("sliders", "deviation", DEVIATIONS)
    scaling = _setting("buttons", "scaling", SCALINGS)
    softmax = _setting("buttons", "softmax", SOFTMAXES)

    def __init__(
        self, head_size: int = 64, deviation: float = 45.0, scaling: str = "after", softmax: str = "in FP32"
    ) -> None:
        wide = widgets.Layout(width="430px")
        self.sliders = {
            "head_size": widgets.SelectionSlider(
                options=HEAD_SIZES, value=offered("head_size", head_size, HEAD_SIZES), description="head size d",
                style=_LABEL, layout=wide,
            ),
            "deviation": widgets.SelectionSlider(
                options=[(f"{d:g}", d) for d in DEVIATIONS], value=offered("deviation", deviation, DEVIATIONS),
                description="spread of q and k", style=_LABEL, layout=wide,
            ),
        }  # fmt: skip
        self.buttons = {
            "scaling": _choice("divide by √d", SCALINGS, offered("scaling", scaling, SCALINGS)),
            "softmax": _choice("softmax", SOFTMAXES, offered("softmax", softmax, SOFTMAXES)),
        }
        self.picture, self.words = Picture(), widgets.HTML()
        self._figure = AttentionFigure()
        controls = [*self.sliders.values(), *self.buttons.values()]
        row = widgets.Layout(flex_flow="row wrap")
        rows = widgets.HBox(controls[:2], layout=row), widgets.HBox(controls[2:], layout=row)
        super().__init__(*rows, self.picture, self.words)
        for control in controls:
            control.observe(self._redraw, names="value")
        self._redraw()

    def trials(self) -> Trials:
        """What FP16 and BF16 make of the attention shown."""
        chosen: dict[str, Any] = {name: c.value for name, c in (self.sliders | self.buttons).items()}
        return {fmt.name: attention_trial(**chosen, fmt=fmt) for fmt in (FP16, BF16)}

    def summary(self) -> str:
        """The picture in words."""
        trials = self.trials()
        rows = (
            f"{name}: largest score {count(t.stored.max().item())}, {percent(t.overflowed)} overflow, {t.lost} lost"
            for name, t in trials.items()
        )
        return f"{finding(trials)}. {finding(trials, 'BF16')}. {'. '.join(rows)}."

    def png(self) -> bytes:
        """The picture shown now."""
        return bytes(self.picture.value)

    @guarded
    def _redraw(self, _change: Any = None) -> None:
        trials = self.trials()
        self.picture.value = self._figure.show(trials, self.buttons["scaling"].value).png()
        self.picture.tooltip = finding(trials)
        self.words.value = f'<div role="status" aria-live="polite">{self.summary()}</div>'
