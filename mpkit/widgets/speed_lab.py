"""The speed lab of lesson 07: a slider over sizes, four formats at once, and presets for what goes wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import ipywidgets as widgets
import torch

from mpkit.plots.speed_lab import FORMATS, SpeedFigure, finding
from mpkit.record_speed import bandwidth, matmuls
from mpkit.speed_record import SpeedRecord
from mpkit.widgets.panel import Panel, Picture, guarded
from mpkit.widgets.rule_choice import offered

PRESETS = {"at its best": 4096, "tensor cores idle": 4095, "too small": 64}


class SpeedLabPanel(Panel):
    """`size` can be read and set: the side of the square matrices. `record`: whose figures are shown.

    On a machine with a CUDA device a button measures them there. ValueError: a size that was not measured.
    """

    def __init__(self, record: SpeedRecord | None = None) -> None:
        self.record = record or SpeedRecord.load()
        sizes = sorted(self.record.matmul["FP32"])
        self.slider = widgets.SelectionSlider(
            options=[(f"{n:,}", n) for n in sizes], value=4096, description="matrix size",
            style={"description_width": "80px"}, layout=widgets.Layout(width="420px"),
        )  # fmt: skip
        self.presets = {name: widgets.Button(description=name, layout=widgets.Layout(width="auto")) for name in PRESETS}
        for name, button in self.presets.items():
            button.on_click(lambda _, n=PRESETS[name]: self.slider.set_trait("value", n))
        here = widgets.Button(description="measure on this GPU", layout=widgets.Layout(width="auto"))
        here.on_click(self.measure)
        row = [self.slider, *self.presets.values(), *([here] if torch.cuda.is_available() else [])]
        self.picture, self.words = Picture(), widgets.HTML()
        self._figure = SpeedFigure(self.record)
        super().__init__(widgets.HBox(row, layout=widgets.Layout(flex_flow="row wrap")), self.picture, self.words)
        self.slider.observe(self._redraw, names="value")
        self._redraw()

    @property
    def size(self) -> int:
        """Side of the square matrices."""
        return int(self.slider.value)

    @size.setter
    def size(self, value: int) -> None:
        self.slider.value = offered("size", value, sorted(self.record.matmul["FP32"]))

    @guarded
    def measure(self, _button: Any = None) -> None:
        """Replace the recorded products by this GPU's (a few seconds)."""
        speeds = {fmt: {int(n): v for n, v in row.items()} for fmt, row in matmuls().items()}
        self.record = dataclasses.replace(
            self.record, gpu=torch.cuda.get_device_name(), torch=torch.__version__, date="now", command="this panel",
            matmul=speeds, bandwidth=bandwidth(2**26),
        )  # fmt: skip
        self._figure = SpeedFigure(self.record)
        self._redraw()

    def summary(self) -> str:
        """The picture in words."""
        speeds = ", ".join(f"{fmt} {self.record.matmul[fmt][self.size]:.3g}" for fmt in FORMATS)
        return f"{finding(self.record, self.size)}. TFLOP/s: {speeds}."

    def png(self) -> bytes:
        """The picture shown now."""
        return bytes(self.picture.value)

    @guarded
    def _redraw(self, _change: Any = None) -> None:
        title = finding(self.record, self.size)
        self.picture.value = self._figure.show(self.size).png()
        self.picture.tooltip = title
        self.words.value = f'<div role="status" aria-live="polite">{self.summary()}</div>'
