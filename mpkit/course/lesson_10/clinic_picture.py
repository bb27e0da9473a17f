"""A patient's curves: the loss on the left, other signs on the right; after the cure both runs. It computes nothing."""

import math
import textwrap
from typing import Any

import numpy as np

from mpkit.course.lesson_10.clinic_words import bad_steps, course, shown, skipped
from mpkit.course.lesson_10.in_words import number
from mpkit.course.lesson_10.waiting_room import Curves
from mpkit.course.pictures.canvas import Canvas, Frame, counts
from mpkit.course.pictures.style import EDGE, FAINT, INK, SUPERSCRIPT, look, readable

SIZE = (1040, 384)  # pixels
SICK, CURED = "#D55E00", "#0072B2"  # Okabe and Ito's vermillion and blue
DASH = (0, (5, 2))
TOP, BOTTOM = 106, 340  # of the left axes
LEFT, RIGHT = (70, 520), (610, 1022)
MANY = 30  # a ratio from which an axis is logarithmic


class ClinicFigure:
    """A picture that shows one patient at a time."""

    def __init__(self) -> None:
        with look():
            self.canvas = Canvas(SIZE, [INK, FAINT, EDGE, SICK, CURED, readable(SICK), readable(CURED)])
            self.page = self._axes(0, SIZE[0], 0, SIZE[1])
            self.page.set(xlim=(0, SIZE[0]), ylim=(SIZE[1], 0))
            half = (BOTTOM - TOP - 36) / 2
            self.loss, self.alone = self._axes(*LEFT, TOP, BOTTOM), self._axes(LEFT[0], RIGHT[1], TOP, BOTTOM)
            self.one = self._axes(*RIGHT, TOP, BOTTOM)
            self.two = [self._axes(*RIGHT, TOP, TOP + half), self._axes(*RIGHT, BOTTOM - half, BOTTOM)]
            self.canvas.freeze()

    def _axes(self, left: float, right: float, top: float, bottom: float) -> Any:
        wide, high = SIZE
        axes = self.canvas.figure.add_axes(
            (left / wide, 1 - bottom / high, (right - left) / wide, (bottom - top) / high)
        )
        axes.set_axis_off()
        return axes

    def show(self, sick: Curves, cured: Curves | None, title: str, subtitle: str, points: str) -> Frame:
        """The curves of the sick run, and over them those of the cured one, if there is one."""
        self.frame = frame = self.canvas.frame()
        frame.text((12, 8), title, size=19, bold=True)
        for row, line in enumerate(textwrap.wrap(subtitle, 124)[:2]):
            frame.text((12, 38 + 20 * row), line, color=FAINT, size=14)
        names = shown(sick)
        places = [self.one] if len(names) == 1 else self.two
        first = self.loss if names else self.alone
        for axes, name in ((first, "loss"), *zip(places, names, strict=False)):
            self._curve(axes, name, sick[name], cured.get(name) if cured else None)
        self._skipped(first, sick)
        self._legend(cured is not None, points)
        return frame

    def _curve(self, axes: Any, name: str, sick: list[float], cured: list[float] | None) -> None:
        both = sick + (cured or [])
        scale = _Scale([value for value in both if math.isfinite(value)])
        axes.set(xlim=(-0.5, len(sick) - 0.5), ylim=(scale.low, scale.high))
        self._box(axes)
        heading = course(name, cured if cured else sick)
        if cured and (bad := bad_steps(sick)):
            heading += f" (was {number(sick[bad[0]])} from step {bad[0]})"
        (x, y) = self.frame.place(axes, (-0.5, scale.high))
        self.frame.text((x, y - 6), heading, INK, 13, True, "ls")
        self.frame.ticks(axes, "y", scale.ticks(3 if axes in self.two else 5), 12)
        if axes is not self.two[0]:
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

    def _legend(self, cured: bool, points: str) -> None:
        frame, y = self.frame, 371
        frame.text((LEFT[0], y), "step", FAINT, 12, anchor="lm")
        x = LEFT[0] + 48
        for marker, color, words in (
            ("s", SICK, "as it came"), ("o", CURED, "cured"), ("X", SICK, "Inf or NaN"), ("v", FAINT, "step skipped"),
        ):  # fmt: skip
            if words != "cured" or cured:
                frame.marks(self.page, [(x, y)], marker, color, 8)
                frame.text((x + 10, y), words, INK, 12, anchor="lm")
                x += 100
        frame.text((SIZE[0] - 14, y), points, INK, 13, True, anchor="rm")


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
