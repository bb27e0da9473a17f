"""One look for every picture: a colour, a marker and a dash for each precision; the colours of zones; the sheet."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib import rc_context

# After Okabe and Ito 2008, "Color universal design": told apart with every common colour-vision deficiency. Their pale
# colours are darker here, for a line has to stand out from white by 3 to 1 (WCAG 2.2, 1.4.11).
# Marker and dash repeat the message for print and for those who see no colour.
PRECISION: dict[str, dict[str, Any]] = {
    "FP32": {"color": "#222222", "marker": "o", "linestyle": "-"},
    "TF32": {"color": "#3097F8", "marker": "^", "linestyle": (0, (1, 1))},
    "FP16": {"color": "#D55E00", "marker": "s", "linestyle": (0, (5, 2))},
    "BF16": {"color": "#0072B2", "marker": "D", "linestyle": (0, (3, 1, 1, 1))},
    "E4M3": {"color": "#CC79A7", "marker": "v", "linestyle": (0, (7, 2, 1, 2))},
    "E5M2": {"color": "#009E73", "marker": "P", "linestyle": (0, (2, 2))},
}

INK = "#222222"
FAINT = "#767676"
EDGE = "#555555"  # of axes and of zones
GRADIENT, GRADIENT_EDGE = "#5FA3D6", "#123D61"
WEIGHT = "#222222"
ZONE = {"flushed": "#F8E3D4", "subnormal": "#FAF0D2", "normal": "#FFFFFF", "overflow": "#E6D3DF"}
ZONE_TEXT = {"flushed": "#9A3B00", "subnormal": "#7A5900", "normal": "#333333", "overflow": "#6B1D52"}

DENSITY = 2  # dots of a picture for a pixel of the page, along each side: screens of today have two
SHEET = Path(__file__).with_name("mpkit.mplstyle")  # type sizes and what else matplotlib itself decides

SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def look() -> Any:
    """Context manager under which figures get the shared look; the learner's own settings stay as they are."""
    return rc_context(fname=SHEET)


@cache
def readable(color: str) -> str:
    """The colour for words: darker until they stand out from white by 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    levels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    while _light(levels) > 1.05 / 4.5 - 0.05:
        levels = [0.98 * level for level in levels]
    return "#" + "".join(f"{int(255 * level):02X}" for level in levels)


def _light(levels: Sequence[float]) -> float:
    """Relative luminance of sRGB (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in levels]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def power(exponent: int) -> str:
    """2 to `exponent` with superscript digits: power(-24) is 2⁻²⁴."""
    return "2" + str(exponent).translate(SUPERSCRIPT)


def percent(share: float) -> str:
    """A share (0 to 1) as text that never rounds something down to nothing or up to all."""
    if share == 0 or share == 1:
        return f"{share:.0%}"
    if share < 0.001:
        return "<0.1%"
    if share > 0.999:
        return ">99.9%"
    return f"{100 * share:.1f}%" if share < 0.0995 or share >= 0.995 else f"{100 * share:.0f}%"
