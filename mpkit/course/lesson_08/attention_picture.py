"""The scores of one attention in FP16's window, the weights of one query, and what each 16-bit format lost."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from mpkit import FP16
from mpkit.course.lesson_08.trial import KEYS, QUERIES, AttentionTrial
from mpkit.course.pictures.canvas import Canvas, Frame
from mpkit.course.pictures.style import (
    FAINT,
    GRADIENT,
    GRADIENT_EDGE,
    INK,
    PRECISION,
    ZONE,
    ZONE_TEXT,
    look,
    percent,
    power,
    readable,
)
from mpkit.course.pictures.zones import draw_zones

SIZE = (1040, 500)  # pixels
LOW, HIGH, BIN = -12.0, 24.0, 0.5  # powers of two on the axis of scores, and the width of a bar
BEST = 8  # keys shown of the first query
OFF = 0.02  # from here on weights that add up to something else than 1 are a finding

Trials = Mapping[str, AttentionTrial]  # by format


def count(x: float) -> str:
    """A number from 1 on as people write it: 74,648, 36.9."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def headline(trials: Trials, name: str = "FP16") -> str:
    """What happened to one format, in a sentence."""
    trial, all_lost = trials[name], trials[name].lost == QUERIES
    who = "every query is" if all_lost else f"{trial.lost} of {QUERIES} queries are"
    if trial.lost and trial.overflowed:
        return f"{name}: scores overflow, and {who} lost"
    if trial.lost:
        return f"{name}: exp overflows, and {who} lost"
    if abs(trial.weight_sum - 1) > OFF:
        return f"{name}: weights add up to {trial.weight_sum:.2f} instead of 1"
    if trial.overflowed:
        return f"{name}: scores overflow to −Inf only, and no query is lost"
    return f"{name}: no query is lost, output off by {_off(trial.error)}"


def _off(error: float) -> str:
    return "–" if math.isnan(error) else percent(error) if error < 0.995 else f"{error:.0%}"


