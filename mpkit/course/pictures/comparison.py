"""Curves of several training runs on one axis, and their final scores seed by seed."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from mpkit.course.pictures.canvas import font
from mpkit.course.pictures.differences import differences
from mpkit.course.pictures.style import INK, look
from mpkit.course.runs.experiments import Outcome

# As in style.py, with a dash and a marker each, for runs that share one precision.
RUNS = (
    ("#BD4D00", (0, (5, 2)), "s"),
    ("#CD8500", (0, (1, 1)), "^"),
    ("#3097F8", (0, (3, 1, 1, 1)), "v"),
    ("#0072B2", (0, (7, 2)), "D"),
    ("#009E73", (0, (2, 2)), "P"),
    ("#C97AA9", (0, (7, 2, 1, 2)), "X"),
    ("#644200", (0, (3, 1, 1, 1, 1, 1)), "*"),
)


def comparison(
    results: Mapping[str, Outcome], reference: str, title: str, score_label: str, steps: int, loss_label: str,
    margin: float | None = None,
) -> Figure:  # fmt: skip
    """Left: training loss (mean over seeds) of every run. Right: final score of every seed, one column a run.

    With a margin, right: how far each run's score lies from the reference's, with its interval, and the margin.

    Args:
        results: by name, in drawing order; runs that are not over have no scores yet.
        reference: name of the run that the others are compared with; drawn black.
        title: the finding.
        score_label, loss_label: axis labels with units.
        steps: length of the left axis.
        margin: of a test of equivalence, in the score's unit.
    """
    with look():
        figure = Figure(figsize=(10.4, 4.4), dpi=100)
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        figure.subplots_adjust(left=0.075, right=0.985, top=0.84, bottom=0.14, wspace=0.22 if margin is None else 0.3)
        styles = _styles(list(results), reference)
        _losses(left, results, styles, steps, loss_label)
        if margin is None:
            _scores(right, results, styles, reference, score_label)
        else:
            differences(right, results, styles, reference, score_label, margin)
        figure.suptitle(title, x=0.012, y=0.975, ha="left", fontsize=15, weight="bold")
    return figure


def _styles(names: Sequence[str], reference: str) -> dict[str, tuple[str, object, str]]:
    others = [name for name in names if name != reference]
    styles: dict[str, tuple[str, object, str]] = {n: RUNS[i % len(RUNS)] for i, n in enumerate(others)}
    return {reference: (INK, "-", "o"), **styles}


def _losses(ax: Axes, results: Mapping[str, Outcome], styles: Mapping[str, tuple[str, object, str]], steps: int,
            label: str) -> None:  # fmt: skip
    for name, outcome in results.items():
        color, dash, marker = styles[name]
        values = np.array([record.loss for record in outcome.records])
        ax.plot(_smooth(values), color=color, linestyle=dash, marker=marker, markevery=max(steps // 8, 1),
                markersize=5.5, linewidth=1.8, label=name)  # fmt: skip
    ax.set_xlim(0, steps)
    ax.set_xlabel("training step")
    _zoom(ax, results)
    ax.set_title(label, fontsize=12, weight="normal")
    if results:
        ax.legend(loc="best", handlelength=3.2)


def _zoom(ax: Axes, results: Mapping[str, Outcome]) -> None:
    """Show where the good runs are after a quarter of their steps, and from there on; mention a run that ends above.

    Good runs end below twice the best. Without two of them, or before the end, the whole range is shown.
    """
    curves = {name: _smooth(np.array([r.loss for r in o.records])) for name, o in results.items()}
    best = min((float(c[-1]) for c in curves.values() if math.isfinite(c[-1])), default=math.nan)
    good = [curve for curve in curves.values() if curve[-1] <= 2 * best]
    if not all(o.scores for o in results.values()) or len(good) < 2:
        return
    top = max(float(np.nanmax(curve[len(curve) // 4 :])) for curve in good)
    lowest = min(float(np.nanmin(curve[len(curve) // 4 :])) for curve in good)
    height = max(top - best, 0.02 * best)
    ax.set_ylim(min(best, lowest) - 0.1 * height, top + 0.45 * height)
    outside = [f"{name} ends at {c[-1]:.2g}" for name, c in curves.items() if not c[-1] <= top + 0.45 * height]
    if outside:
        ax.set_xlabel(f"training step  (above the chart: {', '.join(outside)})")


def _smooth(values: np.ndarray, width: int = 10) -> np.ndarray:
    """Mean of the last `width` values (fewer at the start), so that curves can be told apart."""
    ends = range(1, len(values) + 1)
    return np.array([values[max(end - width, 0) : end].mean() for end in ends])


def _scores(ax: Axes, results: Mapping[str, Outcome], styles: Mapping[str, tuple[str, object, str]], reference: str,
            label: str) -> None:  # fmt: skip
    done = {name: outcome for name, outcome in results.items() if outcome.scores}
    for column, (name, outcome) in enumerate(done.items()):
        color, _, marker = styles[name]
        offsets = np.linspace(-0.16, 0.16, len(outcome.scores))
        ax.plot(
            column + offsets, outcome.scores, color=color, marker=marker, linestyle="none", markersize=6.5, alpha=0.9
        )
        ax.plot([column - 0.3, column + 0.3], [outcome.mean] * 2, color=color, linewidth=2)
    if reference in done:
        ax.axhline(done[reference].mean, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    ax.set_xlim(-0.6, max(len(results), 2) - 0.4)
    scores = [score for outcome in done.values() for score in outcome.scores]
    if "accuracy" not in label and scores and min(scores) > 0 and max(scores) > 2 * min(scores):
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_yticks(_ticks(min(scores), max(scores)))
    ax.set_xticks(range(len(done)), [name.replace(" ", "\n") for name in done])
    ax.tick_params(axis="x", labelsize=_fitting(ax, list(done)))
    ax.set_title(label, fontsize=12, weight="normal")


def _fitting(ax: Axes, names: Sequence[str], size: float = 10.5) -> float:
    """`size` in points, or less where a word of the names is wider than nine tenths of its column."""
    column = ax.bbox.width / float(np.ptp(ax.get_xlim()))
    widest = max((font(100).getlength(word) for name in names for word in name.split()), default=1.0)  # at 72 points
    return min(size, 72 * 0.9 * column / widest)


def _ticks(low: float, high: float) -> list[float]:
    """A few round numbers between two positive values, for a logarithmic axis."""
    steps = (1, 1.5, 2, 3, 4, 5, 6, 7, 8)
    every = [m * 10.0**e for e in range(-6, 6) for m in steps]
    ticks = [t for t in every if 0.9 * low <= t <= 1.1 * high]
    return ticks if len(ticks) <= 7 else ticks[:: len(ticks) // 4]
