"""Every rule's scale, step by step, against the window of scales that are right: the picture of lesson 05."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from mpkit.course.lesson_05.rule_choice import RULES, WHAT
from mpkit.course.lesson_05.rule_race import Lap
from mpkit.course.lesson_05.scaler_race_words import numbers
from mpkit.course.pictures.canvas import Canvas, Frame, counts
from mpkit.course.pictures.style import FAINT, INK, ZONE, ZONE_TEXT, look, power
from mpkit.course.recorded.history import GradientHistory

SIZE = (1040, 460)  # pixels: with its controls it fits into a window of 1280 x 800
LOWEST, HIGHEST = -20, 46  # of log2 scale; what lies beyond is drawn at the edge, the table has the number

# A rule keeps its looks whoever else is raced, and no two share a colour, a dash or a marker.
_LOOK = dict(zip(RULES, (
    ("#BD4D00", (0, (5, 2)), "s"), ("#7A3E9D", (0, (1, 1)), "^"), ("#0070C8", (0, (3, 1, 1, 1)), "v"),
    ("#00795A", (0, (7, 2)), "D"), ("#5A5A5A", (0, (2, 2)), "P"), ("#955E00", (0, (7, 2, 1, 2)), "X"),
    ("#C2187A", (0, (3, 1, 1, 1, 1, 1)), "*"), ("#644200", (0, (9, 3)), "o"), ("#5B6E00", (0, (4, 1)), "<"),
    ("#3D4DB8", (0, (2, 1, 5, 1)), ">"), ("#B00020", (0, (1, 2)), "p"), ("#007F86", (0, (6, 1, 2, 1)), "h"),
), strict=True))  # fmt: skip

STRETCHED, SHARE = 40, 0.42  # the first steps, in which rules look for the window, have this share of the axis

_COLUMNS = {"steps lost": 222, "flushed": 288, "end": 348}  # right edges, in pixels
LEGEND = ("×: a lost step. +: one taken with Inf.", "Flushed: mean over the steps that were taken.")
RECORDED_LEGEND = ("End: the last scale. The title says where most", "of the last tenth of the steps was.")
WINDOW, ROOM = "window: scales that fit", 2.5  # room in powers of two
LIVE_WINDOW = "window of the FP32 run"
WORDS_FROM = 0.64  # of the axis: there the words for the window begin
FREE = 3.0  # powers of two between these words and the next line
MARKERS = 7  # of a line
ROW = 38  # pixels, of the table
LIVE_LEGEND = ("Loss: training loss, mean of the last ten steps.", "At FP32's loss: within 5% of it.",
               "After lost steps a rule's own window lags behind", "the FP32 run's.")  # fmt: skip


@lru_cache(maxsize=8)
def _edges(history: GradientHistory) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the window, as exponents of 2 (steps,)."""
    return history.window()


def _heights(lap: Lap) -> np.ndarray:
    """The rule's scales as exponents of 2 (steps,), inside the picture."""
    with np.errstate(divide="ignore"):
        heights: np.ndarray = np.clip(np.log2(lap.scales), LOWEST, HIGHEST)
    return heights


