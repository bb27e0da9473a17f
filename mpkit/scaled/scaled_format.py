"""`ScaledFormat`: small values, the group of them that shares a scale, and how that scale is chosen and kept."""

from dataclasses import dataclass, replace
from typing import Any, Self, get_args

from mpkit.formats import E4M3, FP32, FloatFormat
from mpkit.scaled.integers import IntFormat
from mpkit.scaled.scales import Rule

Block = tuple[int | None, int | None]


@dataclass(frozen=True)
class ScaledFormat:
    """A tensor in a small format with scales.

    Args:
        name: what people call it, such as "MXFP8".
        values: format of the values, a `FloatFormat` of at most 8 bits or an `IntFormat`.
        block: rows and columns that share one scale; None means all of them. (None, None) is one scale for the tensor,
            (1, None) one a row, (None, 1) one a column, (1, 32) one for each 32 neighbours in a row. A tensor counts
            as a matrix whose rows run along its last dimension; a block at an edge may be smaller.
        rule: how a scale is chosen; see `mpkit.scaled.scales.scale_of`.
        two_level: True: a scale is kept in E4M3, relative to one FP32 scale of the tensor (NVFP4). False: it is kept in
            FP32 under the rule "exact", and otherwise is a power of two, which E8M0 keeps.
        wide_scales: True: powers of two are kept in FP32, too.

    Raises:
        TypeError: `values` is no format. ValueError: too many bits, a block without values, an unknown rule.
    """

    name: str
    values: FloatFormat | IntFormat
    block: Block = (None, None)
    rule: Rule = "exact"
    two_level: bool = False
    wide_scales: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.values, FloatFormat | IntFormat):
            came = f"{self.values!r} ({type(self.values).__name__})"
            raise TypeError(f"ScaledFormat {self.name!r} asks for a format of its values, but {came} came; "
                            "use mpkit.E4M3, mpkit.E2M1, mpkit.scaled.INT8 or their like.")  # fmt: skip
        if self.values.bits > 8:
            raise ValueError(f"ScaledFormat {self.name!r} asks for values of at most 8 bits, but {self.values} has "
                             f"{self.values.bits}; wider formats need no scales: mpkit.cast.")  # fmt: skip
        sides = self.block if isinstance(self.block, tuple) and len(self.block) == 2 else (0, 0)
        if not all(side is None or (isinstance(side, int) and side > 0) for side in sides):
            raise ValueError(f"block={self.block!r} came; a block is (rows, columns), each a number from 1 on or None "
                             "for all, such as (1, 32).")  # fmt: skip
        if self.rule not in get_args(Rule):
            raise ValueError(f"rule={self.rule!r} is unknown; use one of {', '.join(get_args(Rule))}.")
        if self.two_level and (self.rule != "exact" or self.wide_scales):
            raise ValueError('two_level=True keeps its scales in E4M3, with rule="exact"; '
                             f"rule={self.rule!r} and wide_scales={self.wide_scales} came.")  # fmt: skip

    @property
    def scale_format(self) -> str:
        """What a scale is kept in: "FP32", "E8M0" or "E4M3"."""
        return E4M3.name if self.two_level else FP32.name if self.rule == "exact" or self.wide_scales else "E8M0"

    def bits_per_value(self, rows: int, columns: int) -> float:
        """Bits that a matrix takes in this format, its scales included, divided by its number of values."""
        high, wide = self.block[0] or rows, self.block[1] or columns
        scales = -(-rows // high) * -(-columns // wide)
        kept = scales * (32 if self.scale_format == FP32.name else 8) + 32 * self.two_level
        return self.values.bits + kept / (rows * columns)

    def but(self, **changes: Any) -> Self:
        """The same with some fields changed: `MXFP8.but(rule="floor")`."""
        return replace(self, **changes)

    def __str__(self) -> str:
        return self.name
