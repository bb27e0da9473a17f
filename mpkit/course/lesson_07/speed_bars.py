"""Three cases in which FP16 gains little or nothing, as bars: launches, memory, and a wait in every step."""

from dataclasses import dataclass

from mpkit.course.pictures.canvas import Canvas, Frame
from mpkit.course.pictures.style import FAINT, INK, PRECISION, look
from mpkit.course.recorded.speed import BYTES, SpeedRecord

SIZE = (1040, 470)  # pixels
CASES = ("launch-bound", "memory-bound", "sync every step")
VALUES = 2**26  # how many values the recorded addition has
PRODUCT = 4096  # side of the product that it is compared with
WAITING = "fp16-mixed eager, loss.item() every step"


@dataclass(frozen=True)
class Bar:
    """One row: what took so long, in which format, how long, in milliseconds, and its range, where there is one."""

    label: str
    format: str
    ms: float
    spread: tuple[float, float] | None = None

    @property
    def words(self) -> str:
        """The time, with least and most behind it."""
        return f"{self.ms:#.3g}" + (" ({:#.3g} to {:#.3g})".format(*self.spread) if self.spread else "")


WAYS = {
    "launch-bound": (
        ("PyTorch FP32 eager", "FP32, PyTorch", "FP32"), ("torch.amp eager", "FP16, torch.amp", "FP16"),
        ("fp32 captured", "FP32, captured", "FP32"), ("fp16-mixed captured", "FP16, captured", "FP16"),
    ),
    "sync every step": (("fp16-mixed eager", "FP16", "FP16"), (WAITING, "FP16, loss.item()", "FP16")),
}  # fmt: skip
Groups = dict[str, list[Bar]]  # each group has an axis of its own, from 0 to its longest bar


def groups(record: SpeedRecord, case: str) -> Groups:
    """The bars of one of `CASES`."""
    if case == "memory-bound":
        moved = {fmt: 2 * VALUES * BYTES[fmt] / (1e6 * record.bandwidth[fmt]) for fmt in ("FP32", "FP16")}
        worked = {fmt: 2 * PRODUCT**3 / (1e9 * record.matmul[fmt][PRODUCT]) for fmt in ("FP32", "FP16")}
        return {
            f"an addition of {VALUES:,} values": [Bar(fmt, fmt, ms) for fmt, ms in moved.items()],
            f"a product of {PRODUCT:,} x {PRODUCT:,}, for comparison": [
                Bar(fmt, fmt, ms) for fmt, ms in worked.items()
            ],
        }
    names = {"mlp": "a step of a small MLP", "transformer": "a step of a small transformer"}
    return {
        names[model]: [Bar(label, fmt, times[way], record.spread(model, way)) for way, label, fmt in WAYS[case]]
        for model, times in record.small.items()
    }


def case_headline(record: SpeedRecord, case: str) -> str:
    """The title of one case: a sentence on what the bars show."""
    ratios = [bars[1].ms / bars[0].ms for bars in groups(record, case).values()]
    if case == "memory-bound":
        return f"Memory-bound: FP16 adds {1 / ratios[0]:.1f} times as fast, and multiplies {1 / ratios[1]:.1f} times"
    (first, _, _), (second, _, _) = WAYS[case][:2]
    apart = [record.apart(model, first, second) for model in record.small]
    if case == "launch-bound":
        words = [f"{r:.1f}" if a else "about 1" for r, a in zip(ratios, apart, strict=True)]
        return "Launch-bound: torch.amp takes {} (MLP) and {} (transformer) times as long as plain FP32".format(*words)
    if not any(apart):
        return "A wait in every step costs neither model more than its times swing"
    costs = (f"{r - 1:.0%}" if a else "no more than its times swing" for r, a in zip(ratios, apart, strict=True))
    return "A wait in every step costs the MLP {}, the transformer {}".format(*costs)


class SpeedBars:
    """Two groups of bars under each other."""

    def __init__(self, record: SpeedRecord) -> None:
        self.record = record
        with look():
            colors = [str(PRECISION[fmt]["color"]) for fmt in ("FP32", "FP16")]
            self.canvas = Canvas(SIZE, [INK, FAINT, *colors])
            self.axes = [
                self.canvas.figure.add_axes((0.2, bottom, 0.62, 0.27), xlim=(0, 1), ylim=(3.6, -0.6))
                for bottom in (0.47, 0.06)
            ]
            for axes in self.axes:
                axes.set_axis_off()
            self.canvas.freeze()

    def show(self, case: str) -> Frame:
        """The picture of one of `CASES`."""
        frame = self.canvas.frame()
        frame.text((12, 10), case_headline(self.record, case), size=18, bold=True)
        frame.text((12, 42), self.record.source, size=12, color=FAINT)
        for axes, (name, bars) in zip(self.axes, groups(self.record, case).items(), strict=True):
            frame.text((0, -0.85), f"{name} (ms)", size=14, anchor="lb", axes=axes)
            longest = max(bar.ms for bar in bars)
            for row, bar in enumerate(bars):
                color = str(PRECISION[bar.format]["color"])
                right = bar.ms / longest
                corners = [(0, row - 0.36), (right, row - 0.36), (right, row + 0.36), (0, row + 0.36)]
                frame.polygon(axes, corners, color, edge="#FFFFFF")
                frame.text((-0.015, row), bar.label, size=14, anchor="rm", axes=axes)
                frame.text((right + 0.01, row), bar.words, size=14, bold=True, anchor="lm", axes=axes)
        return frame
