"""What is written and drawn stands out from its ground: text 4.5 to 1, graphics 3 to 1 (WCAG 2.2, 1.4.3 and 1.4.11).

A picture brings its own ground: white with pale zones, in JupyterLab's light theme and in its dark one. HTML lies on
the theme's own colours, which are read from the themes that JupyterLab brings along.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import panelbench
import pytest
from harness.colours import contrast
from harness.drawn import PANELS, boxes
from harness.pictures import DENSITY

from mpkit.course import markup
from mpkit.course.lesson_01.bit_table import BIT
from mpkit.course.lesson_07.memory_ledger_picture import COLORS
from mpkit.course.pictures.canvas import Frame
from mpkit.course.pictures.comparison import RUNS
from mpkit.course.pictures.style import EDGE, GRADIENT_EDGE, INK, PRECISION, ZONE, readable

TEXT, GRAPHIC = 4.5, 3.0
SYMBOLS = re.compile(r"[\W_]*")  # a mark of the key is a graphic
QUIET = {  # says nothing by itself: a line to stand on, a frame around what has another colour
    "#9CB6CC", "#BBBBBB", "#FFFFFF",
}  # fmt: skip
EVERY = 8  # moves of a control
# IPython's and JupyterLab's own: text, second text, and what lies behind a cell's output.
THEMES = Path(sys.prefix, "share/jupyter/lab/themes/@jupyterlab")


def ground(image: np.ndarray, box: tuple[float, ...]) -> str:
    """The commonest colour below a text."""
    left, top, right, bottom = (max(round(at * DENSITY), 0) for at in box)
    pixels = image[top : bottom + 1 : 2, left : right + 1 : 2].reshape(-1, 3)
    (level, _), *_ = Counter(map(tuple, pixels.tolist())).most_common(1)
    return "#{:02X}{:02X}{:02X}".format(*level)


def faint_words(frame: Frame) -> dict[str, float]:
    """Texts of a picture that are hard to read there, with their contrast."""
    found, image = {}, np.asarray(frame._canvas.image())
    for name, box in boxes(frame).items():
        _, words, color, *_ = frame._words[int(name.split(":")[0])]
        ratio = contrast(color, ground(image, box))
        if ratio < (GRAPHIC if SYMBOLS.fullmatch(words) else TEXT):
            found[f"{words} in {color}"] = round(ratio, 2)
    return found


@pytest.mark.parametrize("case", PANELS, ids=lambda case: case.name)
def test_a_panels_picture_can_be_read(case: panelbench.PanelCase, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: set[str] = set()

    def line(self: Frame, axes: Any, points: Any, color: str, *more: Any, **named: Any) -> None:
        drawn.add(color)
        draw_line(self, axes, points, color, *more, **named)

    def marks(self: Frame, axes: Any, points: Any, marker: str, color: str, size: float = 8.0, edge: str = INK) -> None:
        drawn.add(edge if contrast(edge, "white") > contrast(color, "white") else color)
        draw_marks(self, axes, points, marker, color, size, edge)

    draw_line, draw_marks = Frame.line, Frame.marks
    monkeypatch.setattr(Frame, "line", line)
    monkeypatch.setattr(Frame, "marks", marks)
    panel = case.make()
    assert faint_words(panel.draw()) == {}
    for number, (name, move) in enumerate(case.changes(panel)):
        move()
        if number % EVERY == 0:
            assert faint_words(panel.draw()) == {}, name
    faint = {color: round(contrast(color, "white"), 2) for color in drawn - QUIET}
    assert {color: ratio for color, ratio in faint.items() if ratio < GRAPHIC} == {}


def test_lines_marks_and_bars_stand_out() -> None:
    """Against white. Where a line crosses a zone, white lies on both sides of it; a bar has a white edge."""
    colors = [INK, GRADIENT_EDGE, *(one["color"] for one in PRECISION.values()), *(run[0] for run in RUNS)]
    assert {c: contrast(c, "white") for c in [*colors, *COLORS.values()] if contrast(c, "white") < GRAPHIC} == {}
    assert [zone for zone in ZONE.values() if contrast(EDGE, zone) < GRAPHIC] == [], "a line stands between zones"


def test_words_in_a_colour_are_as_dark_as_they_have_to_be() -> None:
    assert readable(INK) == INK
    for color in ("#3097F8", "#D55E00", "#CC79A7"):
        assert TEXT <= contrast(readable(color), "white") < TEXT + 0.3


def theme(name: str) -> dict[str, str]:
    """JupyterLab's colours by the name of the variable, mixed with the ground if they let it through."""
    sheet = (THEMES / f"theme-{name}-extension" / "index.css").read_text(encoding="utf-8")
    kept = dict(re.findall(r"(--[\w-]+):\s*([^;]+);", sheet))

    def value(variable: str) -> str:
        told = kept[variable].strip()
        return value(told[4:-1]) if told.startswith("var(") else told

    below = _levels(value("--jp-layout-color0"), (0.0, 0.0, 0.0))
    wanted = {found for text in (markup.TEXT, markup.FAINT) for found in re.findall(r"--[\w-]+", text)}
    return {
        one: "#{:02X}{:02X}{:02X}".format(*map(round, _levels(value(one), below)))
        for one in (*wanted, "--jp-layout-color0")
    }


def _levels(color: str, below: tuple[float, ...]) -> tuple[float, ...]:
    named = {"white": "#ffffff", "black": "#000000"}
    color = named.get(color, color)
    if color.startswith("#"):
        short = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
        return tuple(int(short[i : i + 2], 16) for i in (0, 2, 4))
    red, green, blue, share = map(float, re.findall(r"[\d.]+", color))
    return tuple(share * one + (1 - share) * other for one, other in zip((red, green, blue), below, strict=True))


@pytest.mark.parametrize("name", ["light", "dark"])
def test_html_can_be_read_in_both_themes(name: str) -> None:
    colors = theme(name)
    behind = colors.pop("--jp-layout-color0")
    assert contrast(behind, "white" if name == "light" else "black") < 1.2
    assert len(colors) == 2
    assert {one: color for one, color in colors.items() if contrast(color, behind) < TEXT} == {}
    # An accent repeats what the words say; the plain one and the lines of a table are no more than ornaments.
    edges = {kind: color for kind, color in markup.ACCENT.items() if kind != "plain"}
    assert {kind: color for kind, color in edges.items() if contrast(color, behind) < GRAPHIC} == {}


def test_text_on_a_fill_of_ours_can_be_read_in_any_theme() -> None:
    assert contrast("#ffffff", markup.ACCENT["note"]) >= TEXT
    assert min(contrast(*look) for looks in BIT.values() for look in looks) >= TEXT
