"""A picture that is no longer the one of the settings: pale, below a title that says what to do."""

import io

from PIL import Image, ImageDraw

from mpkit.course.pictures.canvas import Frame, font
from mpkit.course.pictures.style import DENSITY, INK


class Paled:
    """The picture of a race that is no longer the chosen one: pale, below a title that is not."""

    def __init__(self, frame: Frame, title: str) -> None:
        self.frame, self.title = frame, title

    def png(self) -> bytes:
        """As a PNG file's bytes."""
        image = self.frame.image()
        image = Image.blend(image, Image.new("RGB", image.size, "white"), 0.65)
        place, letters = (12 * DENSITY, 10 * DENSITY), font(19 * DENSITY, bold=True)
        ImageDraw.Draw(image).text(place, self.title, INK, letters)
        out = io.BytesIO()
        image.save(out, "PNG", compress_level=1)
        return out.getvalue()
