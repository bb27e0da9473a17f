"""The speed lab of lesson 07: a slider over sizes, four formats at once, and buttons for what goes wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import ipywidgets as widgets
import torch

from mpkit.course.lesson_07.speed_bars import CASES, VALUES, SpeedBars, case_finding, groups
from mpkit.course.lesson_07.speed_lab_picture import FORMATS, SpeedFigure, finding
from mpkit.course.nets.workloads import mlp, transformer
from mpkit.course.panels.panel import Panel, Picture, guarded
from mpkit.course.panels.setting import offered
from mpkit.course.recorded.speed import SpeedRecord
from mpkit.course.runs.timing import bandwidth, matmuls, small

PRESETS = {"at its best": 4096, "tensor cores idle": 4095, "too small": 64}
PRODUCTS = "products"


class SpeedLabPanel(Panel):
    """`size`, the side of the square matrices, and `case` can be read and set. `record`: whose figures are shown.

    `case` is "products", or one of `mpkit.course.lesson_07.speed_bars.CASES`; to set a size returns to the products.
    On a machine with a CUDA device a button measures all of it there. ValueError: a size that was not measured, or
    an unknown case.
    """

    def __init__(self, record: SpeedRecord | None = None) -> None:
        self.record = record or SpeedRecord.load()
        sizes = sorted(self.record.matmul["FP32"])
        self.slider = widgets.SelectionSlider(
            options=[(f"{n:,}", n) for n in sizes], value=4096, description="matrix size",
            style={"description_width": "80px"}, layout=widgets.Layout(width="420px"),
        )  # fmt: skip
        self.presets = {
            name: widgets.Button(description=name, layout=widgets.Layout(width="auto")) for name in (*PRESETS, *CASES)
        }
        for name, size in PRESETS.items():
            self.presets[name].on_click(lambda _, n=size: setattr(self, "size", n))
        for name in CASES:
            self.presets[name].on_click(lambda _, case=name: setattr(self, "case", case))
        here = widgets.Button(description="measure on this GPU", layout=widgets.Layout(width="auto"))
        here.on_click(self.measure)
        row = [self.slider, *self.presets.values(), *([here] if torch.cuda.is_available() else [])]
        self.picture, self.words = Picture(), widgets.HTML()
        self._case, self._figure, self._bars = PRODUCTS, SpeedFigure(self.record), SpeedBars(self.record)
        super().__init__(widgets.HBox(row, layout=widgets.Layout(flex_flow="row wrap")), self.picture, self.words)
        self.slider.observe(self._moved, names="value")
        self._redraw()

    @property
    def size(self) -> int:
        """Side of the square matrices."""
        return int(self.slider.value)

    @size.setter
    def size(self, value: int) -> None:
        self.slider.value = offered("size", value, sorted(self.record.matmul["FP32"]))
        self._moved()

    @property
    def case(self) -> str:
        """What is shown: products of matrices, or why FP16 is not faster."""
        return self._case

    @case.setter
    def case(self, value: str) -> None:
        self._case = offered("case", value, (PRODUCTS, *CASES))
        self._redraw()

    @guarded
    def measure(self, _button: Any = None) -> None:
        """Replace the record by what this GPU does (half a minute)."""
        speeds = {fmt: {int(n): v for n, v in row.items()} for fmt, row in matmuls().items()}
        self.record = dataclasses.replace(
            self.record, gpu=torch.cuda.get_device_name(), torch=torch.__version__, date="now", command="this panel",
            matmul=speeds, bandwidth=bandwidth(VALUES),
            small={"mlp": small(mlp), "transformer": small(transformer)},
        )  # fmt: skip
        self._figure, self._bars = SpeedFigure(self.record), SpeedBars(self.record)
        self._redraw()

    def summary(self) -> str:
        """The picture in words."""
        if self.case != PRODUCTS:
            rows = (
                f"{name}: " + ", ".join(f"{bar.label} {bar.ms:.3g} ms" for bar in bars)
                for name, bars in groups(self.record, self.case).items()
            )
            return f"{self._title()}. {'; '.join(rows)}."
        speeds = ", ".join(f"{fmt} {self.record.matmul[fmt][self.size]:.3g}" for fmt in FORMATS)
        return f"{self._title()}. TFLOP/s: {speeds}."

    def png(self) -> bytes:
        """The picture shown now."""
        return bytes(self.picture.value)

    def _title(self) -> str:
        return finding(self.record, self.size) if self.case == PRODUCTS else case_finding(self.record, self.case)

    @guarded
    def _moved(self, _change: Any = None) -> None:
        self._case = PRODUCTS
        self._redraw()

    @guarded
    def _redraw(self, _change: Any = None) -> None:
        products = self.case == PRODUCTS
        frame = self._figure.show(self.size) if products else self._bars.show(self.case)
        self.picture.value = frame.png()
        self.picture.tooltip = self._title()
        self.words.value = f'<div role="status" aria-live="polite">{self.summary()}</div>'
