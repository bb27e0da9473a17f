"""Gradients of each layer under a format's window: the picture of lesson 04.

Made to be redrawn while a slider moves. matplotlib draws once what never changes: window, axis, labels. A redraw
pastes the histograms, which only shift, and the numbers onto a copy of those pixels, and encodes them with a palette.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image, ImageDraw, ImageFont

from mpkit.formats import FloatFormat
from mpkit.plots.style import GRADIENT, GRADIENT_EDGE, INK, WEIGHT, ZONE, ZONE_TEXT, look, percent, power
from mpkit.recording import WhatIf

LOW, HIGH = -46, 24  # the axis, in powers of two
SIZE = (1040, 560)  # pixels
ZONES = ("flushed", "subnormal", "overflow")
COLUMN_X = (0.728, 0.803, 0.879, 0.955)  # centres of the number columns, in widths of the picture
FAINT = "#767676"


class GradientHistogramFigure:
    """A picture that shows one `WhatIf` at a time.

    Args:
        names: one label a layer, input first.
        fmt: the format whose window is drawn.
        signals, weights: log2 of the magnitudes, one array a layer, unscaled, zeros left out.
    """

    def __init__(
        self, names: Sequence[str], fmt: FloatFormat, signals: Sequence[np.ndarray], weights: Sequence[np.ndarray]
    ) -> None:
        self.format = fmt
        with look():
            self.figure = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100)
            self.canvas = FigureCanvasAgg(self.figure)
            self.axes = self.figure.add_axes((0.115, 0.115, 0.575, 0.69))
            self._draw_window(names)
            self._draw_labels(names)
            self.canvas.draw()
        self._background = Image.fromarray(np.asarray(self.canvas.buffer_rgba())[:, :, :3].copy())
        self._signals = [_outline(values, -float(row)) for row, values in enumerate(signals)]
        self._weights = [_outline(values, -float(row)) for row, values in enumerate(weights)]
        self._palette: Image.Image | None = None
        self.image = self._background

    def show(self, view: WhatIf, title: str, subtitle: str) -> None:
        """Move the histograms to the view's loss scale and write its numbers."""
        self.image = self._background.copy()
        pen = ImageDraw.Draw(self.image)
        shift = np.array([view.log2_scale, 0.0])
        for signal, weight in zip(self._signals, self._weights, strict=True):
            pen.polygon(self._pixels(signal + shift), fill=GRADIENT, outline=GRADIENT_EDGE)
            pen.line(self._pixels(weight + shift), fill=WEIGHT, width=2)
        for row in range(len(view.layers)):
            self._write_row(pen, row, view)
        pen.text((12, 12), title, INK, _font(21, True))
        pen.text((12, 45), subtitle, "#444444", _font(15, False))

    def png(self) -> bytes:
        """The picture as PNG, in 256 colours: that is four times as fast to encode as true colour."""
        if self._palette is None:
            self._palette = _palette(self.image)
        out = io.BytesIO()
        small = self.image.quantize(palette=self._palette, dither=Image.Dither.NONE)
        small.save(out, "PNG", compress_level=1)
        return out.getvalue()

    def _write_row(self, pen: ImageDraw.ImageDraw, row: int, view: WhatIf) -> None:
        report, cosine = view.layers[row], view.cosines[row]
        y = self._pixels(np.array([[0.0, 0.3 - row]]))[0][1]
        shares = (report.flushed, report.subnormal, report.overflowed + report.nonfinite)
        for zone, share, x in zip(ZONES, shares, COLUMN_X, strict=False):
            color = ZONE_TEXT[zone] if share >= 0.0005 else FAINT
            pen.text((x * SIZE[0], y), percent(share), color, _font(15, share >= 0.05), anchor="mm")
        words = "none" if cosine is None else "≈ 1" if cosine > 0.9995 else f"{math.floor(cosine * 1000) / 1000:.3f}"
        bad = cosine is None or cosine < 0.99
        pen.text((COLUMN_X[3] * SIZE[0], y), words, INK, _font(15, bad), anchor="mm")

    def _pixels(self, points: np.ndarray) -> list[tuple[float, float]]:
        xy = self.axes.transData.transform(np.column_stack([points[:, 0].clip(LOW, HIGH), points[:, 1]]))
        return [(float(x), SIZE[1] - float(y)) for x, y in xy]

    def _draw_window(self, names: Sequence[str]) -> None:
        ax, fmt = self.axes, self.format
        ax.set_xlim(LOW, HIGH)
        ax.set_ylim(-len(names) + 0.92, 1.42)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ticks = range(-40, HIGH, 10)
        ax.set_xticks(ticks, [power(t) for t in ticks])
        ax.set_xlabel("|gradient| × loss scale")
        edges = [math.log2(fmt.flush_at), math.log2(fmt.smallest_normal), math.log2(fmt.overflow_at)]
        spans = zip(
            [-math.inf, *edges], [*edges, math.inf], ("flushed", "subnormal", "normal", "overflow"), strict=True
        )
        for left, right, zone in spans:
            self._draw_zone(max(left, LOW), min(right, HIGH), zone)
        shown = (power(round(edges[0])), power(round(edges[1])), f"{fmt.max:.6g}" if fmt.max < 1e6 else "")
        close = edges[1] - edges[0] < 6  # then the two labels stand back to back
        sides = ("right", "left", "center") if close else ("center", "center", "center")
        for edge, label, side in zip(edges, shown, sides, strict=True):
            if LOW < edge < HIGH:
                ax.axvline(edge, color="#555555", linewidth=1)
                ax.text(edge, 1.45, label, ha=side, va="bottom", fontsize=11)

    def _draw_zone(self, left: float, right: float, zone: str) -> None:
        if right - left < 1:
            return
        self.axes.axvspan(left, right, color=ZONE[zone], zorder=0)
        wide = right - left > 17
        words = {
            "flushed": "flushed to zero" if wide else "flushed",
            "subnormal": "subnormal\nfewer bits" if right - left > 8 else "",
            "normal": f"normal: all {self.format.mantissa_bits + 1} bits" if wide else "normal",
            "overflow": self._top(),
        }
        self.axes.text((left + right) / 2, 1.36, words[zone], ha="center", va="top", weight="bold", fontsize=10,
                       color=ZONE_TEXT[zone], linespacing=1.05)  # fmt: skip

    def _top(self) -> str:
        """What a value beyond the largest one becomes."""
        return "Inf" if self.format.has_inf else f"{self.format.max:.0f}"

    def _draw_labels(self, names: Sequence[str]) -> None:
        heads = ("→ 0", "subnormal", f"→ {self._top()}", "cosine")
        for head, zone, x in zip(heads, (*ZONES, "normal"), COLUMN_X, strict=True):
            self.figure.text(x, 0.815, head, ha="center", va="bottom", fontsize=11, color=ZONE_TEXT[zone])
        keys = ((Patch(facecolor=GRADIENT, edgecolor=GRADIENT_EDGE), "signal that arrives at the layer"),
                (Line2D([], [], color=WEIGHT, linewidth=2), "gradient of its weights"))  # fmt: skip
        self.figure.legend(*zip(*keys, strict=True), loc="lower right", bbox_to_anchor=(0.995, 0.0), fontsize=10.5)
        for row, name in enumerate(names):
            self.axes.axhline(-row, color="#9CB6CC", linewidth=0.8, zorder=1)
            self.axes.text(-0.012, 0.3 - row, name.replace(" (", "\n("), transform=self.axes.get_yaxis_transform(),
                           ha="right", va="center", fontsize=11, linespacing=1.1)  # fmt: skip


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """The figure's own typeface for the parts that PIL writes; matplotlib brings the file along."""
    return ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")), size)


