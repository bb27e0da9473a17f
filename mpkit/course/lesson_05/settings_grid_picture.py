"""Two tables of numbers as heat maps side by side: what a grid of settings of a scaler does."""

from collections.abc import Mapping, Sequence

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mpkit.course.lesson_05.settings_sweep_picture import SHADES
from mpkit.course.pictures.style import look

BETTER = LinearSegmentedColormap.from_list("better", SHADES)  # ink can be read on all of it


def settings_grid(
    tables: Mapping[str, Sequence[Sequence[float]]], rows: Sequence[str], columns: Sequence[str], title: str,
    row_label: str, column_label: str, best: Mapping[str, str],
) -> Figure:  # fmt: skip
    """One heat map a table, each number written in its cell; darker is better, as in the sweep.

    Args:
        tables: name with unit → (rows, columns) numbers.
        rows, columns: tick labels.
        title: the finding. `row_label`, `column_label`: axis labels with units.
        best: name → "low" or "high", which end of the table is good.

    Raises:
        ValueError: a table has another shape than the labels, or `best` does not say low or high for it.
    """
    with look():
        figure = Figure(figsize=(9.6, 3.7), dpi=100, layout="constrained")
        figure.suptitle(title, x=0.012, ha="left", fontsize=14, weight="bold")
        for ax, (name, table) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
            if [len(row) for row in table] != [len(columns)] * len(rows) or best.get(name) not in ("low", "high"):
                raise ValueError(
                    f"table {name!r} needs {len(rows)} rows of {len(columns)} numbers, and best 'low' or 'high'."
                )
            ax.imshow(table, cmap=BETTER if best[name] == "high" else BETTER.reversed(), aspect="auto")
            ax.set_xticks(range(len(columns)), columns)
            ax.set_yticks(range(len(rows)), rows)
            ax.set_title(f"{name} (darker is better)", fontsize=12, weight="normal")
            ax.set_xlabel(column_label)
            ax.set_ylabel(row_label)
            ax.grid(False)
            for y, row in enumerate(table):
                for x, value in enumerate(row):
                    text = f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
                    ax.text(x, y, text, ha="center", va="center")
    return figure
