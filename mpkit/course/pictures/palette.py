"""The 256 colours of a canvas: a PNG with a palette is encoded four times as fast as one in true colour."""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations
from typing import Any

from PIL import Image

from mpkit.course.pictures.style import INK

CLOSE = 8  # levels of a channel: of the colours in one cell of this size a palette has only the first
MOST = 40  # colours of the still part that come before mixtures

Levels = tuple[int, ...]  # red, green, blue, from 0 to 255


def palette(still: Image.Image, colors: Sequence[str] = ()) -> Image.Image:
    """White, ink and `colors` (hex), each exactly; then what the still part has most of, and what lies between two.

    Edges of words and lines have such mixtures. No frame is asked for its colours: a picture must not depend on those
    that were shown before it.
    """
    exact = [levels(color) for color in dict.fromkeys(("#FFFFFF", INK, *colors))]
    counted: Any = still.getcolors(still.width * still.height)
    seen: list[Levels] = [color for _, color in sorted(counted, reverse=True)]
    chosen, cells = list(exact), {_cell(color) for color in exact}
    for color in chain(seen[:MOST], _mixtures(exact), seen[MOST:]):
        if len(chosen) < 256 and (cell := _cell(color)) not in cells:
            chosen.append(color)
            cells.add(cell)
    table = Image.new("P", (1, 1))
    table.putpalette([level for color in chosen for level in color])
    return table


def levels(color: str) -> Levels:
    """Hex colour to three numbers from 0 to 255."""
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def _mixtures(exact: Sequence[Levels]) -> Iterator[Levels]:
    """Eighths between each colour and the first two, halves first; then quarters between all others."""
    plain = [(one, other) for other in exact[:2] for one in exact]
    for pairs, eighths in ((plain, (4, 2, 6, 1, 7, 3, 5)), (list(combinations(exact, 2)), (4, 2, 6))):
        for share in eighths:
            for one, other in pairs:
                yield tuple((share * a + (8 - share) * b) // 8 for a, b in zip(one, other, strict=True))


def _cell(color: Levels) -> Levels:
    return tuple(level // CLOSE for level in color)
