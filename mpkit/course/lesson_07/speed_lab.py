"""The speed lab of lesson 07: a slider over sizes, five formats at once, and buttons for what goes wrong."""

import dataclasses
from typing import Any, ClassVar, TypeVar

import ipywidgets as widgets
import torch

from mpkit import BF16, FP16, TF32
from mpkit.course.lesson_07.speed_bars import CASES, VALUES, SpeedBars, case_headline, groups
from mpkit.course.lesson_07.speed_lab_picture import FORMATS, SpeedFigure, headline, in_digits
from mpkit.course.nets.workloads import mlp, transformer
from mpkit.course.panels.controls import Unseen, button, slider
from mpkit.course.panels.panel import BadInput, guarded
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import Setting
from mpkit.course.recorded.sheets import sheet
from mpkit.course.recorded.speed import SpeedRecord
from mpkit.course.runs.timing import bandwidth, fp8_products, matmuls, small
from mpkit.policy.hardware import in_hardware

PRESETS = {"at its best": 4096, "misaligned": 4095, "too small": 64}
PRODUCTS = "products"
T = TypeVar("T")


class _Size(Setting[int]):
    def __set__(self, panel: Any, value: int) -> None:
        super().__set__(panel, value)
        panel.case = PRODUCTS  # also where the slider stands there already


class SpeedLabPanel(PicturePanel):
    """Products of square matrices in five formats, or why FP16 is not faster. `record`: whose figures are shown.

    With device="cuda" a button measures all of it on this machine's GPU.
    """

    size = _Size(
        lambda panel: sorted(panel.record.matmul["FP32"]), slider("matrix size", 420, 80), 4096, text="{:,}".format,
        doc="Side of the square matrices; to set it returns to their products.",
    )  # fmt: skip
    case = Setting(
        (PRODUCTS, *CASES), lambda _, value: Unseen(value=value),
        doc="What is shown: products of matrices, or why FP16 is not faster.",
    )  # fmt: skip
    rows = (("size", "presets"),)
    jumps: ClassVar = {name: {"size": n} for name, n in PRESETS.items()} | {name: {"case": name} for name in CASES}

    def __init__(self, record: SpeedRecord | None = None, device: str = "cpu") -> None:
        self._use(record or SpeedRecord.load())
        super().__init__()
        self.progress = widgets.IntProgress(0, 0, 4, layout=widgets.Layout(width="160px", visibility="hidden"))
        if device == "cuda":
            self.box.children[0].children += (button("measure on this GPU", self.measure), self.progress)

    @guarded
    def measure(self) -> None:
        """Replace the record by what this GPU does (half a minute). BadInput: it lacks a format of the picture."""
        if lacks := [fmt.name for fmt in (FP16, TF32, BF16) if not in_hardware(fmt, "cuda")]:
            raise BadInput(
                f"This GPU has no {' and no '.join(lacks)} of its own, so the record stays: {self.record.gpu}."
            )
        self.progress.value, self.progress.layout.visibility = 0, "visible"  # seen before anything is measured
        try:
            products = self._done({**matmuls(), **fp8_products()})
            speeds = {fmt: {int(n): v for n, v in row.items()} for fmt, row in products.items()}
            self._use(dataclasses.replace(
                self.record, gpu=torch.cuda.get_device_name(), torch=torch.__version__, date="now",
                command="this panel", matmul=speeds, bandwidth=self._done(bandwidth(VALUES)),
                sheet=sheet(torch.cuda.get_device_name()), range={},
                small={"mlp": self._done(small(mlp)), "transformer": self._done(small(transformer))},
            ))  # fmt: skip
        finally:
            self.progress.layout.visibility = "hidden"
        self.redraw()

    def _done(self, part: T) -> T:
        """A quarter of what is measured."""
        self.progress.value += 1
        return part

    def moved(self, change: Any) -> None:
        """The slider returns to the products."""
        if change["owner"] is self.controls["size"]:
            with self.hold():
                self.case = PRODUCTS
        super().moved(change)

    def draw(self) -> Any:
        """A roofline, or bars."""
        return self._roof.show(self.size) if self.case == PRODUCTS else self._bars.show(self.case)

    def headline(self) -> str:
        """What FP16 gains, and why."""
        return headline(self.record, self.size) if self.case == PRODUCTS else case_headline(self.record, self.case)

    def summary(self) -> str:
        """The picture in words."""
        if self.case != PRODUCTS:
            rows = (
                f"{name}: " + ", ".join(f"{bar.label} {bar.words} ms" for bar in bars)
                for name, bars in groups(self.record, self.case).items()
            )
            return f"{self.headline()}. {'; '.join(rows)}."
        there = [fmt for fmt in FORMATS if self.size in self.record.matmul.get(fmt, {})]
        speeds = ", ".join(f"{fmt} {in_digits(self.record.matmul[fmt][self.size])}" for fmt in there)
        return f"{self.headline()}. TFLOP/s: {speeds}."

    def _use(self, record: SpeedRecord) -> None:
        self.record, self._roof, self._bars = record, SpeedFigure(record), SpeedBars(record)
