"""A running total beside the true one, and the last addition under a magnifying glass: a picture of lesson 02."""

import math

import numpy as np

from mpkit.course.lesson_02.running_sum import SumView
from mpkit.course.pictures.canvas import Canvas, Frame
from mpkit.course.pictures.style import FAINT, INK, PRECISION, ZONE, ZONE_TEXT, look

SIZE = (1040, 470)  # pixels
TOP = 1.3  # height of the axes, in true totals
TRUE = "#222222"
STEPS = 400  # points of a line, at most
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


class StallingSumFigure:
    """A picture that shows one `SumView` at a time. The axes count in shares of the end; the words give the numbers."""

    def __init__(self) -> None:
        with look():
            colors = [style["color"] for style in PRECISION.values()]
            self.canvas = Canvas(SIZE, (*colors, FAINT, ZONE["flushed"], ZONE_TEXT["flushed"]))
            self.sums = self.canvas.figure.add_axes((0.09, 0.125, 0.5, 0.66))
            self.glass = self.canvas.figure.add_axes((0.77, 0.125, 0.1, 0.66))
            self._draw_axes()
            self.canvas.freeze()

    def show(self, view: SumView, title: str, subtitle: str) -> Frame:
        """Draw both totals, the labels of the axes, and the last addition."""
        self.frame = frame = self.canvas.frame()
        count, end = float(view.counts[-1]), float(view.true_totals[-1])
        for part in QUARTERS:
            frame.text((part, -0.055), f"{round(part * count):,}", INK, 14, anchor="ma", axes=self.sums)
            frame.text((-0.015, part), number(part * end), INK, 14, anchor="rm", axes=self.sums)
        self._lines(view, count, end)
        self._last_addition(view)
        frame.text((12, 12), title, INK, 21, True)
        frame.text((12, 45), subtitle, "#444444", 15)
        return frame

    def _draw_axes(self) -> None:
        self.sums.set_xlim(0, 1.02)
        self.sums.set_ylim(0, TOP)
        self.sums.set_xticks(QUARTERS, [""] * 5)
        self.sums.set_yticks(QUARTERS, [""] * 5)
        self.sums.set_xlabel("additions", labelpad=20)
        self.glass.set_xlim(0, 1)
        self.glass.set_ylim(-0.12, 1.12)
        self.glass.axis("off")

    def _lines(self, view: SumView, count: float, end: float) -> None:
        style = PRECISION[view.format.name]
        self.frame.line(self.sums, [(0, 0), (1, 1)] if len(view.counts) < 2 else _points(
            view.counts / count, view.true_totals / end), TRUE, 1.5)  # fmt: skip
        shown = np.where(np.isfinite(view.totals), view.totals / end, TOP * 2)
        points = np.vstack([[(0.0, 0.0)], _points(view.counts / count, shown)])
        if view.how == "pairwise":
            self.frame.marks(self.sums, points[1:], style["marker"], style["color"], 9)
        else:
            self.frame.line(self.sums, points, style["color"], 3.2)
            self.frame.marks(self.sums, points[-1:], style["marker"], style["color"], 10)
        self.frame.text((0.03, TOP * 0.97), "—", TRUE, 15, True, "la", self.sums)
        self.frame.text((0.075, TOP * 0.97), "true total", INK, 14, False, "la", self.sums)
        mark = "●" if view.how == "pairwise" else "▬"
        self.frame.text((0.03, TOP * 0.895), mark, style["color"], 15, True, "la", self.sums)
        self.frame.text((0.075, TOP * 0.895), f"total in {view.format}", INK, 14, False, "la", self.sums)

    def _last_addition(self, view: SumView) -> None:
        """The neighbours of the total as rungs of a ladder, and where total + term falls between them."""
        frame, axes = self.frame, self.glass
        frame.text((660, 92), "The last addition, magnified", INK, 14, True)
        if words := _instead(view):
            for line, text in enumerate(words):
                frame.text((660, 130 + 24 * line), text, FAINT, 14)
            return
        reach = max(1.0, abs(view.term) / view.spacing)
        for rung in range(int(reach) + 1) if reach < 12 else (0,):
            y = rung / reach
            frame.line(axes, [(0, y), (1, y)], INK, 2.0)
            if rung in (0, int(reach)):
                frame.text((-0.1, y), number(view.before + rung * view.spacing), INK, 14, anchor="rm", axes=axes)
        if reach < 3:
            frame.polygon(axes, [(0, 0), (1, 0), (1, 0.5 / reach), (0, 0.5 / reach)], ZONE["flushed"])
            frame.line(axes, [(0, 0), (1, 0)], INK, 2.0)
            frame.line(axes, [(0, 0.5 / reach), (1, 0.5 / reach)], FAINT, 1.2, (0, (4, 3)))
            frame.text((1.1, 0.5 / reach), "half way", ZONE_TEXT["flushed"], 14, anchor="lm", axes=axes)
        style = PRECISION[view.format.name]
        y = abs(view.term) / view.spacing / reach
        frame.line(axes, [(0.5, 0), (0.5, y)], style["color"], 2.5)
        frame.marks(axes, [(0.5, y)], style["marker"], style["color"], 11)
        near = reach < 3 and abs(y - 0.5 / reach) < 0.09
        frame.text((1.1, y - (0.09 if near else 0)), "total + term", INK, 14, True, "lm", axes)
        if reach >= 12:
            frame.text((1.1, 0.5), f"{number(reach)} spacings", FAINT, 14, anchor="lm", axes=axes)


def _instead(view: SumView) -> tuple[str, ...]:
    """What is said where there is no ladder to look at."""
    if not math.isfinite(view.after):
        return "The total has left the format:", "there is nothing beyond", f"{number(view.format.max)}."
    if not view.format.has_inf and view.after == view.format.max < float(view.true_totals[-1]):
        return f"The total is cut to {number(view.format.max)}:", f"{view.format} has nothing larger,", "and no Inf."
    if view.how == "fp32":
        return (f"In {view.grid} neighbours are only", f"{number(view.spacing)} apart here. The total is",
                f"rounded to {view.format} once, at the end.")  # fmt: skip
    if view.how == "kahan":
        if view.after < 0.995 * float(view.true_totals[-1]):
            return "The second number", "is too short as well."
        return "Total and loss are two numbers:", "together they hold about twice", "as many bits."
    if view.how == "pairwise":
        return "Pairs of equal size are added,", "so no term is small beside", "its partner."
    return ()


def number(x: float) -> str:
    """A number as people write it: 4,096, 409.6, 0.001, Inf, NaN."""
    if not math.isfinite(x):
        return "NaN" if math.isnan(x) else "Inf"
    if abs(x) < 1e7 and x == round(x):
        return f"{x:,.0f}"
    return f"{x:,.2f}".rstrip("0").rstrip(".") if 10 <= abs(x) < 1e7 else f"{x:.4g}"


def _points(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """At most `STEPS` points of a line, the last one among them."""
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), STEPS)).round().astype(int))
    return np.column_stack([x[keep], y[keep]])
