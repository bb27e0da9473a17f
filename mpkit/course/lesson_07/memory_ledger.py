"""The memory ledger of lesson 07: a model's size, its activations and its optimizer, in four ways to train."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from mpkit.course.lesson_07.memory import STATES, WAYS, ledger
from mpkit.course.lesson_07.memory_ledger_picture import LedgerFigure, finding, gib
from mpkit.course.panels.panel import Panel, Picture, guarded
from mpkit.course.panels.setting import offered

SIZES = {"1 M": 1e6, "10 M": 1e7, "25.6 M, ResNet-50": 25_557_032, "110 M, BERT base": 1.1e8, "1.5 B, GPT-2": 1.5e9,
         "7 B": 7e9, "70 B": 7e10, "175 B, GPT-3": 1.75e11}  # fmt: skip
RATIOS = (0.01, 0.1, 0.5, 1, 2, 5, 10, 50, 200, 500)


class MemoryLedgerPanel(Panel):
    """`size` (a name of SIZES), `activations` (values for each parameter), `optimizer` can be read and set.

    `ledgers` holds bytes by way and kind. ValueError: a value that the panel does not offer.
    """

    def __init__(self) -> None:
        wide = {"description_width": "150px"}
        self.size_slider = widgets.SelectionSlider(
            options=list(SIZES), value="25.6 M, ResNet-50", description="parameters", style=wide,
            layout=widgets.Layout(width="460px"),
        )  # fmt: skip
        self.ratio_slider = widgets.SelectionSlider(
            options=[(f"{ratio:g}", ratio) for ratio in RATIOS], value=200, description="activations for each",
            style=wide, layout=widgets.Layout(width="460px"),
        )  # fmt: skip
        self.optimizer_choice = widgets.ToggleButtons(
            options=list(STATES), value="SGD, momentum", description="optimizer",
            style={**wide, "button_width": "160px"}, layout=widgets.Layout(width="100%", display="flex"),
        )  # fmt: skip
        self.picture, self.words = Picture(), widgets.HTML()
        self._figure = LedgerFigure()
        sliders = widgets.HBox([self.size_slider, self.ratio_slider], layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__(sliders, self.optimizer_choice, self.picture, self.words)
        for control in (self.size_slider, self.ratio_slider, self.optimizer_choice):
            control.observe(self._redraw, names="value")
        self._redraw()

    @property
    def size(self) -> str:
        """Name of the model's size."""
        return str(self.size_slider.value)

    @size.setter
    def size(self, value: str) -> None:
        self.size_slider.value = offered("size", value, tuple(SIZES))

    @property
    def activations(self) -> float:
        """Values kept for the backward pass, for each parameter."""
        return float(self.ratio_slider.value)

    @activations.setter
    def activations(self, value: float) -> None:
        self.ratio_slider.value = offered("activations", value, RATIOS)

    @property
    def optimizer(self) -> str:
        """Name of the optimizer."""
        return str(self.optimizer_choice.value)

    @optimizer.setter
    def optimizer(self, value: str) -> None:
        self.optimizer_choice.value = offered("optimizer", value, tuple(STATES))

    def summary(self) -> str:
        """The picture in words."""
        totals = ", ".join(f"{way} {gib(sum(kinds.values()))}" for way, kinds in self.ledgers.items())
        return f"{finding(self.ledgers)}. {self.size}, {self.optimizer}: {totals}."

    def png(self) -> bytes:
        """The picture shown now."""
        return bytes(self.picture.value)

    @guarded
    def _redraw(self, _change: Any = None) -> None:
        parameters = SIZES[self.size]
        values = parameters * self.activations
        self.ledgers = {way: ledger(parameters, values, way, self.optimizer) for way in WAYS}
        about = f"{self.size} parameters, {self.activations:g} activations for each, {self.optimizer}; predicted"
        title = finding(self.ledgers)
        self.picture.value = self._figure.show(self.ledgers, title, about).png()
        self.picture.tooltip = title
        self.words.value = f'<div role="status" aria-live="polite">{self.summary()}</div>'