def _palette(image: Image.Image) -> Image.Image:
    """The most frequent colours of a picture, no two of them close, so that areas keep their exact colour."""
    counted = image.getcolors(image.width * image.height) or []  # np.unique takes a hundred times as long
    colors = np.array([color for _, color in sorted(counted, reverse=True)], dtype=np.int64)
    chosen = np.empty((0, 3), dtype=np.int64)
    for color in colors:
        if len(chosen) < 200 and np.all(np.abs(chosen - color).max(axis=1) > 9):
            chosen = np.vstack([chosen, color])
    palette = Image.new("P", (1, 1))
    palette.putpalette(chosen.flatten().tolist())
    return palette


def _outline(log2_values: np.ndarray, base: float) -> np.ndarray:
    """A histogram in half-octave bins as a closed polygon, 0.8 high at its peak, standing on `base`."""
    if len(log2_values) == 0:
        return np.array([[LOW, base]] * 3)
    first, last = math.floor(log2_values.min()), math.ceil(log2_values.max()) + 0.5
    counts, edges = np.histogram(log2_values, bins=np.arange(first, last + 0.25, 0.5))
    height = base + 0.8 * counts / counts.max()
    return np.column_stack([np.repeat(edges, 2), np.concatenate([[base], np.repeat(height, 2), [base]])])
