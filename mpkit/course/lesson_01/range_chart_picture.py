"""All formats on one axis of magnitudes: how far each reaches, and how far apart its numbers lie."""

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mpkit import FloatFormat
from mpkit.course.pictures.still import StillPicture
from mpkit.course.pictures.style import GRADIENT_EDGE, INK, PRECISION, look, power
from mpkit.formats import FORMATS

SIZE = (10.4, 7.2)  # inches, 100 pixels each
MARGIN = 9  # powers of two beyond the widest format, for its labels
BAND, CORE = "#DCE9F5", "#B9D3EA"  # all values; those between the 1st and the 99th percentile
TICKS = 32


def range_chart(
    gradients: Sequence[float], source: str, title: str, formats: Sequence[FloatFormat] = tuple(FORMATS.values())
) -> StillPicture:
    """Range above, relative spacing below, over the same axis; a band marks where a model's gradients lie.

    Args:
        gradients: four magnitudes: smallest, 1st percentile, 99th percentile, largest; positive and ascending.
        source: whose gradients they are, for the label.
        title: what the picture shows.
        formats: each needs its colour in `mpkit.course.pictures.style.PRECISION`.

    Raises:
        ValueError: not four positive, ascending, finite magnitudes.
    """
    values = [float(g) for g in gradients]
    if len(values) != 4 or not values[0] > 0 or values != sorted(values) or not math.isfinite(values[3]):
        raise ValueError(
            "gradients must be four magnitudes above 0 in ascending order (smallest, 1st percentile, 99th percentile, "
            f"largest), but {values} came."
        )
    span = [math.log2(v) for v in values]
    with look():
        figure = Figure(figsize=SIZE, dpi=100)
        ranges = figure.add_axes((0.085, 0.51, 0.9, 0.37))
        steps = figure.add_axes((0.085, 0.085, 0.9, 0.335))
        figure.text(0.008, 0.965, title, fontsize=15, weight="bold", va="center")
        for ax in (ranges, steps):
            ax.axvspan(span[0], span[3], color=BAND, zorder=0)
            ax.axvspan(span[1], span[2], color=CORE, zorder=0)
        _draw_ranges(ranges, formats)
        _draw_steps(steps, formats)
        _set_axis(ranges, steps, formats)
        _draw_keys(figure, source)
    return StillPicture(figure, _alt(title, source, span, formats))


def _draw_ranges(ax: Axes, formats: Sequence[FloatFormat]) -> None:
    """A bar a format: solid where all bits are there, hatched where bits drop off; its three limits in words."""
    for row, fmt in enumerate(formats):
        color = PRECISION[fmt.name]["color"]
        low, normal, high = _edges(fmt)
        ax.barh(-row, high - normal, 0.42, left=normal, color=color, edgecolor="white", zorder=2)
        ax.barh(-row, normal - low, 0.42, left=low, color="white", edgecolor=color, hatch="//////", zorder=2)
        bits, wide = f"{fmt.mantissa_bits + 1} significant bits", high - normal > 100
        words = (
            (low, "right", f"{power(round(low))} "),
            (normal, "left" if wide else "center", power(round(normal))),
            (high, "left", f" {_largest(fmt)}" if wide else f" {_largest(fmt)}, {bits}"),
        )
        for x, side, text in words:
            inside = x == normal
            ax.text(
                x, -row + (0.25 if inside else 0), text, ha=side, va="bottom" if inside else "center", fontsize=10.5
            )
        if wide:
            ax.text((normal + high) / 2, -row + 0.25, bits, ha="center", va="bottom", fontsize=10.5)
    ax.set_yticks([-row for row in range(len(formats))], [fmt.name for fmt in formats])
    ax.set_ylim(0.68 - len(formats), 0.62)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _draw_steps(ax: Axes, formats: Sequence[FloatFormat]) -> None:
    """Spacing / number at each power of two, the largest of its octave; it climbs where numbers are subnormal."""
    for fmt in formats:
        look_of = PRECISION[fmt.name]
        low, normal, high = _edges(fmt)
        x = [low, normal, high]
        y = [0.0, -fmt.mantissa_bits, -fmt.mantissa_bits]
        ax.plot(x, y, color=look_of["color"], linestyle=look_of["linestyle"], linewidth=2.2, marker=look_of["marker"],
                markersize=6, label=fmt.name, zorder=3)  # fmt: skip
    ax.set_ylim(-25.5, 1.5)
    marks = sorted({0, *(-fmt.mantissa_bits for fmt in formats)})
    crowded = {mark for below, mark in pairwise(marks) if mark - below < 2}
    ticks = [mark for mark in marks if mark not in crowded]
    ax.set_yticks(ticks, [power(mark) if mark else "1" for mark in ticks], fontsize=10.5)
    for fmt in formats:
        if -fmt.mantissa_bits in crowded:  # no room at the axis: say it at the end of the line
            ax.annotate(power(-fmt.mantissa_bits), (_edges(fmt)[2], -fmt.mantissa_bits), (8, 0),
                        textcoords="offset points", va="center", fontsize=10.5)  # fmt: skip
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.8, zorder=0)
    ax.legend(loc="center right", bbox_to_anchor=(1, 0.32), ncols=2, fontsize=10.5, handlelength=4)
    ax.set_title(
        "Spacing to the next number, as a share of the number (at powers of two)", fontsize=12, weight="normal"
    )


