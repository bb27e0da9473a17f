"""Points of accuracy that BF16 weights lose, over updates lost and over way lost: a still picture of lesson 03."""

from collections.abc import Mapping
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpkit.course.lesson_03.robustness import COUNT, WAY
from mpkit.course.pictures.comparison import RUNS
from mpkit.course.pictures.still import StillPicture
from mpkit.course.pictures.style import INK, look
from mpkit.course.robustness.table import Table

TICKS = (0, 1, 3, 10, 30)
LABELS = (((-3, 8), "right"), ((0, -19), "center"), ((9, -3), "left"))  # where a rate stands, an optimizer each
LARGEST = {"center": ((-9, -3), "right"), "left": ((9, -13), "left")}  # the largest rate's lies beside its neighbour's


def points_lost(table: Table, value: float) -> float:
    """Mean accuracy in FP32 minus mean accuracy of BF16 weights, rounded to nearest; in points."""
    return fmean(table.scores[value]["FP32"]) - fmean(table.scores[value]["nearest"])


def way_picture(tables: Mapping[str, Table], title: str) -> StillPicture:
    """Two panels with one axis of points lost: left over the updates lost, right over the way lost.

    `tables`: name of an optimizer → its stored sweep over the learning rate, which has `updates lost, %` and
    `way lost, %`. One mark for each learning rate, the mean over the seeds.
    """
    with look():
        figure = Figure(figsize=(10.4, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for (name, table), style, label in zip(tables.items(), RUNS[::2], LABELS, strict=False):
            for axes, share in ((left, COUNT), (right, WAY)):
                _marks(axes, table, share, label)
                axes.lines[-1].set(color=style[0], marker=style[2], label=name)
        for axes in (left, right):
            axes.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
            axes.set_xlim(0, 104)
        left.set_yscale("symlog", linthresh=1, linscale=0.6)
        left.set_ylim(-0.6, 100)
        left.set_yticks(TICKS, [str(tick) for tick in TICKS])
        left.set_ylabel("points of accuracy lost")
        left.set_xlabel("updates lost, % of all updates")
        right.set_xlabel("way lost, % of the sum of all sizes")
        left.legend(loc="upper left")
        figure.suptitle(title, x=0.012, ha="left", fontsize=15, weight="bold")
    rows = [
        f"{name} {value:g}: {fmean(table.scores[value][COUNT]):.0f} % of the updates, "
        f"{fmean(table.scores[value][WAY]):.0f} % of the way, {points_lost(table, value):.1f} points"
        for name, table in tables.items()
        for value in table.scores
    ]
    return StillPicture(figure, f"{title}. Lost at each learning rate: {'; '.join(rows)}.")


def _marks(axes: Axes, table: Table, share: str, label: tuple[tuple[int, int], str]) -> None:
    """A mark for each learning rate, with the rate beside it."""
    for value, ways in table.scores.items():
        offset, side = LARGEST.get(label[1], label) if value == max(table.scores) else label
        place = (fmean(ways[share]), points_lost(table, value))
        axes.annotate(f"{value:g}", place, offset, textcoords="offset points", ha=side, fontsize=9, color=INK)
    x, y = zip(*((fmean(ways[share]), points_lost(table, value)) for value, ways in table.scores.items()), strict=True)
    axes.plot(x, y, linestyle="none", markersize=9, clip_on=False)
