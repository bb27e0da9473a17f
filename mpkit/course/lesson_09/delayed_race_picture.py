"""Magnitudes over the training steps in the window of delayed scaling, and the errors: it computes nothing."""

import math

import numpy as np

from mpkit import E4M3
from mpkit.course.lesson_09.delayed_view import Race
from mpkit.course.lesson_09.delayed_words import Rows
from mpkit.course.pictures.canvas import Canvas, Frame, counts
from mpkit.course.pictures.style import EDGE, FAINT, GRADIENT, INK, ZONE, ZONE_TEXT, look, percent, power, readable

SIZE = (1040, 524)  # pixels
DELAYED, CURRENT = "#D55E00", "#0072B2"  # Okabe and Ito's vermillion and blue
DASH = (0, (5, 2))
LEFT, COLUMNS = 690, (255, 335)  # left edge of the table; right edges of its numbers, from there
NORMAL = math.log2(E4M3.max / E4M3.smallest_normal)  # octaves from the largest value down to the last of full precision
ZERO = math.log2(E4M3.max / E4M3.flush_at)  # and down to what becomes 0
IN_ZONE = {"subnormal": "#C7A54A", "flushed": "#C4714A"}  # the magnitudes' colour there: a zone shows through them
ERRORS = (0.01, 1.6)  # the axis of errors


