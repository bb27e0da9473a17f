"""Figures that `python -m mpkit record-speed` measured on a named GPU, and what follows from them by arithmetic."""

from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

from mpkit.course.recorded.machine import MachineRecord

BYTES = {"FP32": 4, "TF32": 4, "FP16": 2, "BF16": 2, "FP8": 1}
RESULT = {"FP8": "BF16"}  # what a product is stored in, where it is not its operands' format
LAST = 10  # a run's end is the mean loss of so many last steps
ONCE = 0.15  # eager times of small models swing by so much around the median, where no range tells


@dataclass(frozen=True)
class SpeedRecord(MachineRecord):
    """One machine's figures.

    `resnet50[way]`: a row of `mpkit.course.runs.resnet_rows.resnet_row`; `parts`: milliseconds of forward, backward,
    update; `matmul[format][n]`: TFLOP/s of an n x n product; `bandwidth[format]`: GB/s of a large addition;
    `small[model][way]`: milliseconds of a step; `sheet`: what the vendor promises, see `mpkit.course.recorded.sheets`,
    or None.

    `losses[arm][seed]`: training losses of ResNet-50 at the learning rate `rate`, which FP32 chose on other seeds:
    `tuning[rate]` has where those ended. `skipped[arm][seed]`: steps without an update. `margin`: nats, named before.
    """

    KIND: ClassVar[str] = "speed"
    MACHINE: ClassVar[str] = "nvidia_h100_80gb_hbm3"
    batch: int
    resnet50: dict[str, dict[str, Any]]
    parts: dict[str, float]
    losses: dict[str, list[list[float]]]
    skipped: dict[str, list[int]]
    tuning: dict[str, list[float]]
    rate: float
    margin: float
    matmul: dict[str, dict[int, float]]
    bandwidth: dict[str, float]
    small: dict[str, dict[str, float]]
    sheet: dict[str, float | None] | None

    @classmethod
    def figures(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Sizes of matrices become numbers again, and of the additions the largest is kept."""
        matmul = {fmt: {int(n): v for n, v in row.items()} for fmt, row in data["matmul"].items()}
        largest = data["add"][max(data["add"], key=int)]
        return super().figures({**data, "matmul": matmul, "bandwidth": largest})

    def speedup(self, way: str, over: str = "fp32") -> float:
        """How many times as many images a second as another way."""
        return float(self.resnet50[over]["ms"] / self.resnet50[way]["ms"])

    def joules(self, way: str) -> float | None:
        """Energy of an image; None where it was not counted."""
        joules: float | None = self.resnet50[way]["joules_per_image"]
        return joules

    def spread(self, model: str, way: str) -> tuple[float, float]:
        """Least and most milliseconds of a small model's step; measured once, the median and what such times swing."""
        ms = self.small[model][way]
        least, most = self.range.get("small", {}).get(model, {}).get(way, (ms * (1 - ONCE), ms * (1 + ONCE)))
        return least, most

    def apart(self, model: str, way: str, other: str) -> bool:
        """Whether the ranges of two ways do not overlap: only then is one called faster than the other."""
        (least, most), (its_least, its_most) = self.spread(model, way), self.spread(model, other)
        return most < its_least or its_most < least

    def best(self, fmt: str) -> float:
        """The fastest product that was measured, TFLOP/s."""
        return max(self.matmul[fmt].values())

    def peak(self, fmt: str) -> float | None:
        """The data sheet's peak, TFLOP/s; None where there is none, or the GPU is not known."""
        return None if self.sheet is None else self.sheet.get(fmt)

    def roof(self, fmt: str) -> float:
        """The peak, or where the GPU is not known the best that was measured, TFLOP/s."""
        return self.peak(fmt) or self.best(fmt)

    def ends(self, arm: str) -> list[float]:
        """Each seed's mean loss in the last ten steps."""
        return [fmean(curve[-LAST:]) for curve in self.losses[arm]]


def amdahl(faster: float, rest: float, speedup: float) -> float:
    """Bound of the whole speed-up, if only a part becomes faster (Amdahl 1967).

    Args:
        faster, rest: times of the part that becomes faster and of all others, in the same unit, before.
        speedup: of that part; above 0.

    ValueError: a time below 0, none at all, or a speed-up that is not above 0.
    """
    if faster < 0 or rest < 0 or faster + rest == 0 or speedup <= 0:
        raise ValueError(f"times from 0 on and a speed-up above 0 are asked for; {faster}, {rest} and {speedup} came.")
    return (faster + rest) / (faster / speedup + rest)


def intensity(n: int, fmt: str) -> float:
    """Operations a byte of an n x n product: 2 n^3 of them, for three matrices moved once. FP8's result is in BF16."""
    return 2 * n**3 / (n * n * (2 * BYTES[fmt] + BYTES[RESULT.get(fmt, fmt)]))
