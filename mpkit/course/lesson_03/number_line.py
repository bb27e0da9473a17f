"""The panel of lesson 03: one weight, one update, and whether the update arrives."""

from __future__ import annotations

import math
from typing import Any

import ipywidgets as widgets

from mpkit.course.lesson_03.landing import KEEPERS, Keeper, Trail, land, repeat
from mpkit.course.lesson_03.number_line_picture import NumberLineFigure
from mpkit.course.lesson_03.number_line_words import far, headline, number, surroundings, update_label, waiting
from mpkit.course.panels.panel import BadInput, Panel, Picture, guarded
from mpkit.course.read_number import read_number
from mpkit.formats import BF16, E4M3, E5M2, FP16, FloatFormat, require_format

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
    ("Adam's step", "0.075", 2.0**-13, BF16),
    ("a small weight", "0.001", 2.0**-13, BF16),
    ("2048 : 1 in FP16", "1", 2.0**-11, FP16),
)


class NumberLinePanel(Panel):
    """Add an update to a weight, see where it lands on the format's number line, and repeat it 100 times.

    `weight`, `update`, `format` and `keeper` can be read and set; the picture follows. `landing` and `trails` hold
    the numbers. The update is always upwards: a negative weight is the way to see an update towards zero.

    Raises:
        ValueError: a weight that the format cannot hold, an update off the slider, an unknown format or keeper.
        TypeError: `format` is set to something that is not a format.
    """

    def __init__(self) -> None:
        _, weight, update, fmt = PRESETS[0]
        wide = {"description_width": "64px"}
        self.weight_field = widgets.Text(
            weight, description="weight", tooltip="the weight, such as 0.1 or 2^-3", continuous_update=False,
            style=wide, layout=widgets.Layout(width="170px"),
        )  # fmt: skip
        self.update_slider = widgets.SelectionSlider(
            options=[(update_label(value), value) for value in UPDATES], value=update, description="update", style=wide,
            tooltip="size of the update", layout=widgets.Layout(width="560px"),
        )  # fmt: skip
        # Buttons, not menus: JupyterLab takes arrow keys and some letters away from a closed menu.
        self.format_choice = widgets.ToggleButtons(
            options=list(FORMATS), value=fmt.name, description="format", tooltip="format of the stored weight",
            style={**wide, "button_width": "62px"}, layout=widgets.Layout(width="352px", display="flex"),
        )  # fmt: skip
        self.keeper_choice = widgets.ToggleButtons(
            options=KEEPERS, value=KEEPERS[0], description="keeper", tooltip="how the weight is kept",
            tooltips=MEANINGS, style={**wide, "button_width": "108px"},
            layout=widgets.Layout(width="536px", display="flex"),
        )  # fmt: skip
        self.presets = [widgets.Button(description=name, layout=widgets.Layout(width="auto")) for name, *_ in PRESETS]
        for button, (_, *setting) in zip(self.presets, PRESETS, strict=True):
            button.on_click(lambda _, setting=setting: self._jump(*setting))
        self.picture = Picture()
        self.words = widgets.HTML(layout=widgets.Layout(min_height="52px"))  # one line or two: what follows stays put
        self._figure = NumberLineFigure(TIMES)
        self._jumping = False
        wrap = widgets.Layout(flex_flow="row wrap")
        first = widgets.HBox([self.update_slider, *self.presets], layout=wrap)
        second = widgets.HBox([self.weight_field, self.format_choice, self.keeper_choice], layout=wrap)
        super().__init__(first, second, self.picture, self.words)
        for control in (self.weight_field, self.update_slider, self.format_choice, self.keeper_choice):
            control.observe(self._redraw, names="value")
        self._redraw()

    @property
    def weight(self) -> float:
        """The weight as it was asked for; `landing.weight` is the format's value that stands for it."""
        return read_number(self.weight_field.value)

    @weight.setter
    def weight(self, value: float) -> None:
        _require_weight(value, self.format)
        self.weight_field.value = f"{value:.17g}" if float(f"{value:.6g}") != value else f"{value:.6g}"

    @property
    def update(self) -> float:
        """What is added to the weight."""
        return float(self.update_slider.value)

    @update.setter
    def update(self, value: float) -> None:
        if value not in UPDATES:
            raise ValueError(
                f"update={value!r} is not on the slider; use 1, 1.25, 1.5 or 1.75 times a power of two "
                f"from 2**{LOWEST} to 2**{HIGHEST - 1}."
            )
        self.update_slider.value = value

    @property
    def format(self) -> FloatFormat:
        """The format that the weight is stored in."""
        return FORMATS[self.format_choice.value]

    @format.setter
    def format(self, value: FloatFormat) -> None:
        if FORMATS.get(require_format(value).name) != value:
            raise ValueError(f"format {value} is not in this panel; use one of {', '.join(FORMATS)}.")
        self.format_choice.value = value.name

    @property
    def keeper(self) -> Keeper:
        """How the weight is kept: nearest, stochastic, Kahan or FP32 master."""
        chosen: Keeper = self.keeper_choice.value
        return chosen

    @keeper.setter
    def keeper(self, value: Keeper) -> None:
        if value not in KEEPERS:
            raise ValueError(f"keeper={value!r} is not in this panel; use one of {', '.join(KEEPERS)}.")
        self.keeper_choice.value = value

    def summary(self) -> str:
        """The picture in words; the same on every machine."""
        at, keeper = self.landing, self.shown_keeper
        stored = f"{self.asked:.3g} flushed to 0" if self.asked and at.weight == 0 else number(at.weight, at)
        ends = ", ".join(f"{name} {' '.join(filter(None, (far(t), waiting(t))))}" for name, t in self.trails.items())
        return (
            f"{at.fmt}, weight {stored}, {keeper}: {headline(at, keeper)}.\n"
            f"After {TIMES} updates of {at.update:.3g} the weight has come: {ends}."
        )

    def png(self) -> bytes:
        """The picture shown now."""
        return bytes(self.picture.value)

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        at = self.landing
        return (
            f"{headline(at, self.shown_keeper)}. A number line of {at.fmt} around {number(at.weight, at)}: the weight, "
            f"the update as an arrow to {at.target:.6g}, and the values that it can land on. {self.summary()}"
        )

    @guarded
    def _redraw(self, _change: Any = None) -> None:
        if self._jumping:
            return
        weight = _typed(self.weight_field.value, self.format)
        self.asked, self.landing, self.shown_keeper = weight, land(weight, self.update, self.format), self.keeper
        self.trails: dict[Keeper, Trail] = {name: repeat(self.landing, name, TIMES) for name in KEEPERS}
        title = headline(self.landing, self.keeper)
        around = surroundings(self.landing, self.asked)
        frame = self._figure.show(self.landing, self.trails, self.keeper, title, around)
        self.picture.value = frame.png()
        self.picture.tooltip = title
        self.words.value = f'<div role="status" aria-live="polite">{self.summary()}</div>'

    def _jump(self, weight: str, update: float, fmt: FloatFormat) -> None:
        """Round to nearest again, set three controls and draw once."""
        self._jumping = True
        try:
            self.weight_field.value, self.update_slider.value, self.format_choice.value = weight, update, fmt.name
            self.keeper_choice.value = "nearest"
        finally:
            self._jumping = False
        self._redraw()


def _typed(text: str, fmt: FloatFormat) -> float:
    """The weight that a learner typed; BadInput says what cannot be used about it."""
    shown = "The picture still shows the setting before."
    try:
        value = read_number(text)
    except ValueError as error:
        raise BadInput(f"{error} {shown}") from None
    try:
        _require_weight(value, fmt)
    except ValueError as error:
        raise BadInput(f"{error} {shown}") from None
    return value


def _require_weight(value: float, fmt: FloatFormat) -> None:
    if math.isfinite(value) and abs(value) <= fmt.max:
        return
    if not math.isfinite(value):
        raise ValueError(f"A weight of {value} cannot be trained; use a number such as 0.1 or 2^-3.")
    raise ValueError(f"{value:.6g} is beyond {fmt}, which ends at {fmt.max:.6g}; use a smaller weight.")
