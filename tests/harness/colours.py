"""How far two colours are apart: WCAG 2.2, "contrast ratio"."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb

# IEC 61966-2-1 (sRGB): linear RGB to CIE XYZ; its row sums are the white point.
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(color: str) -> np.ndarray:
    """Red, green and blue as shares of light."""
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """From 1, the same, to 21, black on white."""
    light, dark = sorted((float(XYZ[1] @ linear(c)) for c in (a, b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
