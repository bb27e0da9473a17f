"""Error of a dot product by its length, one line for each way to add up: a still picture of lesson 02."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from mpkit.course.pictures.still import StillPicture
from mpkit.course.pictures.style import INK, PRECISION, look

SECOND = {"linestyle": ":", "markerfacecolor": "white"}  # of a precision that has a line already


def dot_error_picture(
    lengths: Sequence[int], errors: Mapping[str, Sequence[Sequence[float]]], title: str
) -> StillPicture:
    """Relative errors over lengths, both axes logarithmic; one mark for each seed, a line through their means.

    Args:
        lengths: of the dot products.
        errors: name → for each length the positive errors of all seeds. A name begins with its accumulator's format
            and a comma, such as "FP16, one by one"; two names of one format are told apart by their marks.
        title: the finding.
    """
    with look():
        figure = Figure(figsize=(9.0, 4.4), layout="constrained")
        axes = figure.add_subplot()
        seen: set[str] = set()
        for name, rows in errors.items():
            precision = name.split(",")[0]
            style = {**PRECISION[precision], **(SECOND if precision in seen else {})}
            seen.add(precision)
            means = [sum(row) / len(row) for row in rows]
            each = {**style, "linestyle": "none", "markersize": 6, "markeredgecolor": style["color"]}
            axes.plot(lengths, means, linewidth=1.8, markersize=0, **style)
            points = [(length, error) for length, row in zip(lengths, rows, strict=True) for error in row]
            axes.plot(*zip(*points, strict=True), **each)
            axes.plot([], [], label=name, linewidth=1.8, markeredgecolor=style["color"], **style)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
        axes.set_xlabel("length of the dot product")
        axes.set_ylabel("relative error")
        axes.tick_params(colors=INK)
        axes.set_title(title, pad=12)
        axes.legend(loc="upper left")
    alt = f"{title}. One line over lengths {lengths[0]:,} to {lengths[-1]:,} for each of: {'; '.join(errors)}."
    return StillPicture(figure, alt)
