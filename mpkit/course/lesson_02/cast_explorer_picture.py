"""Values before and after a cast, and the error of each, over their magnitude: the picture of lesson 02."""

import math
from functools import cache

import numpy as np

from mpkit import FloatFormat
from mpkit.course.lesson_02.cast_effect import CastEffect, largest_error
from mpkit.course.pictures.canvas import Canvas, Frame
from mpkit.course.pictures.style import (
    FAINT,
    GRADIENT,
    GRADIENT_EDGE,
    INK,
    WEIGHT,
    ZONE,
    ZONE_TEXT,
    look,
    percent,
    power,
)
from mpkit.rounding import Rounding

LOW, HIGH = -46, 24  # the axis of magnitudes, in powers of two
SMALLEST, LARGEST = -20, 3  # the axis of relative errors, in powers of two
SIZE = (1040, 640)  # pixels
TOP = 1.34  # height of the upper axes, in heights of the tallest bar
POINTS = 1200  # as many errors are drawn
NUMBERS_X, NUMBERS_Y, LINE = 826, 128, 61  # left edge of the number column, its first line, and their distance
EDGE = "#555555"
DASHES = (0, (5, 3))  # of the largest possible error, so that it is not taken for the line of the values before
NAMES = ("become 0", "become subnormal", "", "typical error of normal values", "mean moves by", "mean size changes by")
KEYS = (
    ("■", GRADIENT, "after"),
    ("—", WEIGHT, "before"),
    ("●", GRADIENT_EDGE, "error of one value"),
    ("- -", INK, "largest possible error"),
)


