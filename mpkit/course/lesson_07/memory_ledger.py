"""The memory ledger of lesson 07: a model's size, its activations and its optimizer, in five ways to train."""

from typing import Any

from mpkit.course.lesson_07.memory import STATES, WAYS, ledger
from mpkit.course.lesson_07.memory_ledger_picture import LedgerFigure, gib, headline
from mpkit.course.panels.controls import buttons, slider
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import Setting

SIZES = {"1 M": 1e6, "10 M": 1e7, "25.6 M, ResNet-50": 25_557_032, "110 M, BERT base": 1.1e8, "1.5 B, GPT-2": 1.5e9,
         "7 B": 7e9, "70 B": 7e10, "175 B, GPT-3": 1.75e11}  # fmt: skip
RATIOS = (0.01, 0.1, 0.5, 1, 2, 5, 10, 50, 200, 500)


class MemoryLedgerPanel(PicturePanel):
    """Bytes of a training step in five ways to train; `ledgers` holds them by way and kind."""

    size = Setting(SIZES, slider("parameters", 460, 150), "25.6 M, ResNet-50", doc="Name of the model's size.")
    activations = Setting(
        RATIOS, slider("activations for each", 460, 150), 200.0, text="{:g}".format,
        doc="Values kept for the backward pass, for each parameter.",
    )  # fmt: skip
    optimizer = Setting(
        STATES, buttons("optimizer", "100%", 150, button=160), "SGD, momentum", doc="Name of the optimizer."
    )
    rows, drawn_by = (("size", "activations"), ("optimizer",)), LedgerFigure

    def look(self) -> None:
        """Count the bytes."""
        values = SIZES[self.size] * self.activations
        self.ledgers = {way: ledger(SIZES[self.size], values, way, self.optimizer) for way in WAYS}

    def draw(self) -> Any:
        """One bar a way to train."""
        about = f"{self.size} parameters, {self.activations:g} activations for each, {self.optimizer}; predicted"
        return self.figure.show(self.ledgers, self.headline(), about)

    def headline(self) -> str:
        """What autocast saves or costs."""
        return headline(self.ledgers)

    def summary(self) -> str:
        """The picture in words."""
        totals = ", ".join(f"{way} {gib(sum(kinds.values()))}" for way, kinds in self.ledgers.items())
        return f"{self.headline()}. {self.size}, {self.optimizer}: {totals}."
