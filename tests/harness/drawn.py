"""The words that a panel's picture is made of, and every panel that has such a picture."""

from __future__ import annotations

from functools import cache

import panelbench
from PIL import Image, ImageDraw

from mpkit.course.pictures.canvas import Canvas, Frame, font
from mpkit.course.pictures.words_fit import Box, figure_boxes

PEN = ImageDraw.Draw(Image.new("L", (1, 1)))
OTHERS = ("lesson 00, first look", "lesson 01, bit explorer")  # their words are HTML
PANELS = [case for case in panelbench.cases("cpu") if case.name not in OTHERS and "training" not in case.name]


def boxes(frame: Frame) -> dict[str, Box]:
    """Where the ink of each text lies, by number and words."""
    found = {}
    for number, ((x, y), words, _, size, bold, anchor) in enumerate(frame._words):
        if words.strip():
            box = PEN.textbbox((0, 0), words, font(size, bold), anchor, spacing=0, align="center")
            found[f"{number}: {words}"] = (x + box[0], y + box[1], x + box[2], y + box[3])
    return found


def all_boxes(frame: Frame) -> dict[str, Box]:
    """The same with the words that never change: labels, ticks and names of axes."""
    return boxes(frame) | _still(frame._canvas)


@cache
def _still(canvas: Canvas) -> dict[str, Box]:
    found = figure_boxes(canvas.figure)
    return {words: tuple(at / canvas.density for at in box) for words, box in found.items()}  # type: ignore[misc]


def cut(found: dict[str, Box], size: tuple[int, int]) -> list[str]:
    """Words that reach out of a picture of that size."""
    return [words for words, box in found.items() if min(box[:2]) < 0 or box[2] > size[0] or box[3] > size[1]]