class _Axis:
    """Where a step lies on an axis of `steps` steps, from 0 to 1. A long one has its first steps stretched."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.split = STRETCHED if steps > 4 * STRETCHED else 0
        self._known = ([0, self.split, steps], [0, SHARE, 1]) if self.split else ([0, steps], [0, 1])

    def __call__(self, step: Any) -> Any:
        return np.interp(step, *self._known)

    def ticks(self) -> dict[float, str]:
        """Labels by place."""
        early = range(0, self.split + 1, 10)
        late = [step for step in counts(self.steps) if step > 3 * self.split or not self.split]
        return {float(self(step)): f"{step:.0f}" for step in (*early, *late)}


class ScalerRaceFigure:
    """One canvas for all histories: `show` draws the window of one and the rules' lines in it."""

    def __init__(self) -> None:
        with look():
            self.canvas = Canvas(
                SIZE, [INK, FAINT, *ZONE.values(), *ZONE_TEXT.values(), *(run[0] for run in _LOOK.values())]
            )
            self.page = self.canvas.figure.add_axes((0, 0, 1, 1), xlim=(0, SIZE[0]), ylim=(SIZE[1], 0))
            self.page.set_axis_off()
            self.axes = ax = self.canvas.figure.add_axes(
                (0.062, 0.117, 0.575, 0.735), xlim=(0, 1), ylim=(LOWEST, HIGHEST)
            )
            ticks = range(-16, HIGHEST, 8)
            ax.set_yticks(list(ticks), [power(k) for k in ticks])
            ax.tick_params(labelsize=11, bottom=False, labelcolor=INK)
            ax.set_xticks([0], [" "])  # keeps the room
            ax.set_ylabel("loss scale", fontsize=12, labelpad=1)
            self.canvas.freeze()

    def show(
        self, history: GradientHistory, laps: Mapping[str, Lap], title: str, about: str = "", steps: int | None = None
    ) -> Frame:
        """The picture for these laps, by the rules' names, on the first `steps` of a history; None: on all.

        `about`: the line below the title; else where the history's gradients come from.
        """
        frame, steps = self.canvas.frame(), steps or len(history)
        at = _Axis(steps)
        self._window(frame, history, at)
        frame.text((12, 10), title, size=19, bold=True)
        frame.text((12, 42), about or f"Gradients: {history.recipe}", size=13, color=FAINT)
        trained = any(lap.loss is not None for lap in laps.values())
        for number, (name, lap) in enumerate(laps.items()):
            self._line(frame, at, lap, (number + 0.5) / len(laps), *_LOOK[name])
        self._zone_words(frame, history, at, laps, LIVE_WINDOW if trained else WINDOW)
        self._table(frame, laps)
        return frame

    def _window(self, frame: Frame, history: GradientHistory, at: _Axis) -> None:
        x = at(np.arange(at.steps + 1))
        for name, end, edge in zip(("flushed", "overflow"), (LOWEST, HIGHEST), _edges(history), strict=True):
            inside = np.column_stack([x, np.append(edge[: at.steps], edge[at.steps - 1])])
            frame.polygon(self.axes, np.vstack([[(0, end)], inside, [(1, end)]]), ZONE[name])
            frame.line(self.axes, inside, ZONE_TEXT[name], width=1.1)
        if at.split:
            frame.line(self.axes, [(SHARE, LOWEST), (SHARE, HIGHEST)], FAINT, width=1.1, dash=(0, (2, 3)))
        frame.ticks(self.axes, "x", at.ticks())
        label = f"training step; the first {at.split} are stretched" if at.split else "training step"
        frame.text((0.5, LOWEST - 8.4), label, size=15, anchor="mm", axes=self.axes)

    def _zone_words(
        self, frame: Frame, history: GradientHistory, at: _Axis, laps: Mapping[str, Lap], window: str
    ) -> None:
        frame.text((0.02, HIGHEST - 2), "too large: the largest gradient overflows, the step is skipped",
                   color=ZONE_TEXT["overflow"], size=13, anchor="lm", axes=self.axes)  # fmt: skip
        frame.text((0.02, LOWEST + 2), "too small: more than 5% of the gradients are flushed to zero",
                   color=ZONE_TEXT["flushed"], size=13, anchor="lm", axes=self.axes)  # fmt: skip
        # The words end at the right, where few lines are still on their way.
        below = at(np.arange(at.steps)) > WORDS_FROM
        low, high = (edge[: at.steps][below] for edge in _edges(history))
        if high.min() - low.max() > 2 * ROOM:
            lines = np.concatenate([[LOWEST], *(_heights(lap)[below[: len(lap.scales)]] for lap in laps.values())])
            places = np.arange(low.max() + ROOM, high.min() - ROOM, 0.5)
            far = np.abs(places[:, None] - np.unique(lines)).min(axis=1)
            y = places[np.argmax(np.minimum(far, FREE))]
            if far.max() < FREE / 2:  # no room between the lines
                box = [(x, y + up) for x, up in ((0.69, -1.5), (0.69, 1.5), (0.985, 1.5), (0.985, -1.5))]
                frame.polygon(self.axes, np.array(box), "#FFFFFF")
            frame.text((0.98, y), window, bold=True, size=13, anchor="rm", axes=self.axes)

    def _line(
        self, frame: Frame, at: _Axis, lap: Lap, turn: float, color: str, dash: object, marker: str
    ) -> None:  # turn: from 0 to 1, so that rules that share a line show their markers in turn
        if not len(lap.scales):  # a live race before its first step
            return
        height = _heights(lap)
        turns = np.flatnonzero(np.diff(height)) + 1
        x = np.concatenate([[0], np.repeat(turns, 2), [len(height)]])
        y = np.repeat(height[np.concatenate([[0], turns])], 2)
        way = np.column_stack([at(x), y])
        frame.line(self.axes, way, "#FFFFFF", width=4.2)  # so that it stands out from the zones, too
        frame.line(self.axes, way, color, width=2.2, dash=dash)  # type: ignore[arg-type]
        lost = np.flatnonzero(lap.skipped)
        if len(lost):
            frame.marks(self.axes, np.column_stack([at(lost + 0.5), height[lost]]), "x", color, size=6, edge=color)
        spoiled = np.flatnonzero(lap.overflowed & ~lap.skipped)
        if len(spoiled):
            place = np.column_stack([at(spoiled + 0.5), height[spoiled]])
            frame.marks(self.axes, place, "+", color, size=10, edge=color)
        some = self._marked(at, len(height), turn)
        frame.marks(self.axes, np.column_stack([at(some), height[some]]), marker, color, size=8)

    @staticmethod
    def _marked(at: _Axis, steps: int, turn: float) -> np.ndarray:
        """Some of the first `steps` steps, evenly on the axis, from `turn` (0 to 1) of a distance on."""
        places = (np.arange(MARKERS) + turn) / MARKERS
        some = np.round(np.interp(places, at(np.arange(at.steps + 1)), np.arange(at.steps + 1))).astype(int)
        return some[some < steps]

    def _table(self, frame: Frame, laps: Mapping[str, Lap]) -> None:
        left, top = 0.662 * SIZE[0], 0.155 * SIZE[1]
        trained = any(lap.loss is not None for lap in laps.values())
        columns = {"lost": 184, "flushed": 240, "end": 298, "loss": 350} if trained else _COLUMNS
        frame.text((left, top), "rule", size=13, color=FAINT)
        for head, x in columns.items():
            frame.text((left + x, top), head, size=13, color=FAINT, anchor="ra")
        for number, (name, lap) in enumerate(laps.items()):
            y = top + 34 + ROW * number
            frame.marks(self.page, [(left + 7, y)], _LOOK[name][2], _LOOK[name][0], size=10)
            frame.text((left + 20, y), name, size=14, anchor="lm")
            for words, x in zip(numbers(lap), columns.values(), strict=False):
                frame.text((left + x, y), words, anchor="rm", size=14)
            taken = f"took {lap.spoiled_steps} steps with Inf" if lap.spoiled_steps else ""
            below = (taken or WHAT[name]) if lap.gave_up is None else f"gave up at step {lap.gave_up}"
            frame.text((left + 20, y + 16), below, size=12, color=FAINT, anchor="lm")
        y = top + 48 + ROW * len(laps)
        for number, words in enumerate((*LEGEND, *(LIVE_LEGEND if trained else RECORDED_LEGEND))):
            frame.text((left, y + 16 * number), words, size=12, color=FAINT)
