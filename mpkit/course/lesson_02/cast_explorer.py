"""The panel of lesson 02: any tensor cast to any format, with each rounding and each way to overflow."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, get_args

import torch
from torch import Tensor

from mpkit import BF16, E4M3, E5M2, FP16, TF32
from mpkit.course.lesson_02.cast_effect import effect
from mpkit.course.lesson_02.cast_explorer_picture import CastExplorerFigure
from mpkit.course.lesson_02.cast_explorer_words import HOW, describe, headline
from mpkit.course.panels.controls import buttons, menu
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import FormatSetting, Setting
from mpkit.rounding import Overflow, Rounding

FORMATS = {fmt.name: fmt for fmt in (FP16, BF16, TF32, E5M2, E4M3)}
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
OVERFLOWS: dict[Overflow, str] = {"inf": "Inf", "saturate": "largest value"}
MOST = 20_000  # values of one tensor that are used: more would only slow the picture down
SEED = 0  # of the choice
RECENT = 8  # casts that are kept, 160 kB each: to go back and forth


class CastExplorerPanel(PicturePanel):
    """Choose a tensor, a format, a rounding and what overflow does; see what is lost and how wrong the rest is.

    `view` holds the numbers.

    Args:
        tensors: name → tensor, shown first in the menu, such as {"my gradients": grad}. Of more than 20,000 values
            a random choice with a fixed seed is used. Some drawn distributions follow.

    Raises:
        TypeError: a value of `tensors` is no floating-point tensor.
        ValueError: a tensor has no finite value but zero.
    """

    values = Setting[str](
        lambda panel: panel.tensors, menu("values", 350, 80, "which values are cast"),
        doc="Name of the values that are cast.",
    )  # fmt: skip
    format = FormatSetting(
        FORMATS.values(), buttons("format", 435, 80, "number format", 64), doc="The format that they are cast to."
    )
    rounding = Setting(
        ROUNDINGS, buttons("rounding", 565, 80, "which neighbour a value goes to", 90),
        doc="Which neighbour a value goes to.",
    )  # fmt: skip
    overflow = Setting(
        OVERFLOWS, buttons("too large →", 332, 80, "what a value beyond the largest one becomes", 116),
        text=OVERFLOWS.__getitem__, doc='What a value beyond the largest one becomes: "inf" or "saturate".',
    )  # fmt: skip
    words_room = 52
    rows, drawn_by = (("values", "format"), ("rounding", "overflow")), CastExplorerFigure

    def __init__(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        self.tensors = {name: _sample(name, x) for name, x in {**(tensors or {}), **drawn()}.items()}
        tensors = self.tensors
        self._effect = lru_cache(maxsize=RECENT)(lambda name, *how: effect(tensors[name], *how))
        super().__init__()

    def look(self) -> None:
        """Cast, unless these settings were seen a moment ago."""
        self.view = self._effect(self.values, self.format, self.rounding, self.overflow)

    def draw(self) -> Any:
        """Histograms, and the errors below them."""
        return self.figure.show(self.view, self.headline(), HOW[self.rounding])

    def headline(self) -> str:
        """What the cast lost."""
        return headline(self.view)

    def summary(self) -> str:
        """The picture in words, in whole percents, so that it is the same on every machine."""
        return describe(self.values, self.view)

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        return (
            f"{self.headline()}. Above: histograms of the magnitudes of {self.values} before and after the cast. "
            f"Below: the relative error of each value over its magnitude. {self.summary()}"
        )


def drawn() -> dict[str, Tensor]:
    """Distributions to compare with, 10,000 values each, the same on every machine."""
    draw = torch.Generator().manual_seed(0)
    normal, sign = torch.randn(10_000, generator=draw), torch.randn(10_000, generator=draw).sign()
    log_uniform = sign * torch.exp2(-40 + 60 * torch.rand(10_000, generator=draw))
    outliers = torch.where(torch.arange(10_000) % 100 == 0, 2.0**16 * normal, normal)
    return {
        "normal: mean 0, sd 1": normal,
        "uniform from 0 to 1": torch.rand(10_000, generator=draw),
        "one in 100 is 2¹⁶ times larger": outliers,
        "every size, 2⁻⁴⁰ to 2²⁰": log_uniform,
    }


def _sample(name: str, x: Any) -> Tensor:
    """The values that are used, flat, in float64: float32 has no number for what is below 2^-149."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        came = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name!r}: a floating-point tensor is asked for, but {came} came.")
    flat = x.detach().flatten().cpu().double()
    flat = flat[flat.isfinite() & (flat != 0)]
    if len(flat) == 0:
        raise ValueError(f"{name!r} has no finite value but zero; there is nothing to cast.")
    if len(flat) <= MOST:
        return flat
    # Not every k-th value: a step that divides a layer's width would always meet the same columns.
    return flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(SEED))[:MOST]]
