"""The panel of lesson 02: any tensor cast to any format, with each rounding and each way to overflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import ipywidgets as widgets
import torch
from torch import Tensor

from mpkit.course import markup
from mpkit.course.lesson_02.cast_effect import CastEffect, effect
from mpkit.course.lesson_02.cast_explorer_picture import CastExplorerFigure
from mpkit.course.lesson_02.cast_explorer_words import HOW, describe, headline
from mpkit.course.panels.panel import Panel, Picture, guarded
from mpkit.formats import BF16, E4M3, E5M2, FP16, TF32, FloatFormat, require_format
from mpkit.rounding import Overflow, Rounding

FORMATS = {fmt.name: fmt for fmt in (FP16, BF16, TF32, E5M2, E4M3)}
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
OVERFLOWS: dict[Overflow, str] = {"inf": "Inf", "saturate": "largest value"}
LABEL = {"description_width": "80px"}
MOST = 20_000  # values of one tensor that are used: more would only slow the picture down
SEED = 0  # of the choice


class CastExplorerPanel(Panel):
    """Choose a tensor, a format, a rounding and what overflow does; see what is lost and how wrong the rest is.

    `values`, `format`, `rounding` and `overflow` can be read and set; the picture follows. `view` holds the numbers.

    Args:
        tensors: name → tensor, shown first in the menu, such as {"my gradients": grad}. Of more than 20,000 values
            a random choice with a fixed seed is used. Some drawn distributions follow.

    Raises:
        TypeError: a value of `tensors` is no floating-point tensor.
        ValueError: a tensor has no finite value but zero; or a setting that is not in a menu.
    """

    def __init__(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        self.tensors = {name: _sample(name, x) for name, x in {**(tensors or {}), **drawn()}.items()}
        self.values_menu = widgets.Dropdown(
            options=list(self.tensors), description="values", tooltip="which values are cast", style=LABEL,
            layout=widgets.Layout(width="350px"),
        )  # fmt: skip
        self.format_menu = _buttons("format", list(FORMATS), "number format", 64)
        self.rounding_menu = _buttons("rounding", list(ROUNDINGS), "which neighbour a value goes to", 90)
        options = [(words, name) for name, words in OVERFLOWS.items()]
        self.overflow_menu = _buttons("too large →", options, "what a value beyond the largest one becomes", 116)
        self.picture = Picture()
        self.words = widgets.HTML(layout=widgets.Layout(min_height="52px"))
        self.figure = CastExplorerFigure()
        self._views: dict[tuple[str, str, str, str], CastEffect] = {}
        controls = (self.values_menu, self.format_menu, self.rounding_menu, self.overflow_menu)
        rows = [
            widgets.HBox(pair, layout=widgets.Layout(flex_flow="row wrap")) for pair in (controls[:2], controls[2:])
        ]
        super().__init__(*rows, self.picture, self.words)
        for control in controls:
            control.observe(self._redraw, names="value")
        self._redraw()

    @property
    def values(self) -> str:
        """Name of the values that are cast."""
        return str(self.values_menu.value)

    @values.setter
    def values(self, name: str) -> None:
        self.values_menu.value = _one_of("values", name, self.tensors)

    @property
    def format(self) -> FloatFormat:
        """The format that they are cast to."""
        return FORMATS[self.format_menu.value]

    @format.setter
    def format(self, value: FloatFormat) -> None:
        if FORMATS.get(require_format(value).name) != value:
            raise ValueError(f"format {value} is not in this panel's menu; use one of {', '.join(FORMATS)}.")
        self.format_menu.value = value.name

    @property
    def rounding(self) -> Rounding:
        """Which neighbour a value goes to."""
        chosen: Rounding = self.rounding_menu.value
        return chosen

    @rounding.setter
    def rounding(self, value: Rounding) -> None:
        self.rounding_menu.value = _one_of("rounding", value, ROUNDINGS)

    @property
    def overflow(self) -> Overflow:
        """What a value beyond the largest one becomes: "inf" or "saturate"."""
        chosen: Overflow = self.overflow_menu.value
        return chosen

    @overflow.setter
    def overflow(self, value: Overflow) -> None:
        self.overflow_menu.value = _one_of("overflow", value, OVERFLOWS)

    def summary(self) -> str:
        """The picture in words, in whole percents, so that it is the same on every machine."""
        return describe(self.values, self.view)

    def png(self) -> bytes:
        """The picture shown now."""
        return bytes(self.picture.value)

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        return (
            f"{headline(self.view)}. Above: histograms of the magnitudes of {self.values} before and after the cast. "
            f"Below: the relative error of each value over its magnitude. {self.summary()}"
        )

    @guarded
    def _redraw(self, _change: Any = None) -> None:
        chosen = (self.values, self.format.name, self.rounding, self.overflow)
        if chosen not in self._views:
            self._views[chosen] = effect(self.tensors[self.values], self.format, self.rounding, self.overflow)
        self.view = self._views[chosen]
        title = headline(self.view)
        self.figure.show(self.view, title, HOW[self.rounding])
        self.picture.value = self.figure.png()
        self.picture.tooltip = title
        self.words.value = f'<div role="status" aria-live="polite">{markup.escape(self.summary())}</div>'


def drawn() -> dict[str, Tensor]:
    """Distributions to compare with, 10,000 values each, the same on every machine."""
    draw = torch.Generator().manual_seed(0)
    normal, sign = torch.randn(10_000, generator=draw), torch.randn(10_000, generator=draw).sign()
    log_uniform = sign * torch.exp2(-40 + 60 * torch.rand(10_000, generator=draw))
    outliers = torch.where(torch.arange(10_000) % 100 == 0, 2.0**16 * normal, normal)
    return {
        "normal: mean 0, sd 1": normal,
        "uniform from 0 to 1": torch.rand(10_000, generator=draw),
        "one in 100 is 2¹⁶ times larger": outliers,
        "every size, 2⁻⁴⁰ to 2²⁰": log_uniform,
    }


def _buttons(name: str, options: Any, tooltip: str, width: int) -> widgets.ToggleButtons:
    """A row of buttons: JupyterLab takes the arrow keys away from a menu, but not Enter and Space from a button."""
    room = 90 + (width + 5) * len(options)
    return widgets.ToggleButtons(
        options=options, description=name, tooltip=tooltip, style={**LABEL, "button_width": f"{width}px"},
        layout=widgets.Layout(width=f"{room}px", max_width="100%", display="flex", flex_flow="row"),
    )  # fmt: skip


def _one_of(what: str, value: Any, known: Any) -> Any:
    if value not in known:
        raise ValueError(f"{what}={value!r} is not in this panel's menu; use one of {', '.join(map(repr, known))}.")
    return value


def _sample(name: str, x: Any) -> Tensor:
    """The values that are used, flat, in float64: float32 has no number for what is below 2^-149."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        came = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name!r}: a floating-point tensor is asked for, but {came} came.")
    flat = x.detach().flatten().cpu().double()
    flat = flat[flat.isfinite() & (flat != 0)]
    if len(flat) == 0:
        raise ValueError(f"{name!r} has no finite value but zero; there is nothing to cast.")
    if len(flat) <= MOST:
        return flat
    # Not every k-th value: a step that divides a layer's width would always meet the same columns.
    return flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(SEED))[:MOST]]
