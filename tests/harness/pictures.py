"""A picture as the page shows it."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mpkit.course.pictures.style import DENSITY


def page_size(png: bytes) -> tuple[int, int]:
    """Width and height on the page, in pixels. It must be a PNG that can be decoded, and have whole pixels."""
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    assert image.width % DENSITY == image.height % DENSITY == 0
    return image.width // DENSITY, image.height // DENSITY


def page_pixels(png: bytes) -> np.ndarray:
    """(height, width, RGB): of each pixel of the page its first dot."""
    dots = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return dots[::DENSITY, ::DENSITY]
