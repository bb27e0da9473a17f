"""A race on one axis: loss, loss scale and flushed gradients of every competitor, and a table beside them."""

import math
from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from mpkit.course.lesson_06.live_race import COMPETITORS, REFERENCE, LiveRace
from mpkit.course.lesson_06.precision_race_words import detail, headline
from mpkit.course.pictures.canvas import Canvas, Dash, Frame, counts
from mpkit.course.pictures.comparison import RUNS
from mpkit.course.pictures.style import INK, look, power
from mpkit.course.runs.experiments import Outcome

SIZE = (1040, 560)  # pixels
EMPTY = 300  # steps of the empty track
SMOOTH = 5  # steps that a point of the loss is the mean of
LOOK: dict[str, tuple[str, Dash, str]] = {
    REFERENCE: (INK, "-", "o"),
    **dict(zip((name for name in COMPETITORS if name != REFERENCE), RUNS, strict=False)),
}
COLUMNS = (("loss", 816), ("skipped", 880), ("flushed", 948), ("score", 1032))  # right edges, pixels


class RaceFigure:
    """Draws a race at any moment. The axes stand; their limits and ticks move with the curves."""

    def __init__(self) -> None:
        with look():
            self.canvas = Canvas(SIZE, [color for color, *_ in LOOK.values()])
            add = self.canvas.figure.add_axes
            self.page = add((0, 0, 1, 1), xlim=(0, SIZE[0]), ylim=(SIZE[1], 0))
            self.page.set_axis_off()
            self.loss = add((0.062, 0.52, 0.535, 0.315))
            self.scale = add((0.062, 0.285, 0.535, 0.165))
            self.flushed = add((0.062, 0.09, 0.535, 0.125), ylim=(-6, 106))
            titles = ("training loss, mean over seeds", "loss scale (| under it: a skipped step)",
                      "gradients flushed to zero")  # fmt: skip
            for ax, title in zip((self.loss, self.scale, self.flushed), titles, strict=True):
                ax.set_title(title, fontsize=11, weight="normal", pad=4)
                ax.set(xticks=[], yticks=[])
            self.flushed.set_xlabel("step of every competitor", fontsize=11, labelpad=21)
            self.canvas.freeze()

    def show(self, race: LiveRace | None) -> Frame:
        """The picture of a race as it stands; None is the empty track."""
        frame = self.canvas.frame()
        self._fit(frame, race)
        frame.text((12, 10), headline(race), size=19, bold=True)
        frame.text((12, 40), detail(race), color="#444444", size=14)
        if race is not None:
            for place, (name, outcome) in reversed(list(enumerate(race.outcomes.items()))):  # the reference on top
                first = self._every * (2 * place + 1) // (2 * len(race.outcomes))  # markers side by side, not stacked
                self._curves(frame, name, outcome, race.task.weight, first)
            self._table(frame, race)
        return frame

    def _fit(self, frame: Frame, race: LiveRace | None) -> None:
        steps, loss, scale = (EMPTY, (-1.0, 1.0), (-1.0, 25.0)) if race is None else (race.steps, *_limits(race))
        self._every = max(steps // 7, 1)
        self.loss.set_ylim(*loss)
        self.scale.set_ylim(*scale)
        frame.ticks(
            self.loss, "y", {half / 2: f"{10 ** (half / 2):.2g}" for half in _marks(2 * loss[0], 2 * loss[1])}, 14
        )
        frame.ticks(self.scale, "y", {mark: power(mark) for mark in _marks(*scale, every=8)}, 14)
        frame.ticks(self.flushed, "y", {share: f"{share} %" for share in (0, 50, 100)}, 14)
        for ax in (self.loss, self.scale, self.flushed):
            ax.set_xlim(0, steps)
            labels = {step: f"{step:.0f}" if ax is self.flushed else "" for step in counts(steps)}
            frame.ticks(ax, "x", labels, 14)

    def _curves(self, frame: Frame, name: str, outcome: Outcome, weight: float, first: int) -> None:
        records = outcome.records
        if not records:
            return
        color, dash, marker = LOOK.get(name, RUNS[-1])
        steps = np.arange(len(records))
        with np.errstate(divide="ignore", invalid="ignore"):
            loss = np.log10(_smooth(np.array([r.loss for r in records]) / weight))
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

    def _table(self, frame: Frame, race: LiveRace) -> None:
        top = 118
        frame.text((646, top - 26), "who", size=13, color="#444444", anchor="lm")
        for title, x in COLUMNS:
            words = ("error" if race.task.autoencoder else "test") if title == "score" else title
            frame.text((x, top - 26), words, size=13, color="#444444", anchor="rm")
        for row, (name, outcome) in enumerate(race.outcomes.items()):
            y = top + 4 + 44 * row
            color, _, marker = LOOK.get(name, RUNS[-1])
            frame.marks(self.page, [(636, y)], marker, color, size=9)
            frame.text((648, y), name, size=13, bold=name == REFERENCE, anchor="lm")
            for words, (_, x) in zip(cells(race, outcome), COLUMNS, strict=True):
                frame.text((x, y), words, size=13, anchor="rm")
            if outcome.scores:
                frame.text((COLUMNS[-1][1], y + 17), spread(race, outcome), size=12, color="#444444", anchor="rm")


def _marks(low: float, high: float, every: int = 1, most: int = 8) -> range:
    """Multiples of `every`, or of the smallest multiple of it of which no more than `most` lie between the limits."""
    every *= max(1, math.ceil((high - low) / (most * every)))
    return range(every * math.ceil(low / every), math.floor(high) + 1, every)


def _limits(race: LiveRace) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of log10 of the loss and of log2 of the scale."""
    seen = [r.loss / race.task.weight for o in race.outcomes.values() for r in o.records]
    logs = [math.log10(value) for value in seen if math.isfinite(value) and value > 0] or [-1.0, 0.0]
    loss = math.floor(2 * min(logs) - 0.1) / 2, math.ceil(2 * max(logs) + 0.1) / 2
    scales = [math.log2(r.scale) for o in race.outcomes.values() for r in o.records if r.scale > 0] or [0.0]
    return loss, (min(-1.0, 4 * math.floor(min(scales) / 4) - 1.0), max(25.0, 4 * math.ceil(max(scales) / 4) + 1.0))


def cells(race: LiveRace, outcome: Outcome) -> tuple[str, str, str, str]:
    """A row of the table: loss now (unweighted), skipped steps, share flushed so far, mean score."""
    if not outcome.records:
        return "", "", "", ""
    loss = f"{outcome.records[-1].loss / race.task.weight:.3g}"
    flushed = "–" if outcome.flushed is None else f"{100 * outcome.flushed:.0f} %"
    score = "…" if not outcome.scores else f"{outcome.mean:.4f}" if race.task.autoencoder else f"{outcome.mean:.1%}"
    return loss, str(outcome.skipped), flushed, score.replace("%", " %")


def spread(race: LiveRace, outcome: Outcome) -> str:
    """The standard deviation over the seeds, in the score's unit."""
    return f"± {outcome.spread:.4f}" if race.task.autoencoder else f"± {100 * outcome.spread:.1f} %"


def description(race: LiveRace | None) -> str:
    """The table as one line of text."""
    rows: Mapping[str, Outcome] = {} if race is None else race.outcomes
    names = ("loss", "skipped steps", "flushed", "score")
    said = [
        f"{name}: " + ", ".join(f"{what} {words}" for what, words in zip(names, cells(race, o), strict=True))
        for name, o in rows.items()
        if race is not None and o.records
    ]
    return ". ".join([headline(race), detail(race).rstrip("."), *said]) + "."


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
