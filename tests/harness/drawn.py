"""The words that a panel's picture is made of, and every panel that has such a picture."""

from __future__ import annotations

import panelbench
from PIL import Image, ImageDraw

from mpkit.course.pictures.canvas import Frame, font

PEN = ImageDraw.Draw(Image.new("L", (1, 1)))
OTHERS = ("lesson 00, first look", "lesson 01, bit explorer")  # their words are HTML
PANELS = [case for case in panelbench.cases("cpu") if case.name not in OTHERS and "training" not in case.name]

Box = tuple[float, float, float, float]  # left, top, right, bottom


def boxes(frame: Frame) -> dict[str, Box]:
    """Where the ink of each text lies, by number and words."""
    found = {}
    for number, ((x, y), words, _, size, bold, anchor) in enumerate(frame._words):
        if words.strip():
            box = PEN.textbbox((0, 0), words, font(size, bold), anchor, spacing=0, align="center")
            found[f"{number}: {words}"] = (x + box[0], y + box[1], x + box[2], y + box[3])
    return found