class AttentionFigure:
    """Zones and axes drawn once; `show` draws one pair of trials."""

    def __init__(self) -> None:
        with look():
            colors = [str(PRECISION[name]["color"]) for name in ("FP16", "BF16")]
            self.canvas = Canvas(
                SIZE,
                [FAINT, GRADIENT, GRADIENT_EDGE, *colors, *map(readable, colors), *ZONE.values(), *ZONE_TEXT.values()],
            )
            figure = self.canvas.figure
            self.scores = figure.add_axes((0.06, 0.13, 0.46, 0.62), xlim=(LOW, HIGH), ylim=(0, 1.3))
            self.scores.set_yticks([])
            self.scores.spines["left"].set_visible(False)
            ticks = range(-12, 25, 6)
            self.scores.set_xticks(ticks, [power(e) for e in ticks])
            self.scores.tick_params(labelsize=11)
            self.scores.set_xlabel("size of a score", fontsize=12)
            self.scores.set_ylabel("how many", fontsize=12)
            self.weights = figure.add_axes((0.6, 0.47, 0.385, 0.28), xlim=(-0.6, BEST - 0.4), ylim=(0, 1.15))
            self.weights.set_yticks([])
            self.weights.set_xticks(range(BEST), [str(k + 1) for k in range(BEST)])
            self.weights.tick_params(labelsize=11)
            self.canvas.freeze()

    def show(self, trials: Trials, scaling: str) -> Frame:
        """The picture of `trials`; `scaling` as the attention used it."""
        frame, trial = self.canvas.frame(), trials["FP16"]
        frame.text((12, 10), headline(trials), size=19, bold=True)
        frame.text((12, 42), f"{headline(trials, 'BF16')}.  {QUERIES} queries, {KEYS:,} keys", size=13, color=FAINT)
        self._scores(frame, trial, scaling)
        self._weights(frame, trials)
        _table(frame, trials)
        return frame

    def _scores(self, frame: Frame, trial: AttentionTrial, scaling: str) -> None:
        stored, scores = _histogram(trial.stored.numpy()), _histogram(trial.scores.numpy())
        top = max(stored[:, 1].max(), scores[:, 1].max())
        edge = GRADIENT_EDGE
        draw_zones(frame, self.scores, FP16, name_y=1.28, limit_y=1.305)
        frame.polygon(self.scores, np.vstack([[(LOW, 0)], stored / (1, top), [(HIGH, 0)]]), GRADIENT, edge)
        frame.text((66, 80), "■ as the product stores them", color=GRADIENT_EDGE, size=13)
        if scaling == "after":
            frame.line(self.scores, scores / (1, top), INK, 2.2, (0, (4, 2)))
            frame.text((290, 80), "- - after dividing by √d", color=INK, size=13)

    def _weights(self, frame: Frame, trials: Trials) -> None:
        exact = trials["FP16"].exact_weights.numpy()
        best = np.argsort(-exact, kind="stable")[:BEST]
        shown = [exact[best], *(trial.weights.numpy()[best] for trial in trials.values())]
        top = max(np.nanmax(values) if np.isfinite(values).any() else 0.0 for values in shown)
        frame.text((624, 80), f"query with the largest score: its {BEST} largest weights", size=13)
        for key, height in enumerate(exact[best] / top):
            corners = [(key - 0.3, 0), (key + 0.3, 0), (key + 0.3, height), (key - 0.3, height)]
            frame.polygon(self.weights, corners, "#DDDDDD", INK)
        for shift, (name, trial) in zip((-0.12, 0.12), trials.items(), strict=True):
            style, values = PRECISION[name], trial.weights.numpy()[best] / top
            points = [(key + shift, y) for key, y in enumerate(values) if math.isfinite(y)]
            if points:
                frame.marks(self.weights, points, style["marker"], style["color"], 9)
            if len(points) < BEST:
                place, color = (3.5, 0.75 if name == "FP16" else 0.4), readable(style["color"])
                frame.text(place, f"{name}: NaN", color=color, size=18, bold=True, anchor="mm", axes=self.weights)


def _table(frame: Frame, trials: Trials) -> None:
    left, top = 624, 300
    for x, head in ((215, "FP16"), (325, "BF16")):
        color = readable(PRECISION[head]["color"])
        frame.text((left + x, top), head, size=14, bold=True, color=color, anchor="ra")
    frame.text((left, top), "□ exact", size=13, color=INK)
    rows: tuple[tuple[str, Callable[[AttentionTrial], str]], ...] = (
        ("largest score", lambda t: count(t.stored.max().item())),
        ("scores that overflow", lambda t: percent(t.overflowed)),
        ("queries lost (NaN)", lambda t: f"{t.lost} of {QUERIES}"),
        ("weights add up to", lambda t: "–" if math.isnan(t.weight_sum) else f"{t.weight_sum:.3f}"),
        ("output is off by", lambda t: _off(t.error)),
    )
    for row, (words, number) in enumerate(rows):
        y = top + 30 + 28 * row
        frame.text((left, y), words, size=13)
        for x, name in ((215, "FP16"), (325, "BF16")):
            trial = trials[name]
            bad = (row in (1, 2) and trial.lost > 0) or (row == 3 and abs(trial.weight_sum - 1) > OFF)
            color = ZONE_TEXT["flushed"] if bad else INK
            frame.text((left + x, y), number(trial), size=14, bold=bad, color=color, anchor="ra")


def _histogram(values: np.ndarray) -> np.ndarray:
    """Steps of a histogram over powers of two, as points (n, 2)."""
    exponents = np.log2(np.clip(values, 2.0**LOW, 2.0**HIGH * 0.999)).ravel()
    edges = np.arange(LOW, HIGH + BIN, BIN)
    counts = np.bincount(((exponents - LOW) / BIN).astype(int), minlength=len(edges) - 1)  # np.histogram would sort
    return np.column_stack([np.repeat(edges, 2)[1:-1], np.repeat(counts, 2)])
