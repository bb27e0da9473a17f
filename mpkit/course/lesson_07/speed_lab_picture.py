"""Speed of matrix products by size and format, under the roofline of the machine that they were measured on."""

import numpy as np

from mpkit.course.pictures.canvas import Canvas, Frame
from mpkit.course.pictures.style import FAINT, INK, PRECISION, look, percent, readable
from mpkit.course.recorded.speed import SpeedRecord, intensity

SIZE = (1040, 470)  # pixels
FORMATS = ("FP32", "TF32", "FP16", "BF16", "FP8")
STYLE = {**PRECISION, "FP8": PRECISION["E4M3"]}


def headline(record: SpeedRecord, n: int) -> str:
    """The title for one size: what FP16 gains there, and why."""
    gain = record.matmul["FP16"][n] / record.matmul["FP32"][n]
    share, whole = record.matmul["FP16"][n] / record.roof("FP16"), whole_of(record)
    lead = f"{n} x {n}: FP16 is " + (f"{gain:.1f} times as fast" if _apart(record, n) else "as fast") + " as FP32"
    if n % 8:
        return f"{lead}, at {share:.0%} of its {whole}: {n} is no multiple of 8"
    if share < 0.1:
        return f"{lead}, at {percent(share)} of its {whole}: too small to keep the GPU busy"
    return f"{lead}, at {share:.0%} of its {whole}"


def _apart(record: SpeedRecord, n: int) -> bool:
    """Whether the ranges of FP16 and FP32 do not overlap; True where there are none."""
    ranges = record.range.get("matmul")
    return not ranges or ranges["FP32"][str(n)][1] < ranges["FP16"][str(n)][0]


def in_digits(speed: float) -> str:
    """Three digits, and large numbers in full: 0.0251, 51.6, 1,229."""
    return f"{speed:,.0f}" if speed >= 1000 else f"{speed:.3g}"


def whole_of(record: SpeedRecord) -> str:
    """What shares are shares of: the data sheet's peak, or the best that was measured if the GPU is not known."""
    return "peak" if record.sheet else "best"


class SpeedFigure:
    """The roofline (Williams, Waterman and Patterson 2009) and all sizes, drawn once; `show` marks one size."""

    def __init__(self, record: SpeedRecord) -> None:
        self.record = record
        self.formats = [fmt for fmt in FORMATS if fmt in record.matmul]
        colors = [str(STYLE[fmt]["color"]) for fmt in self.formats]
        with look():
            self.canvas = Canvas(SIZE, [INK, FAINT, *colors, *map(readable, colors)])
            self.axes = self.canvas.figure.add_axes((0.075, 0.14, 0.58, 0.68), xscale="log", yscale="log")
            self.axes.set(xlim=(5, 6000), ylim=(0.008, 3500))
            self.axes.set_xlabel("operations a byte moved", fontsize=12, labelpad=2)
            self.axes.set_ylabel("TFLOP/s", fontsize=12)
            self.axes.tick_params(labelsize=11)
            x = np.geomspace(5, 6000, 200)
            for fmt in self.formats:
                bandwidth = record.bandwidth["FP32" if fmt in ("FP32", "TF32") else "FP16"] / 1000
                style = {"color": STYLE[fmt]["color"], "linestyle": STYLE[fmt]["linestyle"]}
                self.axes.plot(x, np.minimum(record.roof(fmt), bandwidth * x), linewidth=1.4, **style)
                for n, speed in record.matmul[fmt].items():
                    self.axes.plot(intensity(n, fmt), speed, STYLE[fmt]["marker"], color=style["color"], ms=3)
            self.canvas.freeze()

    def show(self, n: int) -> Frame:
        """The picture for products of n x n."""
        frame, record = self.canvas.frame(), self.record
        frame.text((12, 10), headline(record, n), size=18, bold=True)
        frame.text((12, 42), record.source, size=12, color=FAINT)
        left, top = 700, 92
        for x, head, anchor in (
            (0, "format", "la"),
            (150, "TFLOP/s", "ra"),
            (225, "x FP32", "ra"),
            (320, f"of {whole_of(record)}", "ra"),
        ):
            frame.text((left + x, top), head, size=13, color=FAINT, anchor=anchor)
        for row, fmt in enumerate(self.formats):
            speed, y, style = record.matmul[fmt].get(n), top + 36 + 32 * row, STYLE[fmt]
            frame.text((left, y), fmt, size=14, color=readable(style["color"]), bold=True, anchor="lm")
            if speed is None:
                frame.text((left + 80, y), "takes multiples of 16 only", size=13, color=FAINT, anchor="lm")
                continue
            frame.marks(self.axes, [(intensity(n, fmt), speed)], style["marker"], style["color"], size=12)
            numbers = (in_digits(speed), f"{speed / record.matmul['FP32'][n]:.1f}", percent(speed / record.roof(fmt)))
            for x, words in zip((150, 225, 320), numbers, strict=True):
                frame.text((left + x, y), words, size=14, anchor="rm")
        above = "the data sheet's peak" if record.sheet else "the fastest product here"
        notes = ("Lines: the roof. Left: the memory's speed, as", f"measured. Right: {above}.",
                 "Small marks: all sizes; large: this one.")  # fmt: skip
        for row, words in enumerate(notes):
            frame.text((left, top + 208 + 17 * row), words, size=12, color=FAINT)
        return frame
