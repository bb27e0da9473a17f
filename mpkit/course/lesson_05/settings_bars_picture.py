"""What a few settings of a scaler do: a bar for each, one picture for each thing that was measured."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from mpkit.course.lesson_05.settings_sweep_picture import SHADES
from mpkit.course.pictures.style import look


def settings_bars(
    tables: Mapping[str, Sequence[float]], rows: Sequence[str], title: str, row_label: str, words: Sequence[str] = ()
) -> Figure:
    """Bars with their numbers written at the end; a longer one is worse.

    Args:
        tables: name with unit → a number of each row.
        rows: names of the settings, from top to bottom.
        title: the finding. `row_label`: what the names say. `words`: one for each number of the last table.

    Raises:
        ValueError: a table has another number of rows than there are names.
    """
    with look():
        figure = Figure(figsize=(9.6, 3.2), dpi=100, layout="constrained")
        figure.suptitle(title, x=0.012, ha="left", fontsize=14, weight="bold")
        axes = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
        for ax, (name, values) in zip(axes, tables.items(), strict=True):
            if len(values) != len(rows):
                raise ValueError(f"table {name!r} needs {len(rows)} numbers, one for each row, but {len(values)} came.")
            ax.barh(range(len(rows)), values, color=SHADES[-1])
            ax.set_title(f"{name} (longer is worse)", fontsize=12, weight="normal")
            said = words if words and ax is axes[-1] else [""] * len(rows)
            room = 1.6 if any(said) else 1.18
            ax.set(xlim=(1.1 * min(*values, 0.0), room * max(*values, 1e-9)), xticks=[])
            ax.grid(False)
            for y, (value, word) in enumerate(zip(values, said, strict=True)):
                text = f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
                text += f" {word}" * bool(word)
                ax.text(max(value, 0.0), y, f" {text}", ha="left", va="center")
        axes[0].set_yticks(range(len(rows)), rows)
        axes[0].set_ylim(len(rows) - 0.5, -0.5)
        axes[0].set_ylabel(row_label)
    return figure
