"""`Canvas`: a picture that is redrawn while a slider moves, in a few milliseconds.

matplotlib draws once what never changes: axes, labels, zones. A redraw restores those pixels, adds the moving shapes
through matplotlib's renderer (without the cost of artists) and the words through PIL, and encodes 256 colours.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, IdentityTransform
from PIL import Image, ImageDraw, ImageFont

from mpkit.course.pictures.palette import levels, palette
from mpkit.course.pictures.style import DENSITY, EDGE, INK

Points = Sequence[tuple[float, float]] | np.ndarray
TICK = 5  # pixels: as long as matplotlib's own, and as far from the label
SMALLEST = 10  # pixels: words are not made smaller than that to fit
POINTS = 72 / 100  # of a pixel: the renderer counts widths in points, at 100 pixels an inch
_ROUND = MaxNLocator(nbins=9, steps=[1, 2, 2.5, 5, 10], integer=True)
Dash = str | tuple[float, tuple[float, ...]]


class Canvas:
    """A figure to draw the still part on; then `freeze` it and ask for frames.

    Args:
        size: width and height on the page, in pixels. All places and sizes are given in those.
        colors: hex colours that frames use. They come out exactly, all others as the nearest of a palette.
        density: dots of the picture for one of those pixels, along each side.
    """

    def __init__(self, size: tuple[int, int], colors: Sequence[str] = (), density: int = DENSITY) -> None:
        self.size, self.colors, self.density = size, tuple(colors), density
        self.figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100 * density)
        self.agg = FigureCanvasAgg(self.figure)
        self.palette: Image.Image | None = None
        self._still: Any = None

    def freeze(self) -> None:
        """Draw the still part; call it once, under `look()`, when axes, labels and zones are complete."""
        self.agg.draw()
        self._still = self.agg.copy_from_bbox(self.figure.bbox)
        self.palette = palette(self.image(), self.colors)

    def image(self) -> Image.Image:
        """What is drawn now, in true colour."""
        dots = (self.size[0] * self.density, self.size[1] * self.density)
        return Image.frombytes("RGB", dots, self.agg.buffer_rgba(), "raw", "RGBX")

    def place(self, axes: Axes, point: tuple[float, float]) -> tuple[float, float]:
        """Where data coordinates of an axes lie, in pixels from the upper left corner."""
        x, y = axes.transData.transform(point) / self.density
        return float(x), self.size[1] - float(y)

    def frame(self) -> Frame:
        """A fresh copy of the still part to draw on. It takes the place of the last frame.

        Raises:
            RuntimeError: the canvas was not frozen yet.
        """
        if self._still is None:
            raise RuntimeError("the still part of this canvas has not been drawn; call freeze() first.")
        self.agg.restore_region(self._still)
        return Frame(self)


class Frame:
    """One state of a canvas. Shapes take data coordinates of an axes and are clipped to it; words lie above them."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas, self._renderer, self._density = canvas, canvas.agg.get_renderer(), canvas.density
        self.place = canvas.place
        self._words: list[tuple[tuple[float, float], str, str, int, bool, str]] = []

    def polygon(self, axes: Axes, points: Points, fill: str, edge: str | None = None, width: float = 1.0) -> None:
        """A filled outline through `points` (n, 2), closed by itself."""
        self._path(axes, points, width if edge else 0.0, edge or fill, fill=fill)

    def line(self, axes: Axes, points: Points, color: str, width: float = 1.8, dash: Dash = "-") -> None:
        """A line of `width` pixels through `points` (n, 2). `dash`: a linestyle of `style.PRECISION`."""
        self._path(axes, points, width, color, dash=dash)

    def marks(self, axes: Axes, points: Points, marker: str, color: str, size: float = 8.0, edge: str = INK) -> None:
        """One `marker` (matplotlib's letters) of `size` pixels at each of `points` (n, 2)."""
        style = MarkerStyle(marker)
        shape = style.get_transform() + Affine2D().scale(size * self._density)
        gc = self._pen(axes, 1.0, edge)
        face = _rgb(color) if style.is_filled() else None
        path = Path(self._dots(axes, points))
        self._renderer.draw_markers(gc, style.get_path(), shape, path, IdentityTransform(), face)
        gc.restore()

    def cells(self, axes: Axes, colors: np.ndarray) -> None:
        """Fill an axes with the cells of a table: (rows, columns, 3) levels from 0 to 255, the first row on top."""
        wide, high = map(round, axes.bbox.size)
        dots = Image.fromarray(colors.astype(np.uint8)).resize((wide, high), Image.Resampling.NEAREST).convert("RGBA")
        place = round(axes.bbox.x0), round(axes.bbox.y0)
        self._renderer.draw_image(self._renderer.new_gc(), *place, np.asarray(dots)[::-1])

    def ticks(self, axes: Axes, side: str, labels: Mapping[float, str], size: int = 15) -> None:
        """Marks and their labels below (`side` "x") or left of ("y") an axes, by data coordinate."""
        for value, words in labels.items():
            point = (value, axes.get_ylim()[0]) if side == "x" else (axes.get_xlim()[0], value)
            x, y = self.place(axes, point)
            right, down = (0, TICK) if side == "x" else (-TICK, 0)
            self._path(None, [(x, y), (x + right, y + down)], 1.1, EDGE)
            place = (x + 2 * right, y + 2 * down)
            self.text(place, words, INK, size, anchor="mt" if side == "x" else "rm")

    def text(
        self, place: tuple[float, float], words: str, color: str = INK, size: int = 15, bold: bool = False,
        anchor: str = "la", axes: Axes | None = None,
    ) -> None:  # fmt: skip
        """Words at `place`: pixels from the upper left corner or, with `axes`, data coordinates.

        `size` in pixels; `anchor` in PIL's letters, such as "la" (left, top), "mm" (middle), "rs" (right, baseline).
        Lines of one text are centred. Words that would be cut at the right edge are written smaller.
        """
        if axes is not None:
            place = self.place(axes, place)
        if anchor[0] == "l":
            size = _fitting(words, size, bold, self._canvas.size[0] - place[0])
        self._words.append((place, words, color, size, bold, anchor))

    def image(self) -> Image.Image:
        """The frame in true colour."""
        image, density = self._canvas.image(), self._density
        for (x, y), words, color, size, bold, anchor in self._words:
            x, y = x * density, y * density
            left, top = math.floor(x), math.floor(y)
            shape, at = _stencil(words, size * density, bold, anchor, round(x - left, 2), round(y - top, 2))
            image.paste(color, (left + at[0], top + at[1]), shape)
        return image

    def png(self) -> bytes:
        """The frame as PNG, in 256 colours: that is four times as fast to encode as true colour."""
        image = self.image()
        out = io.BytesIO()
        image.quantize(palette=self._canvas.palette, dither=Image.Dither.NONE).save(out, "PNG", compress_level=1)
        return out.getvalue()

    def _path(
        self, axes: Axes | None, points: Points, width: float, color: str, fill: str | None = None, dash: Dash = "-"
    ) -> None:
        """Without axes, the points are pixels from the upper left corner."""
        points = self._dots(axes, points)
        gc = self._pen(axes, width, color)
        if not isinstance(dash, str):
            gc.set_dashes(dash[0] * width * POINTS, [part * width * POINTS for part in dash[1]])
        if fill is not None:
            points = np.vstack([points, points[:1]])
        self._renderer.draw_path(gc, Path(points), IdentityTransform(), None if fill is None else _rgb(fill))
        gc.restore()

    def _dots(self, axes: Axes | None, points: Points) -> np.ndarray:
        """Of the file, from the lower left corner, as the renderer counts; it alone knows no logarithmic axes."""
        points = np.asarray(points, dtype=float).reshape(-1, 2)
        if axes:
            return np.asarray(axes.transData.transform(points))
        return (points * (1, -1) + (0, self._canvas.size[1])) * self._density

    def _pen(self, axes: Axes | None, width: float, color: str) -> Any:
        gc = self._renderer.new_gc()
        gc.set_linewidth(width * POINTS)
        gc.set_foreground(color)
        gc.set_joinstyle("round")
        if axes:
            gc.set_clip_rectangle(axes.bbox)
        return gc


