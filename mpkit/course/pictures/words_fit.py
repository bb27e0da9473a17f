"""Whether a figure's words fit: none is cut at an edge, and no two lie on each other. What MPKIT_STRICT=1 refuses."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

Box = tuple[float, float, float, float]  # left, top, right, bottom


def refuse_cut(figure: Figure) -> None:
    """ValueError: something that is drawn reaches out of the figure."""
    FigureCanvasAgg(figure).draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    beyond = max(-box.x0, -box.y0, box.x1 - width, box.y1 - height)
    if beyond > 0.02:  # boxes of words are wider than their ink
        raise ValueError(f"the picture is cut: its words reach {100 * beyond:.0f} pixels beyond its edge.")


def refuse_smeared(figure: Figure) -> None:
    """ValueError: words of the figure, which was drawn before, lie on each other."""
    if found := smeared(figure_boxes(figure), 2 * figure.dpi / 100):
        raise ValueError(f"words lie on each other: {found[0]}.")


def figure_boxes(figure: Figure) -> dict[str, Box]:
    """Where the texts of a drawn figure lie, by number and words, in its dots from the upper left corner."""
    renderer, height, found = figure.canvas.get_renderer(), figure.bbox.height, {}  # type: ignore[attr-defined]
    hidden = {label for axes in figure.axes for label in _hidden(axes)}
    for number, text in enumerate(figure.findobj(Text)):
        assert isinstance(text, Text)
        if text.get_text().strip() and text.get_visible() and text not in hidden:
            box = text.get_window_extent(renderer)
            found[f"still {number}: {text.get_text()}"] = (box.x0, height - box.y1, box.x1, height - box.y0)
    return found


def smeared(found: dict[str, Box], slack: float = 1.0) -> list[str]:
    """Pairs of words of which one hides a part of the other; boxes may overlap by `slack` from top to bottom."""
    return [
        f"{one} / {other}"
        for (one, a), (other, b) in combinations(found.items(), 2)
        if min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1]) + slack
    ]


def _hidden(axes: Any) -> Iterator[Text]:
    """Labels of ticks beyond an axis's ends, and of an axis that is off."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        shown, margin = axes.axison and axis.get_visible(), 1e-9 * (high - low)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not shown or not low - margin <= tick.get_loc() <= high + margin:
                yield from (tick.label1, tick.label2)
        if not shown:
            yield axis.label
