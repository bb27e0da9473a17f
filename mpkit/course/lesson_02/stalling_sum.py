"""A panel of lesson 02: add the same number again and again, and watch where the total stops growing."""

from __future__ import annotations

import math
import re
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch

from mpkit.course.arithmetic.accumulate import HOWS, How, rounder, running_totals
from mpkit.course.lesson_02.stalling_sum_picture import StallingSumFigure, SumView
from mpkit.course.lesson_02.stalling_sum_words import HOW_WORDS, describe, headline, reason
from mpkit.course.panels.panel import BadInput, Panel, Picture, guarded
from mpkit.course.read_number import read_number
from mpkit.formats import BF16, E4M3, E5M2, FP16, FP32, TF32, FloatFormat, require_format

FORMATS = {fmt.name: fmt for fmt in (FP16, BF16, TF32, E5M2, E4M3)}
TERMS = ("1", "0.1", "0.001", "random, 0 to 1")
RANDOM = TERMS[-1]
COUNTS = tuple(2**k for k in range(4, 15))
SMALLEST, LARGEST = 1e-9, 1e5  # of a typed term: what all formats' sums can be drawn for

EXAMPLES = "type one such as 1, 0.25, 1e-3 or 2^-10."


class StallingSumPanel(Panel):
    """Add a term over and over in a small format.

    `term`, `format`, `how` and `additions` can be read and set; the picture follows. `view` holds the numbers.

    Args:
        term: one of the menu, "random, 0 to 1", or a number as text or float.
        additions: 16, 32, … 16384.

    Raises:
        ValueError: a term that is no usable number, or a setting that is not in a menu.
    """

    def __init__(self, term: str | float = "1", additions: int = 4096) -> None:
        width = {"description_width": "80px"}
        self.term_field = widgets.Combobox(
            value=_text_of(term), options=TERMS, description="add", tooltip="the number that is added: choose or type",
            continuous_update=False, ensure_option=False, style=width, layout=widgets.Layout(width="250px"),
        )  # fmt: skip
        self.format_menu = widgets.ToggleButtons(
            options=list(FORMATS), description="format", tooltip="number format",
            style={**width, "button_width": "64px"},
            layout=widgets.Layout(width="440px", display="flex", flex_flow="row"),
        )  # fmt: skip
        self.how_menu = widgets.ToggleButtons(
            options=[(words, how) for how, words in HOW_WORDS.items()], description="how",
            tooltip="how the terms are added up", style={**width, "button_width": "auto"},
            layout=widgets.Layout(width="640px", max_width="100%", display="flex", flex_flow="row"),
        )  # fmt: skip
        self.count_slider = widgets.SelectionSlider(
            options=[(f"{n:,}", n) for n in COUNTS], value=_one_of("additions", additions, COUNTS), style=width,
            description="additions", tooltip="number of additions", layout=widgets.Layout(width="520px"),
        )  # fmt: skip
        self.picture = Picture()
        self.words = widgets.HTML(layout=widgets.Layout(min_height="52px"))
        self.figure = StallingSumFigure()
        self._totals: dict[tuple[str, str, How], np.ndarray] = {}
        self._used = _text_of(term)  # the last term that could be used
        row = widgets.Layout(flex_flow="row wrap")
        first = widgets.HBox([self.term_field, self.format_menu], layout=row)
        super().__init__(first, self.how_menu, self.count_slider, self.picture, self.words)
        children = [child for child in self.box.children if child is not self.message]
        self.box.children = [first, self.message, *children[1:]]  # what was typed wrongly is told below the field
        for control in (self.term_field, self.format_menu, self.how_menu, self.count_slider):
            control.observe(self._redraw, names="value")
        self._redraw()

    @property
    def term(self) -> str:
        """What is added, as text."""
        return self._used

    @term.setter
    def term(self, value: str | float) -> None:
        self.term_field.value = _text_of(value)

    @property
    def format(self) -> FloatFormat:
        """The format of the terms and of the result."""
        return FORMATS[self.format_menu.value]

    @format.setter
    def format(self, value: FloatFormat) -> None:
        if FORMATS.get(require_format(value).name) != value:
            raise ValueError(f"format {value} is not in this panel's menu; use one of {', '.join(FORMATS)}.")
        self.format_menu.value = value.name

    @property
    def how(self) -> How:
        """How the terms are added up: "sequential", "fp32", "kahan" or "pairwise"."""
        chosen: How = self.how_menu.value
        return chosen

    @how.setter
    def how(self, value: How) -> None:
        self.how_menu.value = _one_of("how", value, HOWS)

    @property
    def additions(self) -> int:
        """Number of additions."""
        return int(self.count_slider.value)

    @additions.setter
    def additions(self, value: int) -> None:
        self.count_slider.value = _one_of("additions", value, COUNTS)

    def summary(self) -> str:
        """Settings and outcome in one line."""
        return describe(self.view)

    def png(self) -> bytes:
        """The picture shown now."""
        return bytes(self.picture.value)

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        return f"{headline(self.view)}. A line for the true total and one for the total in the format. {self.summary()}"

    @guarded
    def _redraw(self, _change: Any = None) -> None:
        self._used = _checked(self.term_field.value)
        self.view = self._look()
        title = headline(self.view)
        self.figure.show(self.view, title, reason(self.view))
        self.picture.value = self.figure.png()
        self.picture.tooltip = title
        self.words.value = f'<div role="status" aria-live="polite">{self.summary()}</div>'

    def _look(self) -> SumView:
        fmt, how, count = self.format, self.how, self.additions
        terms = _terms(self._used)
        key = (self._used, fmt.name, how)
        if key not in self._totals:
            self._totals[key] = running_totals(terms, fmt, how)
        level = how == "pairwise"
        counts = 2 ** np.arange(int(math.log2(count)) + 1) if level else np.arange(1, count + 1)
        totals = self._totals[key][: len(counts)]
        grid = FP32 if how == "fp32" else fmt
        term = rounder(fmt)(terms[count - 1])
        before = float(totals[-2]) if not level else 0.0
        name = f"{count:,} random numbers from 0 to 1" if self._used == RANDOM else f"{count:,} times {self._used}"
        return SumView(
            name, fmt, how, counts, totals, np.cumsum(terms)[counts - 1], grid, term, before, float(totals[-1]),
            grid.spacing(before),
        )  # fmt: skip


