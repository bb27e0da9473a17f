"""Gradients of each layer under a format's window: the picture of lesson 04.

One canvas serves all formats. The histograms do not change while the scale does, they only shift.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from mpkit.course.pictures.canvas import Canvas, Frame
from mpkit.course.pictures.style import FAINT, GRADIENT, GRADIENT_EDGE, WEIGHT, ZONE, ZONE_TEXT, look, percent, power
from mpkit.course.pictures.zones import draw_zones, top
from mpkit.course.runs.snapshots import LayerGradients, WhatIf

LOW, HIGH = -46, 24  # the axis, in powers of two
SIZE = (1040, 560)  # pixels
ZONES = ("flushed", "subnormal", "overflow")
BASE = "#9CB6CC"  # the line that a row stands on
HEADS_Y = (1 - 0.815) * SIZE[1]  # pixels from above
COLUMN_X = (0.728, 0.803, 0.879, 0.955)  # centres of the number columns, in widths of the picture


Histograms = list[tuple[np.ndarray, np.ndarray]]  # of a layer's signal and of its weights, as polygons


def histograms(layers: Sequence[LayerGradients]) -> Histograms:
    """Of one step's gradients, unscaled, zeros left out; each row a layer, input first."""
    return [
        (_outline(_log2(layer.signal), -float(row)), _outline(_log2(layer.weight), -float(row)))
        for row, layer in enumerate(layers)
    ]


class GradientHistogramFigure:
    """A picture that shows one `WhatIf` at a time. `names`: one label a layer, input first."""

    def __init__(self, names: Sequence[str]) -> None:
        self.canvas = Canvas(SIZE, colors=(*ZONE.values(), *ZONE_TEXT.values(), GRADIENT, GRADIENT_EDGE))
        with look():
            self.axes = self.canvas.figure.add_axes((0.115, 0.115, 0.575, 0.69))
            self._draw_window(names)
            self._draw_labels(names)
            self.canvas.freeze()

    def show(self, view: WhatIf, histograms: Histograms, title: str, subtitle: str) -> Frame:
        """Move a step's histograms to the view's loss scale, in the window of its format, and write its numbers."""
        frame = self.canvas.frame()
        draw_zones(frame, self.axes, view.format, name_y=1.36, limit_y=1.45)
        frame.text((COLUMN_X[2] * SIZE[0], HEADS_Y), f"→ {top(view.format)}", ZONE_TEXT["overflow"], 15, anchor="md")
        for row in range(len(view.layers)):
            frame.line(self.axes, [(LOW, -row), (HIGH, -row)], BASE, 1.1)
        shift = np.array([view.log2_scale, 0.0])
        for signal, weight in histograms:
            frame.polygon(self.axes, signal + shift, GRADIENT, GRADIENT_EDGE)
            frame.line(self.axes, weight + shift, WEIGHT, width=2)
        for row in range(len(view.layers)):
            self._write_row(frame, row, view)
        frame.text((12, 12), title, size=21, bold=True)
        frame.text((12, 45), subtitle, "#444444")
        return frame

    def _write_row(self, frame: Frame, row: int, view: WhatIf) -> None:
        report, cosine = view.layers[row], view.cosines[row]
        y = self.canvas.place(self.axes, (0.0, 0.3 - row))[1]
        shares = (report.flushed, report.subnormal, report.overflowed + report.nonfinite)
        for zone, share, x in zip(ZONES, shares, COLUMN_X, strict=False):
            color = ZONE_TEXT[zone] if share >= 0.0005 else FAINT
            frame.text((x * SIZE[0], y), percent(share), color, bold=share >= 0.05, anchor="mm")
        words = "none" if cosine is None else "≈ 1" if cosine > 0.9995 else f"{math.floor(cosine * 1000) / 1000:.3f}"
        frame.text((COLUMN_X[3] * SIZE[0], y), words, bold=cosine is None or cosine < 0.99, anchor="mm")

    def _draw_window(self, names: Sequence[str]) -> None:
        ax = self.axes
        ax.set_xlim(LOW, HIGH)
        ax.set_ylim(-len(names) + 0.92, 1.42)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ticks = range(-40, HIGH, 10)
        ax.set_xticks(ticks, [power(t) for t in ticks])
        ax.set_xlabel("|gradient| × loss scale")

    def _draw_labels(self, names: Sequence[str]) -> None:
        heads = (
            ("→ 0", "flushed", COLUMN_X[0]),
            ("subnormal", "subnormal", COLUMN_X[1]),
            ("cosine", "normal", COLUMN_X[3]),
        )
        for head, zone, x in heads:
            self.canvas.figure.text(x, 0.815, head, ha="center", va="bottom", fontsize=11, color=ZONE_TEXT[zone])
        keys = ((Patch(facecolor=GRADIENT, edgecolor=GRADIENT_EDGE), "signal that arrives at the layer"),
                (Line2D([], [], color=WEIGHT, linewidth=2), "gradient of its weights"))  # fmt: skip
        self.canvas.figure.legend(
            *zip(*keys, strict=True), loc="lower right", bbox_to_anchor=(0.995, 0.0), fontsize=10.5
        )
        for row, name in enumerate(names):
            self.axes.text(-0.012, 0.3 - row, name.replace(" (", "\n("), transform=self.axes.get_yaxis_transform(),
                           ha="right", va="center", fontsize=11, linespacing=1.1)  # fmt: skip


def _log2(values: Tensor) -> np.ndarray:
    log2: np.ndarray = np.log2(values[values != 0].abs().numpy())
    return log2


def _outline(log2_values: np.ndarray, base: float) -> np.ndarray:
    """A histogram in half-octave bins as a closed polygon, 0.8 high at its peak, standing on `base`."""
    if len(log2_values) == 0:
        return np.array([[LOW, base]] * 3)
    first, last = math.floor(log2_values.min()), math.ceil(log2_values.max()) + 0.5
    counts, edges = np.histogram(log2_values, bins=np.arange(first, last + 0.25, 0.5))
    height = base + 0.8 * counts / counts.max()
    return np.column_stack([np.repeat(edges, 2), np.concatenate([[base], np.repeat(height, 2), [base]])])
