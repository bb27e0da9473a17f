"""The memory of a training step as one bar a way to train, its kinds side by side."""

from collections.abc import Mapping

from mpkit.course.lesson_07.memory import KINDS
from mpkit.course.pictures.canvas import Canvas, Frame
from mpkit.course.pictures.style import FAINT, INK, look

SIZE = (1040, 400)  # pixels
COLORS = dict(zip(KINDS, ("#0072B2", "#3097F8", "#CD8500", "#009E73", "#C97AA9"), strict=True))
GIB = 2**30
LETTER = 0.0125  # of the longest bar: a small letter's width, 8 pixels of 634

Ledgers = Mapping[str, Mapping[str, float]]  # bytes by way and kind


def gib(size: float) -> str:
    """Bytes as GiB with two or three digits."""
    return f"{size / GIB:.3g} GiB" if size < 100 * GIB else f"{size / GIB:,.0f} GiB"


def headline(ledgers: Ledgers) -> str:
    """The title: what autocast saves or costs, and where the 16-bit copies of the weights come into it."""
    total = {way: sum(kinds.values()) for way, kinds in ledgers.items()}
    change = total["autocast"] / total["FP32"] - 1
    copies = ledgers["autocast"]["16-bit weights"] / total["autocast"]
    keeps = f"{abs(change):.0%} {'less' if change < 0 else 'more'} than FP32" if round(change, 2) else "as much as FP32"
    part = f"{copies:.0%}" if copies >= 0.01 else "less than 1%"
    return f"Autocast keeps {keeps}; its 16-bit copies of the weights are {part} of that"


class LedgerFigure:
    """A bar a way to train; their axis follows the largest."""

    def __init__(self) -> None:
        with look():
            self.canvas = Canvas(SIZE, [INK, FAINT, *COLORS.values()])
            self.axes = self.canvas.figure.add_axes((0.25, 0.06, 0.61, 0.66), xlim=(0, 1), ylim=(4.6, -0.6))
            self.axes.set_axis_off()
            self.canvas.freeze()

    def show(self, ledgers: Ledgers, title: str, about: str) -> Frame:
        """The picture of these ledgers."""
        frame = self.canvas.frame()
        frame.text((12, 10), title, size=18, bold=True)
        frame.text((12, 42), about, size=13, color=FAINT)
        x = 130.0
        for kind, color in COLORS.items():
            frame.text((x, 82), "■", color=color, size=14, bold=True)
            frame.text((x + 15, 82), kind, size=14, bold=True)
            x += 36 + 9.6 * len(kind)
        largest = max(sum(kinds.values()) for kinds in ledgers.values()) or 1.0
        for row, (way, kinds) in enumerate(ledgers.items()):
            left = 0.0
            frame.text((-0.015, row), way, size=14, anchor="rm", axes=self.axes)
            for kind, size in kinds.items():
                right = left + size / largest
                corners = [(left, row - 0.36), (right, row - 0.36), (right, row + 0.36), (left, row + 0.36)]
                frame.polygon(self.axes, corners, COLORS[kind], edge="#FFFFFF")
                if size / largest > LETTER * len(words := gib(size)):
                    color = "#FFFFFF" if kind == "FP32 weights" else INK
                    frame.text(((left + right) / 2, row), words, color=color, size=12, anchor="mm", axes=self.axes)
                left = right
            frame.text((left + 0.01, row), gib(sum(kinds.values())), size=14, bold=True, anchor="lm", axes=self.axes)
        return frame
