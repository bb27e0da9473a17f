"""A panel of lesson 02: add the same number again and again, and watch where the total stops growing."""

import math
import re
from functools import lru_cache
from typing import Any

from mpkit import BF16, E4M3, E5M2, FP16, TF32
from mpkit.course.arithmetic.accumulate import HOWS
from mpkit.course.lesson_02.running_sum import COUNTS, RANDOM, totals_of, view_of
from mpkit.course.lesson_02.stalling_sum_picture import StallingSumFigure
from mpkit.course.lesson_02.stalling_sum_words import HOW_WORDS, describe, headline, reason
from mpkit.course.panels.controls import buttons, field, slider
from mpkit.course.panels.panel import BadInput
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import FormatSetting, Setting
from mpkit.course.read_number import read_number

FORMATS = {fmt.name: fmt for fmt in (FP16, BF16, TF32, E5M2, E4M3)}
TERMS = ("1", "0.1", "0.001", RANDOM)
SMALLEST, LARGEST = 1e-9, 1e5  # of a typed term: what all formats' sums can be drawn for
EXAMPLES = "type one such as 1, 0.25, 1e-3 or 2^-10."


class _Term(Setting[str]):
    """Text that was typed; what it is now is the last one that could be used."""

    def _held(self, panel: Any, value: Any) -> Any:
        return usable(value if isinstance(value, str) else f"{value:.12g}")

    def _meant(self, panel: Any, held: Any) -> Any:
        return panel.used


class StallingSumPanel(PicturePanel):
    """Add a term over and over in a small format; `view` holds the numbers.

    Args:
        term: one of the menu, "random, 0 to 1", or a number as text or float.
        additions: 16, 32, … 16384.

    Raises:
        ValueError: a term that is no usable number, or a number of additions that is not on the slider.
    """

    term = _Term(
        TERMS, field("add", 250, 80, "the number that is added: choose or type"),
        doc="What is added, as text; a float can be set, too.",
    )  # fmt: skip
    format = FormatSetting(
        FORMATS.values(), buttons("format", 440, 80, "number format", 64),
        doc="The format of the terms and of the result.",
    )  # fmt: skip
    how = Setting(
        HOWS, buttons("how", 640, 80, "how the terms are added up", "auto"), text=HOW_WORDS.__getitem__,
        doc='How the terms are added up: "sequential", "fp32", "kahan" or "pairwise".',
    )  # fmt: skip
    additions = Setting(
        COUNTS, slider("additions", 520, 80, "number of additions"), text="{:,}".format, doc="Number of additions."
    )
    words_room = 52
    message_at = 1  # what was typed wrongly is told below the field
    rows, drawn_by = (("term", "format"), ("how",), ("additions",)), StallingSumFigure

    def __init__(self, term: str | float = "1", additions: int = 4096) -> None:
        self._totals = lru_cache(maxsize=16)(totals_of)  # of any number that was typed
        super().__init__(term=term, additions=additions)

    def look(self) -> None:
        """Add up."""
        self.used = usable(self.controls["term"].value)
        chosen = self.used, self.format, self.how
        self.view = view_of(self._totals(*chosen), *chosen, self.additions)

    def draw(self) -> Any:
        """The totals, and the last addition."""
        return self.figure.show(self.view, self.headline(), reason(self.view))

    def headline(self) -> str:
        """Where the total ends."""
        return headline(self.view)

    def summary(self) -> str:
        """Settings and outcome in one line."""
        return describe(self.view)

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        return f"{self.headline()}. A line for the true total and one for the total in the format. {self.summary()}"


def usable(text: str) -> str:
    """A term as it is used, from what was typed.

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