def _set_axis(ranges: Axes, steps: Axes, formats: Sequence[FloatFormat]) -> None:
    low = min(_edges(fmt)[0] for fmt in formats) - 2 * MARGIN
    high = max(_edges(fmt)[2] for fmt in formats) + 2 * MARGIN
    ticks = [t for t in range(-160, 161, TICKS) if low < t < high]
    for ax in (ranges, steps):
        ax.set_xlim(low, high)
        ax.set_xticks(ticks, [power(t) if t else "1" for t in ticks])
    steps.set_xlabel("magnitude of the number")


def _draw_keys(figure: Figure, source: str) -> None:
    keys = (
        (Patch(facecolor="#888888"), "normal: all bits"),
        (Patch(facecolor="white", edgecolor="#888888", hatch="//////"), "subnormal: fewer bits"),
        (Patch(facecolor=CORE, edgecolor=GRADIENT_EDGE, linewidth=0), f"the middle 98 % of {source}"),
        (Patch(facecolor=BAND, linewidth=0), "all of them"),
    )
    figure.legend(*zip(*keys, strict=True), loc="upper left", bbox_to_anchor=(0.0, 0.945), ncols=4, fontsize=10.5,
                  columnspacing=1.4, handletextpad=0.5, labelcolor=INK)  # fmt: skip


def _edges(fmt: FloatFormat) -> tuple[float, float, float]:
    """Log2 of the smallest subnormal, the smallest normal and the largest value."""
    return math.log2(fmt.smallest_subnormal), math.log2(fmt.smallest_normal), math.log2(fmt.max)


def _largest(fmt: FloatFormat) -> str:
    return f"{fmt.max:.0f}" if fmt.max < 1e6 else f"{fmt.max:.1e}".replace("e+", "e")


def _alt(title: str, source: str, span: Sequence[float], formats: Sequence[FloatFormat]) -> str:
    """Every limit in words."""
    rows = "; ".join(
        f"{fmt.name} {power(round(low))} (smallest subnormal), {power(round(normal))} (smallest normal), "
        f"{_largest(fmt)} (largest), relative spacing {power(-fmt.mantissa_bits)}"
        for fmt in formats
        for low, normal, _ in (_edges(fmt),)
    )
    core = f"{power(round(span[1]))} to {power(round(span[2]))}"
    return (
        f"{title}. Formats on one axis of magnitudes: {rows}. A band marks {source}: the middle 98 % lie from {core}."
    )