def _terms(text: str) -> np.ndarray:
    """The most terms that the slider reaches, before rounding."""
    if text == RANDOM:
        draw = torch.Generator().manual_seed(0)
        return torch.rand(COUNTS[-1], generator=draw).double().numpy()
    return np.full(COUNTS[-1], read_number(text))


def _checked(text: str) -> str:
    """The typed term as it is used.

    Raises:
        BadInput: it is no number, or one that is too large or too small for the picture.
    """
    cleaned = text.strip()
    if cleaned == RANDOM:
        return cleaned
    try:
        value = read_number(cleaned)
    except ValueError as error:  # its examples have inf and nan, which cannot be added
        problem = re.split(r"; type|\. Type", str(error))[0]
        raise BadInput(f"{problem}; {EXAMPLES}") from None
    if not math.isfinite(value):
        raise BadInput(f"`{cleaned}` is not a number that can be added; {EXAMPLES}")
    if not SMALLEST <= value <= LARGEST:
        raise BadInput(f"`{cleaned}` cannot be drawn; type a number from 1e-9 to {LARGEST:,.0f}.")
    return cleaned


def _text_of(term: str | float) -> str:
    """A term as the field shows it. Raises ValueError, as `_checked` does, for a term set by code."""
    text = term if isinstance(term, str) else f"{term:.12g}"
    return _checked(text)


def _one_of(what: str, value: Any, known: Any) -> Any:
    if value not in known:
        raise ValueError(f"{what}={value!r} is not in this panel's menu; use one of {', '.join(map(repr, known))}.")
    return value
