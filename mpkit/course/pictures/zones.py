"""The four zones of a format on an axis of magnitudes: flushed, subnormal, normal, overflow."""

import math

from matplotlib.axes import Axes

from mpkit import FloatFormat
from mpkit.course.pictures.canvas import Frame
from mpkit.course.pictures.style import EDGE, INK, ZONE, ZONE_TEXT, power


def draw_zones(frame: Frame, axes: Axes, fmt: FloatFormat, name_y: float, limit_y: float) -> None:
    """Colour the zones of `fmt` on an x axis in powers of two, name them and label the three limits between them.

    Args:
        frame: what is drawn on; the zones cover what was there before.
        axes: its limits must be set; those of x are in powers of two.
        fmt: the format.
        name_y, limit_y: height of the names and of the limits' labels, in data coordinates.
    """
    low, high = axes.get_xlim()
    edges = [math.log2(fmt.flush_at), math.log2(fmt.smallest_normal), math.log2(fmt.overflow_at)]
    spans = zip([-math.inf, *edges], [*edges, math.inf], ("flushed", "subnormal", "normal", "overflow"), strict=True)
    for left, right, zone in spans:
        _draw_zone(frame, axes, fmt, (max(left, low), min(right, high)), zone, name_y)
    shown = (power(round(edges[0])), power(round(edges[1])), f"{fmt.max:.6g}" if fmt.max < 1e6 else "")
    close = edges[1] - edges[0] < 6  # then the two labels stand back to back
    for edge, label, side in zip(edges, shown, "rlm" if close else "mmm", strict=True):
        if low < edge < high:
            frame.line(axes, [(edge, y) for y in axes.get_ylim()], EDGE, 1.4)
            frame.text((edge, limit_y), label, INK, 15, anchor=f"{side}d", axes=axes)


def top(fmt: FloatFormat) -> str:
    """What a value beyond the largest one becomes, unless the caller decides otherwise."""
    return "Inf" if fmt.has_inf else f"{fmt.max:.0f}"


def _draw_zone(frame: Frame, axes: Axes, fmt: FloatFormat, span: tuple[float, float], zone: str, name_y: float) -> None:
    left, right = span
    if right - left < 1:
        return
    bottom, height = axes.get_ylim()
    frame.polygon(axes, [(left, bottom), (right, bottom), (right, height), (left, height)], ZONE[zone])
    wide = right - left > 17
    words = {
        "flushed": "flushed to zero" if wide else "flushed",
        "subnormal": "subnormal\nfewer bits" if right - left > 8 else "",
        "normal": f"normal: all {fmt.mantissa_bits + 1} bits" if wide else "normal",
        "overflow": top(fmt),
    }
    frame.text(((left + right) / 2, name_y), words[zone], ZONE_TEXT[zone], 14, True, "ma", axes)
