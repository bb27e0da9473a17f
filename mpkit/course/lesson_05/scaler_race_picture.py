"""Every rule's scale, step by step, against the window of scales that are right: the picture of lesson 05."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from mpkit.course.lesson_05.rule_choice import RULES, WHAT
from mpkit.course.lesson_05.rule_race import Lap
from mpkit.course.lesson_05.scaler_race_words import numbers
from mpkit.course.pictures.canvas import Canvas, Frame, counts
from mpkit.course.pictures.comparison import RUNS
from mpkit.course.pictures.style import FAINT, INK, ZONE, ZONE_TEXT, look, power
from mpkit.course.recorded.history import GradientHistory

SIZE = (1040, 460)  # pixels: with its controls it fits into a window of 1280 x 800
LOWEST, HIGHEST = -20, 46  # of log2 scale; what lies beyond is drawn at the edge, the table has the number

# A rule keeps its looks whoever else is raced: a marker of its own, and a colour that few others have.
_LOOK = {
    name: (*RUNS[place % len(RUNS)][:2], marker)
    for place, (name, marker) in enumerate(zip(RULES, "s^vDPX*o<>ph", strict=True))
}

_COLUMNS = {"steps lost": 222, "flushed": 288, "end": 348}  # right edges, in pixels
LEGEND = ("×: a lost step. +: one taken with Inf. Flushed:", "mean over the steps that were taken. Doing well:",
          "at most 1% of the steps lost, 5% flushed, no Inf.")  # fmt: skip
WINDOW, ROOM = "the window: a scale in the white band is right", 2.5  # room in powers of two
LIVE_WINDOW = "window of the FP32 run; after lost steps a rule's own lags behind"
ROW = 38  # pixels, of the table
LIVE_LEGEND = ("Loss: training loss, mean of the last ten steps.",)


@lru_cache(maxsize=8)
def _edges(history: GradientHistory) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the window, as points (steps, 2)."""
    low, high = (np.column_stack([np.arange(len(history)), end]) for end in history.window())
    return low, high


class ScalerRaceFigure:
    """One canvas for all histories: `show` draws the window of one and the rules' lines in it."""

    def __init__(self) -> None:
        with look():
            self.canvas = Canvas(SIZE, [INK, FAINT, *ZONE.values(), *ZONE_TEXT.values(), *(run[0] for run in RUNS)])
            self.page = self.canvas.figure.add_axes((0, 0, 1, 1), xlim=(0, SIZE[0]), ylim=(SIZE[1], 0))
            self.page.set_axis_off()
            self.axes = ax = self.canvas.figure.add_axes((0.062, 0.117, 0.575, 0.735), ylim=(LOWEST, HIGHEST))
            ticks = range(-16, HIGHEST, 8)
            ax.set_yticks(list(ticks), [power(k) for k in ticks])
            ax.tick_params(labelsize=11, bottom=False, labelcolor=INK)
            ax.set_xticks([0], [" "])  # keeps the room
            ax.set_xlabel("training step", fontsize=12, labelpad=2)
            ax.set_ylabel("loss scale", fontsize=12, labelpad=1)
            self.canvas.freeze()

    def show(
        self, history: GradientHistory, laps: Mapping[str, Lap], title: str, about: str = "", steps: int | None = None
    ) -> Frame:
        """The picture for these laps, by the rules' names, on the first `steps` of a history; None: on all.

        `about`: the line below the title; else where the history's gradients come from.
        """
        frame, steps = self.canvas.frame(), steps or len(history)
        self.axes.set_xlim(0, steps)
        self._window(frame, history, steps)
        frame.text((12, 10), title, size=19, bold=True)
        frame.text((12, 42), about or f"Gradients: {history.recipe}", size=13, color=FAINT)
        trained = any(lap.loss is not None for lap in laps.values())
        self._zone_words(frame, history, steps, LIVE_WINDOW if trained else WINDOW)
        for name, lap in laps.items():
            self._line(frame, lap, *_LOOK[name])
        self._table(frame, laps)
        return frame

    def _window(self, frame: Frame, history: GradientHistory, steps: int) -> None:
        for name, end, edge in zip(("flushed", "overflow"), (LOWEST, HIGHEST), _edges(history), strict=True):
            inside = np.vstack([edge[:steps], [(steps, edge[steps - 1, 1])]])
            frame.polygon(self.axes, np.vstack([[(0, end)], inside, [(steps, end)]]), ZONE[name])
            frame.line(self.axes, inside, ZONE_TEXT[name], width=1.1)
        frame.ticks(self.axes, "x", {step: f"{step:.0f}" for step in counts(steps)})

    def _zone_words(self, frame: Frame, history: GradientHistory, steps: int, window: str) -> None:
        x = 0.02 * steps
        frame.text((x, HIGHEST - 2), "too large: the largest gradient overflows, the step is skipped",
                   color=ZONE_TEXT["overflow"], size=13, anchor="lm", axes=self.axes)  # fmt: skip
        frame.text((x, LOWEST + 2), "too small: more than 5% of the gradients are flushed to zero",
                   color=ZONE_TEXT["flushed"], size=13, anchor="lm", axes=self.axes)  # fmt: skip
        last = slice(steps // 2, steps)  # the words end at the right, where few lines are still on their way
        low, high = (edge[last, 1] for edge in _edges(history))
        if high.min() - low.max() > 2 * ROOM:
            frame.text((0.98 * steps, low.max() + ROOM), window, bold=True, size=13, anchor="rm", axes=self.axes)

    def _line(self, frame: Frame, lap: Lap, color: str, dash: object, marker: str) -> None:
        if not len(lap.scales):  # a live race before its first step
            return
        with np.errstate(divide="ignore"):
            height = np.clip(np.log2(lap.scales), LOWEST, HIGHEST)
        turns = np.flatnonzero(np.diff(height)) + 1
        x = np.concatenate([[0], np.repeat(turns, 2), [len(height)]])
        y = np.repeat(height[np.concatenate([[0], turns])], 2)
        way = np.column_stack([x, y])
        frame.line(self.axes, way, "#FFFFFF", width=4.2)  # so that it stands out from the zones, too
        frame.line(self.axes, way, color, width=2.2, dash=dash)  # type: ignore[arg-type]
        lost = np.flatnonzero(lap.skipped)
        if len(lost):
            frame.marks(self.axes, np.column_stack([lost, height[lost]]), "x", color, size=5, edge=color)
        spoiled = np.flatnonzero(lap.overflowed & ~lap.skipped)
        if len(spoiled):
            frame.marks(self.axes, np.column_stack([spoiled, height[spoiled]]), "+", color, size=7, edge=color)
        some = np.arange(len(height) // 14, len(height), max(len(height) // 7, 1))
        frame.marks(self.axes, np.column_stack([some, height[some]]), marker, color, size=8)

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
        for number, words in enumerate((*LEGEND, *(LIVE_LEGEND if trained else ()))):
            frame.text((left, y + 16 * number), words, size=12, color=FAINT)
