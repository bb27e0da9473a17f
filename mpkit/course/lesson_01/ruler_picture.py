"""The numbers of a tiny format as marks on a ruler, with and without subnormals."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpkit import FloatFormat
from mpkit.course.pictures.still import StillPicture
from mpkit.course.pictures.style import INK, look

NORMAL, SUBNORMAL, GAP = INK, "#9A3B00", "#F8E3D4"
SIZE = (10.4, 3.3)  # inches, 100 pixels each


def ruler(fmt: FloatFormat, end: float) -> StillPicture:
    """Two rulers from 0 to `end`: the format's values, and what would be left of them without subnormals.

    Args:
        fmt: a format of few bits, so that the marks can be told apart.
        end: the last mark, a finite value of the format above its smallest normal number.

    Raises:
        ValueError: `end` is not above the smallest normal number, or there would be more than 64 marks.
    """
    values = [v + 0.0 for v in fmt.values().tolist() if 0 <= v <= end]  # -0 + 0 is 0
    if end <= fmt.smallest_normal or len(values) > 64:
        raise ValueError(
            f"a ruler needs an end above {fmt.smallest_normal:.4g} and at most 64 marks, but end={end:.4g} of {fmt} "
            f"gives {len(values)}."
        )
    kept = [v for v in values if v == 0 or v >= fmt.smallest_normal]
    title = "Marks double their distance at each power of two; subnormals fill the gap at zero"
    with look():
        figure = Figure(figsize=SIZE, dpi=100)
        figure.text(0.012, 0.92, title, fontsize=15, weight="bold", va="center")
        upper, lower = figure.add_axes((0.03, 0.45, 0.94, 0.38)), figure.add_axes((0.03, 0.03, 0.94, 0.38))
        for ax, marks, words in ((upper, values, "with subnormals"), (lower, kept, "without")):
            _draw(ax, fmt, marks, end, words)
    near = len(values) - len(kept)
    alt = (
        f"{title}. Two rulers from 0 to {end:g}, with the values of a format of {fmt.bits} bits as marks. With "
        f"subnormals, {near} evenly spaced marks lie between 0 and {fmt.smallest_normal:g}; without, there is none."
    )
    return StillPicture(figure, alt)


def _draw(ax: Axes, fmt: FloatFormat, marks: Sequence[float], end: float, words: str) -> None:
    """One ruler; powers of two have long marks and their number."""
    ax.set_xlim(-0.01 * end, 1.01 * end)
    ax.set_ylim(-0.75, 1.25)
    ax.axis("off")
    ax.axvspan(0, fmt.smallest_normal, ymin=0.375, ymax=0.8, color=GAP, zorder=0)
    ax.plot([0, end], [0, 0], color=NORMAL, linestyle="-", linewidth=1.5)
    for value in marks:
        small = 0 < value < fmt.smallest_normal
        whole = value == 0 or (not small and math.frexp(value)[0] == 0.5)
        height = 0.85 if whole else 0.5
        color, width = (SUBNORMAL, 2.6) if small else (NORMAL, 1.6)
        ax.plot([value, value], [0, height], color=color, linestyle="-", linewidth=width)
        if whole:
            ax.text(value, -0.12, f"{value:g}", ha="center", va="top", fontsize=11)
    ax.text(end, 1.2, words, ha="right", va="top", fontsize=12, weight="bold")
    if any(0 < value < fmt.smallest_normal for value in marks):
        ax.text(fmt.smallest_normal / 2, 0.9, "subnormal", ha="center", va="bottom", fontsize=11, color=SUBNORMAL)
    else:
        ax.text(fmt.smallest_normal / 2, 0.9, "a hole", ha="center", va="bottom", fontsize=11, color=SUBNORMAL)
