"""A picture and a matrix before and after a scaled format: the figure of the granularity panel. It computes nothing."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from mpkit.course.lesson_09.granularity_data import COLUMN, GAINS, LITTLE, SPREAD
from mpkit.course.lesson_09.granularity_effect import DRAWS
from mpkit.course.lesson_09.granularity_view import View
from mpkit.course.lesson_09.granularity_words import Table, known
from mpkit.course.pictures.canvas import Canvas, Frame
from mpkit.course.pictures.palette import levels
from mpkit.course.pictures.style import EDGE, FAINT, INK, look

SIZE = (1040, 506)  # pixels
TOP = 88  # of the panes
PANES = ((46, 256), (308, 256), (630, 192), (832, 192))  # left edge and side of each, in pixels
BARS = ((630, 170), (832, 170))  # left edge and width of the two scales of colours
BAR_TOP, BAR_HIGH = 320, 12
TABLE_TOP, LINE = 394, 24
ROW = 20  # a group that holds this row is outlined
MOVES = 0.2  # by what share the largest of a group changes, from where on the colour is the end's
GREYS, SHADES = 31, 33  # further apart than what a canvas takes for one colour


class Look(NamedTuple):
    """How the values of a pane become colours: those at `low`, at `high`, and how many lie between."""

    colors: np.ndarray
    low: float
    high: float

    def of(self, values: np.ndarray) -> np.ndarray:
        """Levels of red, green and blue; what lies beyond an end has the end's colour."""
        place = (values - self.low) / (self.high - self.low) * (len(self.colors) - 1)
        colors: np.ndarray = self.colors[np.clip(np.rint(place), 0, len(self.colors) - 1).astype(int)]
        return colors


def _mixed(*stops: str, count: int) -> np.ndarray:
    """Colours between the stops, evenly."""
    ends = np.array([levels(stop) for stop in stops], dtype=float)
    place = np.linspace(0, len(ends) - 1, count)
    return (
        np.column_stack([np.interp(place, range(len(ends)), ends[:, channel]) for channel in range(3)])
        .round()
        .astype(int)
    )


GREY = _mixed("#000000", "#FFFFFF", count=GREYS)
# Okabe and Ito's blue and vermillion, made darker at the ends: told apart with every common colour vision.
SIGNED = _mixed("#00395C", "#0072B2", "#FFFFFF", "#D55E00", "#6B2F00", count=SHADES)
EXACT = [f"#{r:02X}{g:02X}{b:02X}" for r, g, b in (*GREY, *SIGNED)]


def _looks(view: View) -> tuple[Look, Look]:
    """Of the pictures and of the matrices."""
    if view.rounded:
        return Look(GREY, 0, 2.5 * LITTLE), Look(GREY, 0, 2.5 * LITTLE)
    if view.compares:
        return Look(GREY, 0, 1), Look(SIGNED, -MOVES, MOVES)
    if view.values == GAINS:
        return Look(GREY, 1 - 2.5 * SPREAD, 1 + 2.5 * SPREAD), Look(SIGNED, 1 - 2.5 * SPREAD, 1 + 2.5 * SPREAD)
    return Look(GREY, 0, 1), Look(SIGNED, -0.375, 0.375)


