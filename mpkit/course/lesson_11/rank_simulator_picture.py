"""Ranks as rows, steps as columns, the weights' distance below: the rank simulator's picture. It computes nothing."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from mpkit.course.lesson_11.simulated_ranks import BORN_AT, BORN_ON, STEPS, Run
from mpkit.course.pictures.canvas import Canvas, Frame, counts
from mpkit.course.pictures.palette import levels
from mpkit.course.pictures.style import FAINT, INK, ZONE, ZONE_TEXT, look

SIZE = (1040, 448)  # pixels: with its controls it fits into a window of 1280 x 800
LEFT, WIDE, TOP, HIGH = 76, 640, 104, 172  # of the ranks' rows
BELOW, LOW = 314, 88  # of the distance: upper edge and height
TABLE, COLUMNS = 744, (120, 192)  # left edge, and the right edges of two columns from there
END = 1026
STEPPED, SKIPPED, SPOILED = "#E3EDF6", "#00558A", "#8A1C4C"
BORN, LINE = "#BD4D00", "#BD4D00"
LEGEND = ("pale ·  a step was taken     dark ×  skipped", "red +  taken with Inf       ▾  Inf is born",
          "framed: some skip, others do not")  # fmt: skip


class RankSimulatorFigure:
    """A picture that shows one `Run` at a time."""

    def __init__(self) -> None:
        with look():
            self.canvas = Canvas(SIZE, [INK, FAINT, STEPPED, SKIPPED, SPOILED, BORN, *ZONE.values()])
            self.page = self.canvas.figure.add_axes((0, 0, 1, 1), xlim=(0, SIZE[0]), ylim=(SIZE[1], 0))
            self.page.set_axis_off()
            self.ranks = self._axes(TOP, HIGH)
            self.distance = self._axes(BELOW, LOW)
            self.ranks.set(xlim=(-0.5, STEPS - 0.5), xticks=[], yticks=[])
            self.distance.set(xlim=(-0.5, STEPS - 0.5), xticks=[], yticks=[])
            self.canvas.freeze()

    def show(
        self, run: Run, title: str, about: Sequence[str], by_rank: Sequence[tuple[str, str]],
        mean: str, numbers: Sequence[tuple[str, str]],
    ) -> Frame:  # fmt: skip
        """The picture of that run, with these words and numbers."""
        self.frame = frame = self.canvas.frame()
        frame.text((12, 10), title, size=19, bold=True)
        for line, words in enumerate(about):
            frame.text((12, 38 + 19 * line), words, color=FAINT, size=14)
        self._rows(run)
        self._distance(run)
        self._table(by_rank, mean, numbers)
        return frame

    def _axes(self, top: float, high: float) -> Axes:
        place = (LEFT / SIZE[0], 1 - (top + high) / SIZE[1], WIDE / SIZE[0], high / SIZE[1])
        return self.canvas.figure.add_axes(place)

    def _rows(self, run: Run) -> None:
        frame, axes, ranks = self.frame, self.ranks, run.setup.ranks
        axes.set_ylim(ranks - 0.5, -0.5)
        skipped, spoiled = run.skipped.T.numpy(), run.spoiled.T.numpy()
        kind = np.where(spoiled, 2, np.where(skipped, 1, 0))
        frame.cells(axes, np.array([levels(color) for color in (STEPPED, SKIPPED, SPOILED)])[kind])
        for row in range(1, ranks):
            frame.line(axes, [(-0.5, row - 0.5), (STEPS - 0.5, row - 0.5)], "#FFFFFF", 2)
        for column in range(1, STEPS):
            frame.line(axes, [(column - 0.5, -0.5), (column - 0.5, ranks - 0.5)], "#FFFFFF", 2)
        size = 11 if ranks <= 5 else 9
        for code, marker, color, wide in ((0, "o", SKIPPED, 3), (1, "x", "#FFFFFF", size), (2, "+", "#FFFFFF", size)):
            places = np.argwhere(kind == code)[:, ::-1]
            if len(places):
                frame.marks(axes, places, marker, color, wide, edge=color)
        for step in run.torn.tolist():
            corners = [(step - 0.5, -0.5), (step + 0.5, -0.5), (step + 0.5, ranks - 0.5), (step - 0.5, ranks - 0.5)]
            frame.line(axes, [*corners, corners[0]], INK, 3)
        for rank in range(ranks):
            frame.text((-0.7, rank), f"rank {rank}", size=14, bold=rank == BORN_ON, anchor="rm", axes=axes)
        frame.marks(self.page, [(self._column(step), TOP - 8) for step in BORN_AT], "v", BORN, 10)

    def _column(self, step: float) -> float:
        """The middle of a step's column, in pixels of the page."""
        return LEFT + WIDE * (step + 0.5) / STEPS

    def _distance(self, run: Run) -> None:
        frame, axes, apart = self.frame, self.distance, run.distance.double().numpy()
        finite = np.isfinite(apart)
        top = 1.15 * max(float(apart[finite].max(initial=0.0)), 1e-12) if apart[finite].any() else 1.0
        axes.set_ylim(-0.06 * top, top)
        frame.text((LEFT, BELOW - 20), "largest distance between two ranks' weights, relative to their length", size=13)
        if not finite.all():
            first = int(np.argmin(finite))
            edges = [(first - 0.5, -top), (first - 0.5, 2 * top), (STEPS, 2 * top), (STEPS, -top)]
            frame.polygon(axes, edges, ZONE["overflow"])
            frame.text((first + 0.2, 0.5 * top), "Inf or NaN in a weight", ZONE_TEXT["overflow"], 14, True, "lm", axes)
        points = np.column_stack([np.arange(STEPS), apart])[finite]
        if len(points):
            frame.line(axes, points, LINE, 2.4)
            frame.marks(axes, points[::2], "s", LINE, 6)
        if finite.all() and not apart.any():
            frame.text((STEPS / 2, 0.5 * top), "0: all copies are equal, bit by bit", INK, 14, True, "mm", axes)
        frame.ticks(axes, "y", {value: f"{value:.0%}" for value in self._ticks(apart[finite], top)}, 13)
        frame.ticks(axes, "x", {step - 1: f"{step:.0f}" for step in counts(STEPS) if step} | {0: "1"}, 13)
        frame.text((LEFT + WIDE / 2, SIZE[1] - 4), "training step", size=13, anchor="md")

    @staticmethod
    def _ticks(apart: np.ndarray, top: float) -> list[float]:
        if not apart.any():
            return [0.0]
        size = 10.0 ** np.floor(np.log10(top))
        step = next(size * part for part in (0.1, 0.2, 0.5, 1, 2, 5) if top / (size * part) < 4)
        return [float(value) for value in np.arange(0, top, step)]

    def _table(self, by_rank: Sequence[tuple[str, str]], mean: str, numbers: Sequence[tuple[str, str]]) -> None:
        frame, row = self.frame, HIGH / len(by_rank)
        for head, x in zip(("skipped", "loss scale"), COLUMNS, strict=True):
            frame.text((TABLE + x, TOP - 8), head, FAINT, 13, anchor="rs")
        for rank, cells in enumerate(by_rank):
            y = TOP + row * (rank + 0.5)
            frame.text((TABLE, y), f"rank {rank}", size=14, bold=rank == BORN_ON, anchor="lm")
            for x, words in zip(COLUMNS, cells, strict=True):
                frame.text((TABLE + x, y), words, size=14, anchor="rm")
        frame.text((TABLE, 294), mean, size=13, bold=True, anchor="lm")
        for line, (what, value) in enumerate(numbers):
            y = 314 + 18 * line
            frame.text((TABLE, y), what, FAINT, 13, anchor="lm")
            frame.text((END, y), value, size=13, anchor="rm")
        for line, words in enumerate(LEGEND):
            frame.text((TABLE, 406 + 16 * line), words, size=13, anchor="lm")