def _rgb(color: str) -> tuple[float, ...]:
    """Hex colour to three numbers from 0 to 1."""
    return tuple(value / 255 for value in levels(color))


def counts(most: int) -> list[float]:
    """Round whole numbers from 0 to `most` for an axis of steps: ten at most."""
    return [step for step in _ROUND.tick_values(0, most) if step <= most]


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The figure's own typeface for the words that PIL writes; matplotlib brings the file along."""
    return ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")), size)


@lru_cache(maxsize=500)
def _fitting(words: str, size: int, bold: bool, room: float) -> int:
    """`size`, or the largest below it in which the words are at most `room` pixels wide; `SMALLEST` if none is."""
    while size > SMALLEST and max(map(font(size, bold).getlength, words.split("\n"))) > room:
        size -= 1
    return size


@lru_cache(maxsize=500)
def _stencil(words: str, size: int, bold: bool, anchor: str, x: float, y: float) -> tuple[Image.Image, tuple[int, int]]:
    """Words that start at a fraction of a pixel, as coverage, and where their corner lies. Most stay between frames."""
    how: dict[str, Any] = {"font": font(size, bold), "anchor": anchor, "align": "center", "spacing": 0}
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((x, y), words, **how)
    corner = min(math.floor(left) - 1, 0), min(math.floor(top) - 1, 0)  # PIL cuts what it places below 0
    shape = Image.new("L", (math.ceil(right) + 1 - corner[0], math.ceil(bottom) + 1 - corner[1]))
    ImageDraw.Draw(shape).text((x - corner[0], y - corner[1]), words, 255, **how)
    return shape, corner
