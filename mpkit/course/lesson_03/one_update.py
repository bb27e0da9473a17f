"""The upper part of lesson 03's picture: a weight on its format's grid, the arrow of an update, and where it ends."""

import math
from typing import Any

from matplotlib.axes import Axes

from mpkit.course.arithmetic.scalar import dense, marks
from mpkit.course.lesson_03.landing import KEEPERS, Keeper, Landing
from mpkit.course.lesson_03.number_line_words import number, spacings
from mpkit.course.pictures.canvas import Frame
from mpkit.course.pictures.comparison import RUNS
from mpkit.course.pictures.style import INK

# As in the picture of the real runs, where FP32 is black and the four keepers come in this order.
LOOK: dict[str, tuple[str, Any, str]] = dict(zip(KEEPERS, RUNS, strict=False))
CATCH, CATCH_TEXT = "#F8E3D4", "#8A3500"  # the stretch that is rounded back to the weight
FAINT, GRID = "#5E5E5E", "#BBBBBB"
BEHIND, AHEAD = 1.7, 3.3  # the number line, in spacings from the weight
CATCH_ROOM = 212  # pixels that the words on the stretch need
LABEL_ROOM = 92  # pixels that one number below the line needs
FINEST = 6  # pixels between two values that are drawn one by one


class OneUpdate:
    """The upper part: marks, borders, the arrow of the update, and where it ends."""

    def __init__(self, frame: Frame, axes: Axes, landing: Landing, keeper: Keeper) -> None:
        self.frame, self.axes, self.at, self.keeper = frame, axes, landing, keeper
        self.color = LOOK[keeper][0]
        zoom = max(1.0, landing.share / (AHEAD - 0.7))
        self.unit = landing.gap * 2.0 ** math.ceil(math.log2(zoom))
        self.pixels = frame.place(axes, (1, 0))[0] - frame.place(axes, (0, 0))[0]  # a unit of the axis

    def draw(self) -> None:
        """Everything, from the back to the front."""
        self._catch()
        self._marks()
        self._update()
        if self.keeper == "stochastic":
            self._draw_lots()
        else:
            self._round()

    def x(self, value: float) -> float:
        """Where a value stands; an update that makes the weight smaller still goes to the right."""
        return math.copysign(1.0, self.at.update) * (value - self.at.weight) / self.unit

    def _catch(self) -> None:
        """The stretch that is rounded back to the weight."""
        left, right = sorted(map(self.x, self.at.borders))
        if self.keeper == "stochastic" or (right - left) * self.pixels < 4:
            return
        self.frame.polygon(self.axes, [(left, -0.36), (left, 0.36), (right, 0.36), (right, -0.36)], CATCH)
        place, anchor = (left - 0.03, 0.3), "rm"
        if (BEHIND + left) * self.pixels < CATCH_ROOM:  # towards zero: no room at the left, so above, before the arrow
            place, anchor = (-0.05, 0.4), "rb"
        self.frame.text(place, "everything in here is rounded back", CATCH_TEXT, 12, False, anchor, self.axes)
        for border in (left, right):
            self.frame.line(self.axes, [(border, -0.36), (border, 0.36)], CATCH_TEXT, 1.0, (0, (3, 2)))

    def _marks(self) -> None:
        """The format's own values, and numbers under as many as have room."""
        sign = math.copysign(self.unit, self.at.update)
        left, right = sorted((self.at.weight - BEHIND * sign, self.at.weight + AHEAD * sign))
        finest = FINEST * self.unit / self.pixels
        values = marks(left, right, self.at.fmt, finest)
        self._crowd(dense(self.at.fmt, finest))
        places = [(self.x(value), 0.0) for value in values]
        self.frame.marks(self.axes, places, "|", INK, size=28)
        taken: list[float] = []
        for value in sorted({self.at.weight, *values}, key=lambda v: abs(v - self.at.weight)):
            x = self.x(value)
            if all(abs(x - other) * self.pixels >= LABEL_ROOM for other in taken) and -1.6 < x < AHEAD - 0.2:
                taken.append(x)
                self.frame.text((x, -0.92), number(value, self.at), INK, 13, value == self.at.weight, "ma", self.axes)

    def _crowd(self, end: float) -> None:
        """The stretch around zero where the values stand too close together to draw them."""
        left, right = (min(max(x, -BEHIND), AHEAD) for x in sorted((self.x(-end), self.x(end))))
        if (right - left) * self.pixels < 1:
            return
        self.frame.polygon(self.axes, [(left, -0.16), (left, 0.16), (right, 0.16), (right, -0.16)], GRID)
        if (right - left) * self.pixels > 200:
            self.frame.text(
                ((left + right) / 2, -0.24), "too many values to draw them", FAINT, 12, False, "ma", self.axes
            )

    def _update(self) -> None:
        """The weight and the arrow of its update."""
        tip = self.x(self.at.target)
        self.frame.line(self.axes, [(0.0, 0.0), (0.0, 0.62), (tip, 0.62)], INK, 1.8)
        self.frame.line(self.axes, [(tip, 0.62), (tip, 0.0)], INK, 1.0, (0, (2, 2)))
        back = min(0.05, tip)
        self.frame.polygon(self.axes, [(tip, 0.62), (tip - back, 0.7), (tip - back, 0.54)], INK)
        self.frame.marks(self.axes, [(0.0, 0.0)], "o", INK, 11)
        self.frame.marks(self.axes, [(tip, 0.0)], "d", "#FFFFFF", 11)
        self.frame.text((0.0, 0.68), "weight", INK, 13, False, "rb", self.axes)
        words, near = f"update {self.at.update:.3g}: {spacings(self.at.share)}", tip < AHEAD / 2
        place, anchor = ((tip + 0.03, 0.62), "lm") if near else ((tip, 0.76), "rb")  # no room on the right
        self.frame.text(place, words, INK, 13, False, anchor, self.axes)

    def _round(self) -> None:
        """From the target to the value that is stored; and what is kept of the rest."""
        tip, end = self.x(self.at.target), self.x(self.at.nearest)
        if not math.isfinite(end):
            return
        self._arc(tip, end, 2.4)
        self.frame.marks(self.axes, [(end, -0.66)], LOOK[self.keeper][2], self.color, 11)
        words = "stored" if end != 0 else "stored: the weight as it was"
        self.frame.text((end - 0.06, -0.67), words, INK, 13, end == 0, "rm", self.axes)
        if self.keeper == "Kahan" and tip != end:
            rest = f"the rest: 0 in {self.at.fmt}" if self.at.rest == 0 else "the rest: kept"
            self.frame.line(self.axes, [(end, -0.66), (tip, -0.66)], self.color, 5.0)
            self.frame.text((max(tip, end) + 0.06, -0.67), rest, INK, 13, True, "lm", self.axes)
        if self.keeper == "FP32 master":
            self.frame.marks(self.axes, [(tip, 0.0)], "d", self.color, 13)
            self.frame.text((tip + 0.05, -0.46), "FP32 master", INK, 13, True, "lm", self.axes)

    def _draw_lots(self) -> None:
        """Both neighbours, with their chances."""
        tip = self.x(self.at.target)
        further, nearer = sorted((self.at.low, self.at.high), key=lambda v: -abs(v - self.at.weight))
        for value, chance in ((nearer, 1 - self.at.probability), (further, self.at.probability)):
            end = self.x(value)
            if chance > 0 and math.isfinite(end):
                self._arc(tip, end, 1.2 + 3 * chance)
                side = -1 if value == nearer else 1
                self.frame.marks(self.axes, [(end, -0.66)], LOOK[self.keeper][2], self.color, 11)
                words = f"{100 * chance:.3g} %"
                self.frame.text((end + 0.06 * side, -0.67), words, INK, 14, True, "lm" if side > 0 else "rm", self.axes)

    def _arc(self, start: float, end: float, width: float) -> None:
        self.frame.line(self.axes, [(start, -0.08), (start, -0.2), (end, -0.46), (end, -0.6)], self.color, width)
