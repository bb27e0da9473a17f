"""How far runs end from a reference: the mean difference, its interval, and the margin that a test allows."""

import math
from collections.abc import Mapping

from matplotlib.axes import Axes

from mpkit.course.pictures.style import EDGE, INK
from mpkit.course.runs.equivalence import equivalence
from mpkit.course.runs.experiments import Outcome

REACH = 5  # margins that the axis shows on each side; an arrow and a number stand for what lies beyond
WITHIN = "#DCEFE2"


def differences(
    ax: Axes, results: Mapping[str, Outcome], styles: Mapping[str, tuple[str, object, str]], reference: str,
    label: str, margin: float,
) -> None:  # fmt: skip
    """A row for each run that is over, in reading order; what lies inside the band is as good as the reference."""
    reach = REACH * margin
    ax.axvspan(-margin, margin, color=WITHIN, zorder=0)
    bottom = max(len(results) - 1, 2) - 0.4
    ax.plot([0.0, 0.0], [-0.45, bottom], color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    base = results[reference].scores if reference in results else ()
    done = [name for name, outcome in results.items() if outcome.scores and base and name != reference]
    for row, name in enumerate(done):
        color, _, marker = styles[name]
        if not all(map(math.isfinite, (*results[name].scores, *base))):
            ax.text(0.9 * reach, row, "not a number", va="center", ha="right", color=INK, fontsize=10.5)
            continue
        test = equivalence(results[name].scores, base, margin)
        if abs(test.difference) > reach:
            side = 1 if test.difference > 0 else -1
            ax.plot([side * 0.955 * reach], [row], color=color, marker=">" if side > 0 else "<", markersize=8)
            ax.text(side * 0.9 * reach, row, f"{test.difference:+.2g}", va="center", color=INK, fontsize=10.5,
                    ha="right" if side > 0 else "left")  # fmt: skip
            continue
        ends = [max(test.low, -reach), min(test.high, reach)]
        ax.plot(ends, [row, row], color=color, linewidth=2.4, marker="|", markersize=11, markeredgewidth=2)
        ax.plot([test.difference], [row], color=color, marker=marker, markersize=8, markeredgecolor="white")
    ax.set(xlim=(-reach, reach), ylim=(bottom, -1.1), yticks=range(len(done)))
    marks = [times * margin for times in (-3, -1, 0, 1, 3)]
    ax.set_xticks(marks, [f"{mark:+g}" if mark else "0" for mark in marks])
    ax.set_yticklabels(done, fontsize=10.5)
    ax.text(
        0.0, -0.75, f"as good as {reference}: within ±{margin:g}", ha="center", va="center", fontsize=10.5, color=EDGE
    )
    seeds = f" over {len(base)} seeds" if base else ""
    ax.set_xlabel(f"mean difference and 90 % interval{seeds}")
    ax.set_title(f"{label}, minus {reference}'s", fontsize=12, weight="normal")
