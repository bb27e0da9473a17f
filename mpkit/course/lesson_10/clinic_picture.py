"""A patient's curves: the loss, other signs below it; after the cure both runs. It computes nothing."""

import math
import textwrap
from typing import Any

import numpy as np

from mpkit.course.lesson_10.clinic_words import bad_steps, course, shown, skipped
from mpkit.course.lesson_10.in_words import number
from mpkit.course.lesson_10.waiting_room import Curves
from mpkit.course.pictures.canvas import Canvas, Frame, counts
from mpkit.course.pictures.style import EDGE, FAINT, INK, SUPERSCRIPT, look, readable

SIZE = (660, 470)  # pixels
SICK, CURED = "#D55E00", "#0072B2"  # Okabe and Ito's vermillion and blue
DASH = (0, (5, 2))
LEFT, RIGHT, TOP, BOTTOM = 64, 646, 118, 418
GAP = 34  # pixels between axes: room for a heading
TITLE, SMALL = 16, 13  # pixels
MANY = 30  # a ratio from which an axis is logarithmic


class ClinicFigure:
    """A picture that shows one patient at a time."""

    def __init__(self) -> None:
        with look():
            self.canvas = Canvas(SIZE, [INK, FAINT, EDGE, SICK, CURED, readable(SICK), readable(CURED)])
            self.page = self._axes(0, SIZE[0], 0, SIZE[1])
            self.page.set(xlim=(0, SIZE[0]), ylim=(SIZE[1], 0))
            self.axes = {count: self._stack(count) for count in (1, 2, 3)}
            self.canvas.freeze()

    def _stack(self, count: int) -> list[Any]:
        high = (BOTTOM - TOP - GAP * (count - 1)) / count
        tops = [TOP + k * (high + GAP) for k in range(count)]
        return [self._axes(LEFT, RIGHT, top, top + high) for top in tops]

    def _axes(self, left: float, right: float, top: float, bottom: float) -> Any:
        wide, high = SIZE
        axes = self.canvas.figure.add_axes(
            (left / wide, 1 - bottom / high, (right - left) / wide, (bottom - top) / high)
        )
        axes.set_axis_off()
        return axes

    def show(self, sick: Curves, cured: Curves | None, title: str, subtitle: str) -> Frame:
        """The curves of the sick run, and over them those of the cured one, if there is one."""
        frame = self._page(title, subtitle)
        names = ["loss", *shown(sick)]
        places = self.axes[len(names)]
        for axes, name in zip(places, names, strict=True):
            self._curve(axes, name, sick[name], cured.get(name) if cured else None, places)
        self._skipped(places[0], sick)
        self._legend(sick, names, cured is not None)
        return frame

    def waiting(self, title: str, subtitle: str) -> Frame:
        """The words alone, for as long as there are no curves."""
        return self._page(title, subtitle)

    def _page(self, title: str, subtitle: str) -> Frame:
        self.frame = frame = self.canvas.frame()
        for words, top, size, color, room in ((title, 6, TITLE, INK, 72), (subtitle, 52, SMALL, FAINT, 92)):
            for row, line in enumerate(textwrap.wrap(words, room)[:2]):
                frame.text((8, top + (size + 5) * row), line, color, size, bold=size == TITLE)
        return frame

    def _curve(self, axes: Any, name: str, sick: list[float], cured: list[float] | None, places: list[Any]) -> None:
        both = sick + (cured or [])
        scale = _Scale([value for value in both if math.isfinite(value)])
        axes.set(xlim=(-0.5, len(sick) - 0.5), ylim=(scale.low, scale.high))
        self._box(axes)
        heading = course(name, cured if cured else sick)
        if cured and (bad := bad_steps(sick)):
            heading += f" (was {number(sick[bad[0]])} from step {bad[0]})"
        (x, y) = self.frame.place(axes, (-0.5, scale.high))
        self.frame.text((x, y - 6), heading, INK, SMALL, True, "ls")
        self.frame.ticks(axes, "y", scale.ticks((6, 4, 3)[len(places) - 1]), 12)
        if axes is places[-1]:
            self.frame.ticks(axes, "x", {step: f"{step:.0f}" for step in counts(len(sick) - 1)[:8]}, 12)
        runs = [(sick, SICK, DASH, "s")] + ([(cured, CURED, "-", "o")] if cured else [])
        for values, color, dash, marker in runs:
            self._line(axes, scale, values, color, dash, marker)

    def _line(self, axes: Any, scale: "_Scale", values: list[float], color: str, dash: Any, marker: str) -> None:
        for run in _runs(values):
            points = np.array([(step, scale.place(values[step])) for step in run])
            if len(points) > 1:
                self.frame.line(axes, points, color, 2, dash)
            every = max(1, len(values) // 12)
            self.frame.marks(axes, points[::every], marker, color, 7)
        bad = bad_steps(values)
        if not bad:
            return
        top = scale.high - 0.12 * (scale.high - scale.low)
        every = math.ceil(len(bad) / 16)
        self.frame.marks(axes, [(step, top) for step in bad[::every]], "X", color, 9)

    def _box(self, axes: Any) -> None:
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        self.frame.polygon(axes, [(left, low), (right, low), (right, high), (left, high)], "#FFFFFF", EDGE, 2)

    def _skipped(self, axes: Any, sick: Curves) -> None:
        if gone := skipped(sick):
            low, high = axes.get_ylim()
            every = math.ceil(len(gone) / 24)
            self.frame.marks(axes, [(s, low + 0.05 * (high - low)) for s in gone[::every]], "v", FAINT, 7)

    def _legend(self, sick: Curves, names: list[str], cured: bool) -> None:
        """What is there, and nothing else."""
        frame, y = self.frame, SIZE[1] - 14
        frame.text((LEFT, y), "step", FAINT, 12, anchor="lm")
        x = LEFT + 48
        for marker, color, words, there in (
            ("s", SICK, "as it came", True), ("o", CURED, "cured", cured),
            ("X", SICK, "Inf or NaN", any(bad_steps(sick[name]) for name in names)),
            ("v", FAINT, "step skipped", bool(skipped(sick))),
        ):  # fmt: skip
            if there:
                frame.marks(self.page, [(x, y)], marker, color, 8)
                frame.text((x + 10, y), words, INK, 12, anchor="lm")
                x += 110


class _Scale:
    """Where values lie on an axis: logarithmic if they span much, with a place of its own for 0."""

    def __init__(self, values: list[float]) -> None:
        positive = [value for value in values if value > 0]
        self.zero = 0.0 in values
        self.log = bool(positive) and min(values) >= 0 and max(positive) / min(positive) > MANY
        if self.log:
            least, high = math.log10(min(positive)), math.log10(max(positive))
            self.floor = least - max(1, 0.12 * (high - least)) if self.zero else least
            low = self.floor
        else:
            low, high = (min(values), max(values)) if values else (0.0, 1.0)
        room = high - low or abs(high) or 1.0
        self.low, self.high = low - 0.12 * room, high + 0.3 * room
        self.empty = not values

    def place(self, value: float) -> float:
        """The coordinate of a finite value."""
        if not self.log:
            return value
        return math.log10(value) if value > 0 else self.floor

    def ticks(self, most: int) -> dict[float, str]:
        """Coordinates and labels, `most` of them."""
        if self.empty:
            return {}
        if not self.log:
            step = _round_step((self.high - self.low) / most)
            first = math.ceil(self.low / step)
            last = math.floor(self.high / step)
            return {k * step: number(float(f"{k * step:.6g}")) for k in range(first, last + 1)}
        every = max(1, math.ceil((self.high - self.low) / most))
        first = math.ceil((self.floor + 0.16 * (self.high - self.low) if self.zero else self.low) / every)
        found: dict[float, str] = {
            k * every: _power(k * every) for k in range(first, math.floor(self.high / every) + 1)
        }
        return {**({self.floor: "0"} if self.zero else {}), **found}


def _round_step(least: float) -> float:
    size = 10.0 ** math.floor(math.log10(least))
    return next(size * factor for factor in (1, 2, 5, 10) if size * factor >= least)


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}" if -2 <= exponent <= 3 else "10" + str(exponent).translate(SUPERSCRIPT)


def _runs(values: list[float]) -> list[list[int]]:
    """Steps in a row whose values are finite."""
    found: list[list[int]] = []
    for step, value in enumerate(values):
        if math.isfinite(value):
            if found and found[-1][-1] == step - 1:
                found[-1].append(step)
            else:
                found.append([step])
    return found