class DelayedRaceFigure:
    """A picture that shows one `Race` at a time."""

    def __init__(self) -> None:
        with look():
            colors = [
                INK,
                FAINT,
                EDGE,
                GRADIENT,
                DELAYED,
                CURRENT,
                readable(DELAYED),
                readable(CURRENT),
                *IN_ZONE.values(),
                *ZONE.values(),
                *ZONE_TEXT.values(),
            ]
            self.canvas = Canvas(SIZE, colors)
            figure = self.canvas.figure
            self.page = figure.add_axes((0, 0, 1, 1), xlim=(0, SIZE[0]), ylim=(SIZE[1], 0))
            self.page.set_axis_off()
            self.window = figure.add_axes((0.08, 0.4, 0.563, 0.455))
            self.window.set_yticks([])
            self.window.set_ylabel("magnitude", fontsize=11, labelpad=38)
            self.errors = figure.add_axes((0.08, 0.12, 0.563, 0.2), yscale="log", ylim=ERRORS)
            self.errors.set_yticks([0.01, 0.1, 1], ["1%", "10%", "100%"])
            self.errors.set_yticks([], minor=True)
            self.errors.tick_params(labelsize=10)
            self.errors.set_ylabel("relative error", fontsize=11, labelpad=4)
            self.errors.set_xlabel("training step", fontsize=11, labelpad=20)
            for axes in (self.window, self.errors):
                axes.set_xticks([])
            self.canvas.freeze()

    def show(self, shown: Race, name: str, title: str, subtitle: str, table: Rows) -> Frame:
        """The window with the magnitudes in it, the errors, and the table."""
        self.frame = frame = self.canvas.frame()
        steps = np.arange(len(shown.amax))
        low = math.floor(np.log2(min(shown.limit.min() / 2**ZERO, shown.small.min()))) - 3
        top = np.log2(max(shown.limit.max(), shown.amax.max()))
        high = math.ceil(top + 0.12 * (top - low))
        self.window.set(xlim=(-1, len(steps)), ylim=(low, high))
        self.errors.set_xlim(-1, len(steps))
        self._zones(shown, steps, low, high)
        self._magnitudes(shown, steps)
        self._errors(shown, steps)
        for axes in (self.window, self.errors):
            frame.ticks(axes, "x", {step: f"{step:.0f}" for step in counts(len(steps) - 1)}, 12)
        every = max(math.ceil((high - low) / 32) * 4, 1)
        frame.ticks(self.window, "y", {k: power(k) for k in range(-(-low // every) * every, high + 1, every)}, 13)
        frame.text((12, 10), title, size=19, bold=True)
        frame.text((12, 42), subtitle, color=FAINT, size=14)
        self._table(table, name)
        return frame

    def _zones(self, shown: Race, steps: np.ndarray, low: float, high: float) -> None:
        top = _stairs(steps, np.log2(shown.limit))
        bottom, zero = top - (0, NORMAL), top - (0, ZERO)
        first, last = top[0, 0], top[-1, 0]
        self.frame.polygon(self.window, np.vstack([[(first, high)], top, [(last, high)]]), ZONE["overflow"])
        self.frame.polygon(self.window, np.vstack([[(first, low)], bottom, [(last, low)]]), ZONE["subnormal"])
        self.frame.polygon(self.window, np.vstack([[(first, low)], zero, [(last, low)]]), ZONE["flushed"])
        for place, words, zone, anchor in (
            ((0, high - 0.4), "clipped", "overflow", "la"),
            ((0, low + 0.4), "becomes 0", "flushed", "ld"),
        ):  # fmt: skip
            self.frame.text(place, words, ZONE_TEXT[zone], 13, True, anchor, self.window)
        if shown.factor > 1:
            for step, words in ((shown.up, f"×{shown.factor}"), (shown.down, f"÷{shown.factor}")):
                for axes in (self.window, self.errors):
                    self.frame.line(axes, [(step - 0.5, y) for y in axes.get_ylim()], FAINT, 1.2, (0, (1, 2)))
                self.frame.text((step + 0.2, high - 0.4), words, INK, 13, True, "la", self.window)

    def _magnitudes(self, shown: Race, steps: np.ndarray) -> None:
        largest, limit = np.log2(shown.amax), np.log2(shown.limit)
        top, least, edge = (_stairs(steps, values) for values in (largest, np.log2(shown.small), limit))
        self.frame.polygon(self.window, np.vstack([top, least[::-1]]), GRADIENT)
        cut = np.column_stack([edge[:, 0], np.maximum(top[:, 1], edge[:, 1])])
        self.frame.polygon(self.window, np.vstack([cut, edge[::-1]]), ZONE_TEXT["overflow"])
        for below, zone in ((NORMAL, "subnormal"), (ZERO, "flushed")):  # the part of the band that lies in a zone
            upper = np.clip(edge[:, 1] - below, least[:, 1], top[:, 1])
            part = np.column_stack([edge[:, 0], upper])
            self.frame.polygon(self.window, np.vstack([part, least[::-1]]), IN_ZONE[zone])
            self.frame.line(self.window, edge - (0, below), ZONE_TEXT[zone], 1.6)
        above, below = limit[0] - largest[:9].max(), np.log2(shown.small[:9].min()) - limit[0] + NORMAL
        place, anchor = (limit[0] - 0.6, "la") if above > below else (limit[0] - NORMAL + 0.4, "ld")
        self.frame.text((0, place), "all bits", INK, 13, True, anchor, self.window)
        self.frame.text((len(steps) - 2, edge[-1, 1] - NORMAL - 0.3), "fewer bits", INK, 13, True,
                        "ra", self.window)  # fmt: skip
        self.frame.line(self.window, top, INK, 1.6)
        self.frame.line(self.window, edge, DELAYED, 2.2, DASH)
        some = slice(3, None, 8)
        self.frame.marks(self.window, np.column_stack([steps, largest])[some], "o", INK, 5)
        self.frame.marks(self.window, np.column_stack([steps, limit])[some], "s", DELAYED, 7)
        cut = np.flatnonzero(shown.clipped > 0)
        high = np.full(len(cut), self.window.get_ylim()[1])
        self.frame.marks(self.window, np.column_stack([cut, high]), "v", ZONE_TEXT["overflow"], 7)

    def _errors(self, shown: Race, steps: np.ndarray) -> None:
        for values, color, dash, marker, start in (
            (shown.current, CURRENT, "-", "o", 7), (shown.error, DELAYED, DASH, "s", 3),
        ):  # fmt: skip
            points = np.column_stack([steps, np.clip(values, *ERRORS)])
            self.frame.line(self.errors, points, color, 2, dash)
            self.frame.marks(self.errors, points[start::8], marker, color, 7)
        if shown.clipped[shown.up] > 0.005 and shown.factor > 1:
            self.frame.marks(self.errors, [(shown.up, shown.error[shown.up])], "s", DELAYED, 9)
            words = f"{percent(float(shown.clipped[shown.up]))} clipped"
            self.frame.text((shown.up + 1.5, 1.1), words, ZONE_TEXT["overflow"], 13, True, "lm", self.errors)

    def _table(self, table: Rows, name: str) -> None:
        frame, top = self.frame, 92
        frame.text((LEFT, top), name, size=14, bold=True)
        for x, head, color, marker in zip(COLUMNS, ("delayed", "current"), (DELAYED, CURRENT), "so", strict=True):
            frame.text((LEFT + x, top), head, readable(color), 14, True, "ra")
            frame.marks(self.page, [(LEFT + x - 8, top + 28)], marker, color, 8)
        for row, (what, *numbers) in enumerate(table):
            y = top + 54 + 28 * row
            frame.text((LEFT, y), what, size=13, anchor="lm")
            for x, words in zip(COLUMNS, numbers, strict=True):
                frame.text((LEFT + x, y), words, size=14, anchor="rm")
        for row, (marker, color, words) in enumerate((
            ("o", INK, "the largest magnitude of the step"),
            ("s", GRADIENT, "band: magnitudes, down to the smallest 1%"),
            ("s", DELAYED, "dashes: the limit, which the history sets"),
            ("v", ZONE_TEXT["overflow"], "above it: clipped; ▾ on top: a step with any"),
        )):  # fmt: skip
            y = 366 + 22 * row
            frame.marks(self.page, [(LEFT + 6, y)], marker, color, 8)
            frame.text((LEFT + 20, y), words, FAINT, 12, anchor="lm")
        for row, words in enumerate(
            ("The limit of the current scale is the largest", "magnitude itself: it never clips.")
        ):
            frame.text((LEFT, 460 + 17 * row), words, FAINT, 12)


def _stairs(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A line that is level during each step."""
    return np.column_stack([np.column_stack([steps - 0.5, steps + 0.5]).ravel(), np.repeat(values, 2)])
