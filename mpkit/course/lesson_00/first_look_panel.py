"""The first picture of the course: where in a number the step of 1 + 2^-k is stored, and where it is lost."""

from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
import torch

from mpkit import BF16, FP16, FP32, FloatFormat, cast
from mpkit.course import markup
from mpkit.course.panels.panel import Panel, guarded

SHOWN = (FP32, FP16, BF16)
LAST_PLACE = 25  # two places behind FP32's last one, so that even FP32 loses the step
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Step:
    """1 + 2^-k stored in one format: the places it has behind the point, and the value that comes out."""

    fmt: FloatFormat
    k: int
    value: float

    @property
    def kept(self) -> bool:
        """Whether anything of 2^-k is left."""
        return self.value != 1.0

    @property
    def shown(self) -> str:
        """The value with all its digits."""
        return "1" if self.value == 1 else repr(self.value)


def steps(k: int) -> list[Step]:
    """Round 1 + 2^-k to each format, from float64, where it is exact."""
    exact = torch.tensor(1.0 + 2.0**-k, dtype=torch.float64)
    return [Step(fmt, k, float(cast(exact, fmt))) for fmt in SHOWN]


def headline(k: int) -> str:
    """The headline: which formats keep the step and which lose it."""
    kept = [step.fmt.name for step in steps(k) if step.kept]
    lost = [step.fmt.name for step in steps(k) if not step.kept]
    number = f"1 + 2{str(-k).translate(SUPERSCRIPT)}"
    if not lost:
        return f"{number}: {', '.join(kept[:-1])} and {kept[-1]} keep it"
    return f"{number} is exactly 1 in {', '.join(lost)}"


def picture(k: int) -> str:
    """Headline and one row a format: a box for each place behind the point, the step's place lit or struck out."""
    rows = [(f"<b>{step.fmt.name}</b>", _boxes(step), _outcome(step)) for step in steps(k)]
    title = f'<div style="font-size:18px;font-weight:bold;margin-bottom:6px">{headline(k)}</div>'
    head = ("", "1. then one box for each binary place that is stored", "comes out as")
    return f'<div style="color:{markup.TEXT}">{title}{markup.table(head, rows)}</div>'


def _outcome(step: Step) -> str:
    return f"<b>{step.shown}</b> {'kept' if step.kept else '✗ lost'}"


def _boxes(step: Step) -> str:
    """Places 1 to the last stored one, plus the step's own place where it lies behind them."""
    places = [_box(place == step.k, stored=True) for place in range(1, step.fmt.mantissa_bits + 1)]
    if step.k > step.fmt.mantissa_bits:
        gap = step.k - step.fmt.mantissa_bits - 1
        places += ['<span style="display:inline-block;width:15px"></span>' * gap, _box(True, stored=False)]
    return f'<span style="font-family:monospace;white-space:nowrap"><b>1.</b>{"".join(places)}</span>'


def _box(lit: bool, stored: bool) -> str:
    edge = f"1px solid {markup.BORDER}" if stored else f"1px dashed {markup.ACCENT['bad']}"
    fill = f"background:{markup.ACCENT['note']};color:#fff;font-weight:bold" if lit and stored else ""
    if not stored:
        fill = f"color:{markup.ACCENT['bad']};text-decoration:line-through"
    style = f"display:inline-block;width:13px;text-align:center;border:{edge};{fill}"
    return f'<span style="{style}">{"1" if lit else "0"}</span>'


class FirstLook(Panel):
    """One slider, k; `.k.value` sets it."""

    def __init__(self, k: int) -> None:
        width, style = widgets.Layout(width="min(100%, 480px)"), {"description_width": "initial"}
        self.k = widgets.IntSlider(k, 1, LAST_PLACE, description="k", style=style, layout=width)
        self.view = widgets.HTML(picture(k))
        super().__init__(self.k, self.view)
        self.k.observe(self._on_k, names="value")

    @guarded
    def _on_k(self, change: dict[str, Any]) -> None:
        self.view.value = picture(change["new"])

    def summary(self) -> str:
        """The headline and what comes out of each format."""
        values = ", ".join(f"{step.fmt.name} {step.shown}" for step in steps(self.k.value))
        return f"{headline(self.k.value)} ({values})"

    def html(self) -> str:
        """The picture at the slider's place."""
        return picture(self.k.value)


def first_look(k: int = 9) -> FirstLook:
    """Panel with a slider k: 1 + 2^-k in FP32, FP16 and BF16. At the default the step is lost in BF16 alone.

    Raises:
        ValueError: k is not a whole number from 1 to 25.
    """
    if not isinstance(k, int) or not 1 <= k <= LAST_PLACE:
        raise ValueError(f"k must be a whole number from 1 to {LAST_PLACE}, but {k!r} came.")
    return FirstLook(k)
