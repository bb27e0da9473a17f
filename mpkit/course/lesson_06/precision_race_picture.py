"""A race on one axis: loss, loss scale and flushed gradients of every competitor, and a table beside them."""

import math
from collections.abc import Mapping
from itertools import accumulate

import numpy as np
from matplotlib.ticker import MaxNLocator

from mpkit.course.lesson_06.end_labels import groups, labels
from mpkit.course.lesson_06.live_race import COMPETITORS, REFERENCE, WHAT, LiveRace, has_yardstick, standings
from mpkit.course.lesson_06.precision_race_words import called, cells, detail, headline, legend, spread
from mpkit.course.pictures.canvas import Canvas, Dash, Frame, counts
from mpkit.course.pictures.comparison import RUNS
from mpkit.course.pictures.style import FAINT, INK, look, power
from mpkit.course.runs.experiments import Outcome

SIZE = (1040, 500)  # pixels: with its controls it fits into a window of 1280 x 800
EMPTY = 300  # steps of the empty track
EDGE = 0.012  # of the steps: room at the left, so that no marker is cut
LOWEST = -3.0  # of log2 scale, so that a marker at 2⁰ is whole
SMOOTH = 5  # steps that a point of the loss is the mean of
LOOK: dict[str, tuple[str, Dash, str]] = {
    REFERENCE: (INK, "-", "o"),
    **dict(zip((name for name in COMPETITORS if name != REFERENCE), RUNS, strict=False)),
}
NAMES = 644  # left edge of the table's names, pixels
COLUMNS = (("loss", 826), ("skipped", 884), ("flushed", 950), ("score", 1032))  # right edges, pixels