class CastExplorerFigure:
    """A picture that shows one `CastEffect` at a time. One canvas serves all formats: the zones move too."""

    def __init__(self) -> None:
        with look():
            self.canvas = Canvas(SIZE, (*ZONE.values(), *ZONE_TEXT.values(), GRADIENT, GRADIENT_EDGE, FAINT, EDGE))
            figure = self.canvas.figure
            self.counts = figure.add_axes((0.085, 0.515, 0.69, 0.325))
            self.errors = figure.add_axes((0.085, 0.095, 0.69, 0.345))
            self._draw_axes()
            self._draw_labels()
            self.canvas.freeze()

    def show(self, view: CastEffect, title: str, subtitle: str) -> Frame:
        """Draw zones, histograms, errors and numbers."""
        self.frame = frame = self.canvas.frame()
        self._zones(view)
        self._histograms(view)
        self._errors(view)
        self._numbers(view)
        frame.text((12, 12), title, INK, 21, True)
        frame.text((12, 45), subtitle, "#444444", 15)
        return frame

    def _draw_axes(self) -> None:
        ticks = range(-40, HIGH, 10)
        for axes in (self.counts, self.errors):
            axes.set_xlim(LOW, HIGH)
            axes.set_xticks(ticks, [power(t) for t in ticks])
            axes.spines["left"].set_visible(False)
        self.counts.set_ylim(0, TOP)
        self.counts.set_yticks([])
        self.counts.set_ylabel("how many values")
        self.errors.set_ylim(SMALLEST, LARGEST)
        ticks = range(-20, 1, 5)
        self.errors.set_yticks(ticks, ["100 %" if t == 0 else power(t) for t in ticks])
        self.errors.set_xlabel("magnitude before the cast")
        self.errors.set_ylabel("relative error")

    def _zones(self, view: CastEffect) -> None:
        fmt = view.format
        edges = [math.log2(fmt.flush_at), math.log2(fmt.smallest_normal), math.log2(fmt.overflow_at)]
        starts, ends = [-math.inf, *edges], [*edges, math.inf]
        for zone, start, end in zip(("flushed", "subnormal", "normal", "overflow"), starts, ends, strict=True):
            left, right = max(start, LOW), min(end, HIGH)
            if right - left < 0.5:
                continue
            for axes, bottom, top in ((self.counts, 0.0, TOP), (self.errors, SMALLEST, LARGEST)):
                self.frame.polygon(axes, [(left, bottom), (right, bottom), (right, top), (left, top)], ZONE[zone])
                if left > LOW:
                    self.frame.line(axes, [(left, bottom), (left, top)], EDGE, 1.0)
            words = _zone_words(zone, fmt, right - left)
            center = ((left + right) / 2, TOP * 0.97)
            self.frame.text(center, words, ZONE_TEXT[zone], 14, True, "ma", self.counts)

    def _histograms(self, view: CastEffect) -> None:
        before, after = _heights(view.before.numpy()), _heights(view.after.numpy())
        tallest = max(before.max(), after.max(), 1)
        self.frame.polygon(self.counts, _outline(after / tallest), GRADIENT, GRADIENT_EDGE)
        self.frame.line(self.counts, _outline(before / tallest), WEIGHT, 2.0)

    def _errors(self, view: CastEffect) -> None:
        self.frame.line(self.errors, _bound(view.format, view.rounding), INK, 1.5, DASHES)
        step = max(1, len(view.before) // POINTS)
        x, y = view.before.numpy()[::step], view.after.numpy()[::step]
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.log2(np.abs(y - x) / np.abs(x))
        error = np.where(np.isfinite(y), error, LARGEST - 0.4)
        place = np.log2(np.abs(x))
        shown = (error >= SMALLEST) & (place >= LOW) & (place <= HIGH)
        points = np.column_stack([place, np.minimum(error, LARGEST - 0.4)])[shown]
        self.frame.marks(self.errors, points, "o", GRADIENT, 2.4, GRADIENT_EDGE)

    def _numbers(self, view: CastEffect) -> None:
        rows = [
            (percent(view.flushed), ZONE_TEXT["flushed"], view.flushed),
            (percent(view.subnormal), ZONE_TEXT["subnormal"], view.subnormal),
            (_overflow_shares(view), ZONE_TEXT["overflow"], view.overflowed),
            (_error_words(view.rms), INK, 1),
            (_signed(view.drift), INK, 1),
            (_signed(view.growth), INK, 1),
        ]
        for number, (value, color, share) in enumerate(rows):
            self.frame.text((NUMBERS_X, NUMBERS_Y + LINE * number + 19), value, color, 20, share >= 0.005)
        self.frame.text((NUMBERS_X, NUMBERS_Y + LINE * 2), _lost_to(view), FAINT, 14)

    def _draw_labels(self) -> None:
        """The words of the right column that stay: names of the numbers, and what the marks mean."""
        for number, name in enumerate(NAMES):
            self._label(NUMBERS_X, NUMBERS_Y + LINE * number, name, FAINT)
        y = NUMBERS_Y + LINE * len(NAMES) + 22
        for number, (mark, color, words) in enumerate(KEYS):
            self._label(NUMBERS_X, y + 22 * number, mark, color)
            self._label(NUMBERS_X + 22, y + 22 * number, words, INK)

    def _label(self, x: float, y: float, words: str, color: str) -> None:
        self.canvas.figure.text(x / SIZE[0], 1 - y / SIZE[1], words, color=color, fontsize=10, va="top")


@cache
def _bound(fmt: FloatFormat, rounding: Rounding) -> np.ndarray:
    """The largest possible relative error over the magnitude, eight points an octave, as points of the axes."""
    sizes = np.arange(LOW, HIGH, 0.125) + 1e-6  # just right of each power of two
    inside = sizes[sizes < math.log2(fmt.max)]
    bound = [math.log2(largest_error(fmt, rounding, 2.0**x)) for x in inside]
    return np.column_stack([inside, np.clip(bound, SMALLEST, LARGEST)])


def _zone_words(zone: str, fmt: FloatFormat, width: float) -> str:
    short = {"flushed": "→ 0", "subnormal": "subnormal", "normal": "normal", "overflow": "too large"}
    if zone == "normal" and width > 17:
        return f"normal: {fmt.mantissa_bits + 1} bits"
    return short[zone] if width > 7 or zone == "flushed" else ""


def _lost_to(view: CastEffect) -> str:
    beyond, limit = "Inf" if view.format.has_inf else "NaN", f"{view.format.max:.6g}"
    if view.nonfinite and view.cut:
        return f"become {beyond} · cut to {limit}"
    return f"are cut to {limit}" if view.cut or view.overflow == "saturate" else f"become {beyond}"


def _overflow_shares(view: CastEffect) -> str:
    if view.nonfinite and view.cut:
        return f"{percent(view.nonfinite)} · {percent(view.cut)}"
    return percent(view.overflowed)


def _error_words(rms: float) -> str:
    return (
        "–" if math.isnan(rms) else "none" if rms == 0 else f"2{power(round(math.log2(rms)))[1:]} ≈ {100 * rms:.1g} %"
    )


def _signed(change: float) -> str:
    if math.isnan(change):
        return "–"
    return "0" if abs(change) < 5e-6 else f"{100 * change:+.2g} %".replace("-", "−")


def _heights(values: np.ndarray) -> np.ndarray:
    """How many of the finite, non-zero magnitudes lie in each half octave of the axis."""
    size = np.abs(values[np.isfinite(values) & (values != 0)])
    counts, _ = np.histogram(np.log2(size), bins=np.arange(LOW, HIGH + 0.25, 0.5))
    return counts.astype(float)


def _outline(heights: np.ndarray) -> np.ndarray:
    """A histogram's outline, from its lower left to its lower right corner."""
    edges = np.arange(LOW, HIGH + 0.25, 0.5)
    return np.column_stack([np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(heights, 2), [0.0]])])
