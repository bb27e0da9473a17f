"""The panel of lesson 03: one weight, one update, and whether the update arrives."""

import math
from functools import partial
from typing import Any, ClassVar

from mpkit import BF16, E4M3, E5M2, FP16
from mpkit.course.lesson_03.landing import KEEPERS, Keeper, Trail, land, repeat
from mpkit.course.lesson_03.number_line_picture import NumberLineFigure
from mpkit.course.lesson_03.number_line_words import far, headline, number, surroundings, update_label, waiting
from mpkit.course.panels.controls import buttons, field, slider
from mpkit.course.panels.panel import BadInput
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import FormatSetting, Setting, TypedNumber

FORMATS = {fmt.name: fmt for fmt in (BF16, FP16, E5M2, E4M3)}
TIMES = 100
# The slider moves in quarters: 1, 1.25, 1.5 and 1.75 times a power of two. Those are exact, so ties can be hit.
LOWEST, HIGHEST = -30, 2
UPDATES = tuple(quarter / 4 * 2.0**exponent for exponent in range(LOWEST, HIGHEST) for quarter in (4, 5, 6, 7))
MEANINGS = ("rounded to the nearest value", "rounded up or down at random", "to nearest, and the rest is kept",
            "a 16-bit copy of an FP32 weight")  # fmt: skip
# Name, weight, update, format. BF16 stores 0.075 with an even last bit, so that half a spacing goes back to the weight;
# a hundred updates of 0.625 spacings, each of which arrives as 1, stay below the next power of two.
PRESETS = (
    ("Adam's step", 0.075, 2.0**-13, BF16),
    ("a small weight", 0.001, 2.0**-13, BF16),
    ("2048 : 1 in FP16", 1.0, 2.0**-11, FP16),
)


def _require_weight(panel: Any, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"A weight of {value} cannot be trained; use a number such as 0.1 or 2^-3.")
    if abs(value) > panel.format.max:
        ends = f"{panel.format}, which ends at {panel.format.max:.6g}"
        raise ValueError(f"{value:.6g} is beyond {ends}; use a smaller weight.")


class NumberLinePanel(PicturePanel):
    """Add an update to a weight, see where it lands on the format's number line, and repeat it 100 times.

    `landing` and `trails` hold the numbers. The update is always upwards: a negative weight is the way to see an
    update towards zero.
    """

    weight = TypedNumber(
        field("weight", 170, 64, "the weight, such as 0.1 or 2^-3"), PRESETS[0][1], check=_require_weight,
        doc="The weight as it was asked for; `landing.weight` is the format's value that stands for it.",
    )  # fmt: skip
    update = Setting(
        UPDATES, slider("update", 560, 64, "size of the update"), PRESETS[0][2], text=update_label,
        use=f"1, 1.25, 1.5 or 1.75 times a power of two from 2**{LOWEST} to 2**{HIGHEST - 1}",
        doc="What is added to the weight.",
    )  # fmt: skip
    format = FormatSetting(
        FORMATS.values(), buttons("format", 352, 64, "format of the stored weight", 62),
        doc="The format that the weight is stored in.",
    )  # fmt: skip
    keeper = Setting(
        KEEPERS, buttons("keeper", 536, 64, "how the weight is kept", 108, tooltips=MEANINGS),
        doc="How the weight is kept: nearest, stochastic, Kahan or FP32 master.",
    )  # fmt: skip
    words_room = 52  # one line or two
    rows, drawn_by = (("update", "presets"), ("weight", "format", "keeper")), partial(NumberLineFigure, TIMES)
    jumps: ClassVar = {
        name: {"format": fmt, "weight": weight, "update": update, "keeper": "nearest"}
        for name, weight, update, fmt in PRESETS
    }

    def look(self) -> None:
        """Land once, and many times in every way."""
        try:
            _require_weight(self, weight := self.weight)
        except ValueError as error:
            raise BadInput(f"{error} The picture still shows the setting before.") from None
        self.asked, self.landing, self.shown_keeper = weight, land(weight, self.update, self.format), self.keeper
        self.trails: dict[Keeper, Trail] = {name: repeat(self.landing, name, TIMES) for name in KEEPERS}

    def draw(self) -> Any:
        """The number line, and below it the way that each keeper goes."""
        around = surroundings(self.landing, self.asked)
        return self.figure.show(self.landing, self.trails, self.shown_keeper, self.headline(), around)

    def headline(self) -> str:
        """Whether the update arrives."""
        return headline(self.landing, self.shown_keeper)

    def summary(self) -> str:
        """The picture in words; the same on every machine."""
        at = self.landing
        stored = f"{self.asked:.3g} flushed to 0" if self.asked and at.weight == 0 else number(at.weight, at)
        ends = ", ".join(f"{name} {' '.join(filter(None, (far(t), waiting(t))))}" for name, t in self.trails.items())
        return (
            f"{at.fmt}, weight {stored}, {self.shown_keeper}: {self.headline()}.\n"
            f"After {TIMES} updates of {at.update:.3g} the weight has come: {ends}."
        )

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        at = self.landing
        return (
            f"{self.headline()}. A number line of {at.fmt} around {number(at.weight, at)}: the weight, "
            f"the update as an arrow to {at.target:.6g}, and the values that it can land on. {self.summary()}"
        )