class RaceFigure:
    """Draws a race at any moment. The axes stand; their limits and ticks move with the curves."""

    def __init__(self) -> None:
        with look():
            self.canvas = Canvas(SIZE, [FAINT, *(color for color, *_ in LOOK.values())])
            add = self.canvas.figure.add_axes
            self.page = add((0, 0, 1, 1), xlim=(0, SIZE[0]), ylim=(SIZE[1], 0))
            self.page.set_axis_off()
            self.loss = add((0.062, 0.525, 0.535, 0.3))
            self.flushed = add((0.062, 0.322, 0.535, 0.13), ylim=(-14, 112))
            self.scale = add((0.062, 0.113, 0.535, 0.136))
            titles = ("training loss, mean over seeds", "loss scale", "gradients flushed to zero")
            for ax, title in zip((self.loss, self.scale, self.flushed), titles, strict=True):
                ax.set_title(title, fontsize=11, weight="normal", pad=4)
                ax.set(xticks=[], yticks=[])
            self.scale.set_xlabel("step of every competitor", fontsize=11, labelpad=21)
            self.canvas.freeze()

    def show(self, race: LiveRace | None, title: str | None = None) -> Frame:
        """The picture of a race as it stands; None is the empty track. `title`: None is the race's headline."""
        frame = self.canvas.frame()
        self._fit(frame, race)
        frame.text((12, 10), headline(race) if title is None else title, size=19, bold=True)
        frame.text((12, 40), detail(race), color="#444444", size=14)
        if race is not None:
            shown = race.shown
            for place, (name, outcome) in reversed(list(enumerate(shown.items()))):  # the reference on top
                first = self._every * (2 * place + 1) // (2 * len(shown))  # markers side by side, not stacked
                self._curves(frame, name, outcome, race.task.weight, first)
            if any(record.skipped for outcome in shown.values() for record in outcome.records):
                x, y = self.canvas.place(self.scale, (race.steps, self.scale.get_ylim()[1]))
                frame.text((x, y - 10), "| at the foot: a skipped step", color="#444444", size=12, anchor="rm")
            self._names_at_the_end(frame, race)
            self._table(frame, race, shown)
        return frame

    def _names_at_the_end(self, frame: Frame, race: LiveRace) -> None:
        """Of a race that is over: who ends where, at the loss, in the groups of the title; one group needs no name."""
        if not race.over or not has_yardstick(race):
            return
        kinds = {REFERENCE: "level", **standings(race)}
        curves = {name: self._dots(race, o) for name, o in race.outcomes.items()}
        curves = {name: dots for name, dots in curves.items() if len(dots)}
        right = max(dots[-1, 0] for dots in curves.values())
        found = groups({name: dots[-1, 1] for name, dots in curves.items() if dots[-1, 0] == right}, kinds)
        named = [(names, _together(names)) for names in found if len(found) > 1]
        low, high = self.loss.get_ylim()
        room = self.canvas.place(self.loss, (0, high))[1], self.canvas.place(self.loss, (0, low))[1]
        for label in labels(curves, named, room):
            frame.text(label.place, label.words, size=12, bold=True, anchor="rm")

    def _dots(self, race: LiveRace, outcome: Outcome) -> np.ndarray:
        """The finite points of a loss curve, (n, 2) pixels."""
        points = [(step, loss) for step, loss in enumerate(_losses(race, outcome)) if math.isfinite(loss)]
        return np.array([self.canvas.place(self.loss, point) for point in points]).reshape(-1, 2)

    def _fit(self, frame: Frame, race: LiveRace | None) -> None:
        steps, loss, scale = (EMPTY, (-1.0, 1.0), (LOWEST, 25.0)) if race is None else (race.steps, *_limits(race))
        self._every = max(steps // 7, 1)
        self.loss.set_ylim(*loss)
        self.scale.set_ylim(*scale)
        frame.ticks(self.loss, "y", _loss_ticks(*loss), 14)
        frame.ticks(self.scale, "y", {mark: power(mark) for mark in _marks(*scale, every=12)}, 14)
        frame.ticks(self.flushed, "y", {share: f"{share} %" for share in (0, 50, 100)}, 14)
        for ax in (self.loss, self.scale, self.flushed):
            ax.set_xlim(-EDGE * steps, steps)
            labels = {step: f"{step:.0f}" if ax is self.scale else "" for step in counts(steps)}
            frame.ticks(ax, "x", labels, 14)

    def _curves(self, frame: Frame, name: str, outcome: Outcome, weight: float, first: int) -> None:
        records = outcome.records
        if not records:
            return
        color, dash, marker = LOOK.get(name, RUNS[-1])
        steps = np.arange(len(records))
        with np.errstate(divide="ignore", invalid="ignore"):
            loss = np.log10(_smooth(np.array([r.loss for r in records]) / weight))  # as in _losses
            scale = np.log2(np.array([r.scale for r in records]))
        flushed = 100 * np.array([np.nan if r.flushed is None else r.flushed for r in records])
        for ax, values in ((self.loss, loss), (self.scale, scale), (self.flushed, flushed)):
            points = np.column_stack([steps, values])[np.isfinite(values)]
            frame.line(ax, points, color, width=2.0 if name == REFERENCE else 1.8, dash=dash)
            some = points[first :: self._every] if len(points) == len(steps) else _few(points, first, self._every)
            if len(some):
                frame.marks(ax, some, marker, color, size=7)
        low, high = self.scale.get_ylim()
        for step in (r.step for r in records if r.skipped):
            frame.line(self.scale, [(step, low), (step, low + 0.16 * (high - low))], color, width=2)

    def _table(self, frame: Frame, race: LiveRace, shown: Mapping[str, Outcome]) -> None:
        top = 118
        frame.text((NAMES, top - 26), f"after step {race.step}", size=13, color="#444444", anchor="lm")
        for title, x in COLUMNS:
            words = ("error" if race.task.autoencoder else "test") if title == "score" else title
            frame.text((x, top - 26), words, size=13, color="#444444", anchor="rm")
        for row, (name, outcome) in enumerate(shown.items()):
            y = top + 4 + 44 * row
            color, _, marker = LOOK.get(name, RUNS[-1])
            frame.marks(self.page, [(NAMES - 11, y)], marker, color, size=9)
            frame.text((NAMES, y), name, size=13, bold=name == REFERENCE, anchor="lm")
            for words, (_, x) in zip(cells(race, outcome), COLUMNS, strict=True):
                frame.text((x, y), words, size=13, anchor="rm")
            frame.text((NAMES, y + 16), WHAT.get(name, ""), size=12, color=FAINT, anchor="lm")
            if outcome.scores:
                frame.text((COLUMNS[-1][1], y + 17), spread(race, outcome), size=12, color="#444444", anchor="rm")
        for number, words in enumerate(legend(race)):
            frame.text((NAMES, top + 6 + 44 * len(shown) + 16 * number), words, size=12, color=FAINT, anchor="lm")


def _together(names: list[str]) -> str:
    """The words of a label."""
    if len(names) < 5:
        return ", ".join(map(called, names))
    return f"{REFERENCE} and {len(names) - 1} others" if REFERENCE in names else f"{len(names)} competitors"


def _marks(low: float, high: float, every: int = 1, most: int = 8) -> range:
    """Multiples of `every`, or of the smallest multiple of it of which no more than `most` lie between the limits."""
    every *= max(1, math.ceil((high - low) / (most * every)))
    return range(every * math.ceil(low / every), math.floor(high) + 1, every)


def _limits(race: LiveRace) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of log10 of the loss and of log2 of the scale."""
    logs = [value for o in race.outcomes.values() for value in _losses(race, o) if math.isfinite(value)] or [-1.0, 0.0]
    room = 0.2 * max(max(logs) - min(logs), 0.05)  # for names above and below the curves
    loss = min(logs) - room, max(logs) + room
    scales = [math.log2(r.scale) for o in race.outcomes.values() for r in o.records if r.scale > 0] or [0.0]
    return loss, (min(LOWEST, 4 * math.floor(min(scales) / 4) - 3.0), max(25.0, 4 * math.ceil(max(scales) / 4) + 1.0))


def _losses(race: LiveRace, outcome: Outcome) -> list[float]:
    """log10 of the curve, without the task's weight."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values: list[float] = np.log10(_smooth(np.array([r.loss for r in outcome.records]) / race.task.weight)).tolist()
    return values


def _loss_ticks(low: float, high: float) -> dict[float, str]:
    """Round losses between two limits in log10: powers of ten over a wide range, else 1, 2, 5 or an even step."""
    if high - low > 3:
        return {half / 2: f"{10 ** (half / 2):.2g}" for half in _marks(2 * low, 2 * high)}
    values = [lead * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for lead in (1, 2, 5)]
    if high - low < 0.9:
        values = list(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(10**low, 10**high))
    return {math.log10(v): f"{v:.6g}" for v in values if v > 0 and low < math.log10(v) < high}


def _few(points: np.ndarray, first: int, every: int) -> np.ndarray:
    """Of points that are some steps apart, about one in `every` steps, from step `first` on; the last, if none is."""
    gap = max(int(points[1, 0] - points[0, 0]), 1) if len(points) > 1 else 1
    some = points[first // gap :: max(every // gap, 1)]
    return some if len(some) else points[-1:]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean of the finite ones of the last `SMOOTH` values, fewer at the start; what is not finite becomes NaN."""
    finite = np.isfinite(values)
    sums = np.array([0.0, *accumulate(np.where(finite, values, 0.0).tolist())])
    counts = np.concatenate([[0], finite.cumsum()])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - SMOOTH, 0)
    means: np.ndarray = (sums[ends] - sums[starts]) / np.maximum(counts[ends] - counts[starts], 1)
    return np.where(finite, means, np.nan)
