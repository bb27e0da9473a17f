"""One state of the granularity panel: what was cast, how, and every number of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mpkit import E2M1, E2M3, E4M3
from mpkit.course.lesson_09.granularity_data import SMALL, data
from mpkit.course.lesson_09.granularity_effect import Effect, about, cast_repeatably, effect, mean_of_draws, peaks
from mpkit.scaled import INT4, INT8, ScaledFormat
from mpkit.scaled.scaled_format import Block

FORMATS = {fmt.name: fmt for fmt in (INT8, INT4, E4M3, E2M3, E2M1)}
GROUPS: dict[str, Block] = {
    "tensor": (None, None), "row": (1, None), "column": (None, 1), "1×32": (1, 32), "1×16": (1, 16), "16×16": (16, 16),
}  # fmt: skip
SCALES = {
    "exact": "FP32, exact", "up": "power of 2, up", "floor": "power of 2, OCP's floor",
    "two-level": "NVFP4's two levels",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Rounded:
    """One way of rounding: what 0.2 becomes beside 6.0, and the picture."""

    constant: float
    picture: Effect


@dataclass(frozen=True, eq=False)
class View:
    """`reference`: the matrix in `reference_format`, which the title compares with. `rounded`: nearest, once, mean."""

    values: str
    fmt: ScaledFormat
    picture: Effect
    matrix: Effect
    reference_format: ScaledFormat
    reference: Effect
    rounded: Mapping[str, Rounded] = field(default_factory=dict)

    @property
    def compares(self) -> bool:
        """Whether the picture shows what happens to the largest weights by OCP's floor, and rounded up."""
        return self.fmt.rule == "floor" and self.values == "no outlier"

    @property
    def peaks(self) -> tuple[Tensor, Tensor]:
        """For each weight, by what share the largest of its group changes: in `fmt`, and in `reference_format`."""
        return peaks(self.matrix, self.fmt), peaks(self.reference, self.reference_format)


def scaled_format(values: str, groups: str, scales: str) -> ScaledFormat:
    """The format that the names of three controls mean."""
    rule = "exact" if scales == "two-level" else scales
    name = f"{values}, {groups}, {scales}"
    return ScaledFormat(name, FORMATS[values], GROUPS[groups], rule, two_level=scales == "two-level")  # type: ignore[arg-type]


def view_of(values: str, fmt: ScaledFormat) -> View:
    """Cast what `values` names to `fmt`, and count."""
    chosen, other = data()[values], _reference(values, fmt)
    return View(
        values=values,
        fmt=fmt,
        picture=effect(chosen.picture, fmt, chosen.outlier),
        matrix=effect(chosen.matrix, fmt, chosen.outlier),
        reference_format=other,
        reference=effect(chosen.matrix, other, chosen.outlier),
        rounded=_rounded(fmt) if values == SMALL else {},
    )


def _reference(values: str, fmt: ScaledFormat) -> ScaledFormat:
    """Beside OCP's floor the scale that is rounded up; beside any other one a column, beside that one for all."""
    if fmt.rule == "floor":
        return fmt.but(rule="up")
    return fmt.but(block=GROUPS["tensor" if fmt.block == GROUPS["column"] else "column"])


def _rounded(fmt: ScaledFormat) -> Mapping[str, Rounded]:
    chosen = data()[SMALL]

    def both(picture: Tensor, matrix: Tensor) -> Rounded:
        small = [column for column in range(matrix.shape[1]) if column not in chosen.outlier]
        return Rounded(float(matrix[:, small].double().mean()), about(chosen.picture, picture, fmt, chosen.outlier))

    nearest, once = (
        both(*(cast_repeatably(x, fmt, way) for x in (chosen.picture, chosen.matrix)))
        for way in ("nearest", "stochastic")
    )
    return {
        "nearest": nearest,
        "once": once,
        "mean": both(mean_of_draws(chosen.picture, fmt), mean_of_draws(chosen.matrix, fmt)),
    }