class GranularityFigure:
    """A picture that shows one `View` at a time."""

    def __init__(self) -> None:
        with look():
            self.canvas = Canvas(SIZE, [INK, FAINT, EDGE, *EXACT])
            self.panes = [self._axes(left, TOP, side, side) for left, side in PANES]
            self.bars = [self._axes(left, BAR_TOP, wide, BAR_HIGH) for left, wide in BARS]
            self.canvas.freeze()

    def show(self, view: View, title: str, subtitle: str, table: Table) -> Frame:
        """Four panes, the meaning of their colours, and the table."""
        self.frame = frame = self.canvas.frame()
        frame.text((12, 10), title, size=19, bold=True)
        frame.text((12, 38), subtitle, color=FAINT, size=14)
        pictures, matrices = _looks(view)
        for number, (head, values) in enumerate(_shown(view)):
            self._pane(number, head, values, pictures if number < 2 or view.rounded else matrices, view)
        self._bar(0, "all four pictures" if view.rounded else "picture", pictures)
        if not view.rounded:
            name = "change of a group's largest" if view.compares else "weights"
            self._bar(1, "gains" if view.values == GAINS else name, matrices)
        self._table(table)
        return frame

    def _axes(self, left: float, top: float, wide: float, high: float) -> Axes:
        place = (left / SIZE[0], 1 - (top + high) / SIZE[1], wide / SIZE[0], high / SIZE[1])
        axes = self.canvas.figure.add_axes(place, xlim=(0, 1), ylim=(1, 0))
        axes.set_axis_off()
        return axes

    def _pane(self, number: int, head: str, values: Tensor, how: Look, view: View) -> None:
        axes, (left, side), size = self.panes[number], PANES[number], len(values)
        axes.set(xlim=(0, size), ylim=(size, 0))
        self.frame.text((left, TOP - 22), head, size=14, bold=True)
        self.frame.cells(axes, how.of(values.numpy()))
        self.frame.line(axes, [(0, 0), (size, 0), (size, size), (0, size), (0, 0)], EDGE, 1.2)
        ticks = {float(place): str(place) for place in range(0, size + 1, size // 4)}
        if number % 2:
            ticks[0.0] = ""  # the other pane's last label stands there
        self.frame.ticks(axes, "x", ticks, 12)
        if number == 0:
            self.frame.ticks(axes, "y", ticks, 12)
            self.frame.text((left, TOP + side + 26), "across: column, down: row", FAINT, 13)
        if number in (0, 2) and not (number and (view.rounded or view.compares)):
            self._outline(axes, view, size)

    def _outline(self, axes: Axes, view: View, size: int) -> None:
        """The group of the outlier, or of the same place where there is none."""
        high, wide = (side or size for side in view.fmt.block)
        top, left = ROW // high * high, COLUMN // wide * wide
        box = [(left, top), (left + wide, top), (left + wide, top + high), (left, top + high), (left, top)]
        self.frame.line(axes, box, "#FFFFFF", 4)
        self.frame.line(axes, box, INK, 2, (0, (4, 2)))

    def _bar(self, number: int, name: str, how: Look) -> None:
        axes, (left, wide) = self.bars[number], BARS[number]
        self.frame.cells(axes, how.colors[None])
        self.frame.line(axes, [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], EDGE, 1.2)
        middle = (how.low + how.high) / 2
        ends = ((how.low, "≤ ", "lt", left), (middle, "", "mt", left + wide / 2), (how.high, "≥ ", "rt", left + wide))
        for value, sign, anchor, x in ends:
            words = f"{sign if value else ''}{value:.3g}".replace("-", "−")
            self.frame.text((x, BAR_TOP + BAR_HIGH + 4), words, size=12, anchor=anchor)
        self.frame.text((left, BAR_TOP + BAR_HIGH + 20), name, FAINT, 13)

    def _table(self, table: Table) -> None:
        heads, rows = table
        wide = (SIZE[0] - 130) / len(heads)
        for column, head in enumerate(heads):
            words = head if "\n" in head else f"\n{head}"
            self.frame.text((130 + wide * (column + 0.5), TABLE_TOP), words, FAINT, 13, anchor="ma")
        for row, (name, cells) in enumerate(rows):
            y = TABLE_TOP + 46 + LINE * row
            self.frame.text((12, y), name, size=14, bold=True, anchor="lm")
            for column, words in enumerate(cells):
                self.frame.text((130 + wide * (column + 0.5), y), words, size=15, anchor="mm")


def _shown(view: View) -> list[tuple[str, Tensor]]:
    """Head and values of each pane."""
    if view.rounded:
        heads = {"nearest": "nearest", "once": "stochastic, once", "mean": f"mean of {DRAWS} stochastic"}
        return [
            ("picture", view.picture.before),
            *((heads[way], one.picture.after) for way, one in view.rounded.items()),
        ]
    if view.compares:
        return [
            ("picture", view.picture.before), (f"in {known(view.fmt).split(',')[0]}", view.picture.after),
            ("largest weights: floor", view.peaks[0]), ("rounded up", view.peaks[1]),
        ]  # fmt: skip
    matrix, name = ("gains" if view.values == GAINS else "weights"), known(view.fmt).split(",")[0]
    return [
        ("picture", view.picture.before), (f"in {name}", view.picture.after),
        (matrix, view.matrix.before), (f"in {name}", view.matrix.after),
    ]  # fmt: skip
