"""The panel of lesson 01: type a number or flip a bit, and see it in all six formats at once."""

import math
from functools import partial
from typing import Any

import ipywidgets as widgets

from mpkit import FloatFormat
from mpkit.course import markup
from mpkit.course.lesson_01.bit_buttons import FOCUS, SIZES, BitButtons
from mpkit.course.lesson_01.bit_table import bit_table, error_of, headline, show, value_of
from mpkit.course.lesson_01.bits import Stored, is_pattern, read_pattern, store, store_pattern
from mpkit.course.panels.controls import button, field, menu
from mpkit.course.panels.panel import BadInput, Panel, guarded
from mpkit.course.panels.setting import FormatSetting, make_controls
from mpkit.course.read_number import read_number
from mpkit.formats import FORMATS

PRESETS = ("0.1", "1/3", "2048+1", "65504", "65520", "1e-8", "inf")
# The line under the field, where a message would stand, is always there: a message must not move the table.
HINT = f'<div style="color:{markup.TEXT}">a number, or a bit pattern of the chosen format (0x…, 0b…); then Enter</div>'
MESSAGE = "56px"  # two lines in a narrow window
START = "3e-5"  # six formats make six different numbers of it; one flushes it, two hold it as a subnormal


class BitExplorer(Panel):
    """One number in FP32, TF32, FP16, BF16, E4M3 and E5M2: bits, value, spacing, error, neighbours.

    `number` and `format` can be read and set, `toggle` flips a bit of that format, `step` goes to its next number.
    `rows` holds what the table shows.

    Args:
        number: a float, or text as it can be typed into the panel.
        format: the format whose bits are the buttons (default: FP16).

    Raises:
        ValueError: text that is no number, or a format that is not in the menu.
        TypeError: `format` is not a format.
    """

    format = FormatSetting(
        FORMATS.values(), menu("toggle the bits of", 220, 125, "format whose bits the buttons toggle"),
        doc="The format whose bits are the buttons.",
    )  # fmt: skip
    message_at = 1  # under the field

    def __init__(self, number: float | str = START, format: FloatFormat | None = None) -> None:
        self._text = ""  # what the panel itself wrote into the field
        self.field = field(
            "number", 300, 60, "a number, or a bit pattern such as 0x3c00; then press Enter",
            placeholder="0.1 or 2^-24 or 0x3c00",
        )([], "")  # fmt: skip
        self.presets = [button(text, partial(self._on_preset, text), f"show {text}") for text in PRESETS]
        self.controls = make_controls(self)
        self.format = format or FORMATS["FP16"]
        self.buttons = BitButtons(self._on_bit)
        self.down = button("▼ next down", partial(self._on_step, -1), "the next smaller number of this format")
        self.up = button("▲ next up", partial(self._on_step, 1), "the next larger number of this format")
        self.view = widgets.HTML()
        wrap = widgets.Layout(flex_flow="row wrap", overflow="visible")  # shows the outline of the focus
        super().__init__(
            widgets.HBox([self.field, *self.presets], layout=wrap),
            widgets.HBox([self.controls["format"], self.down, self.up], layout=wrap),
            self.buttons.box,
            self.view,
            widgets.HTML(FOCUS, layout=widgets.Layout(display="none")),
        )
        self.box.add_class("mpkit-bits")
        self.message.layout.min_height = MESSAGE
        self.number = number
        self.field.observe(self._on_text, names="value")
        self.controls["format"].observe(self._on_format, names="value")

    @property
    def number(self) -> float:
        """The number itself, before any format rounds it, as float64."""
        return self._chosen().exact

    @number.setter
    def number(self, value: float | str) -> None:
        text = value if isinstance(value, str) else _short(_as_float(value))
        self._show(self._read(text))
        self._write(text)

    def toggle(self, group: str, place: int = 0) -> None:
        """Flip one bit of the format: "sign", "exponent" or "mantissa", and the place in it from the left, from 0.

        The number becomes what the new pattern means; the other formats show the nearest they have.
        ValueError if the format has no such bit.
        """
        sizes = dict(zip(SIZES, map(len, self._chosen().bits), strict=True))
        if place not in range(sizes.get(group, 0)):
            have = ", ".join(f"{name} 0 to {size - 1}" for name, size in sizes.items())
            raise ValueError(f"{self.format} has no {group} bit at place {place!r}; there are {have}.")
        after = place + sum(list(sizes.values())[: list(sizes).index(group)])
        flipped = self._chosen().code ^ 1 << (self.format.bits - 1 - after)
        self._show(store_pattern(flipped, self.format))
        self._write(_short(self.number))

    def step(self, direction: int) -> None:
        """Go to the format's next number up (1) or down (-1). ValueError where the format ends."""
        chosen = self._chosen()
        there = chosen.above if direction > 0 else chosen.below
        if there is None:
            self._write(self._text)
            side = "neighbours" if math.isnan(chosen.value) else "neighbour on that side"
            raise BadInput(f"{show(chosen.value)} has no {side} in {self.format}.")
        self._show(store(there, self.format))
        self._write(_short(there))

    def _chosen(self) -> Stored:
        return self.rows[self.format.name]

    def _read(self, text: str) -> Stored:
        """What the text means, in the chosen format. BadInput with a friendly text if it means nothing."""
        try:
            pattern = read_pattern(text, self.format)
            return store(read_number(text), self.format) if pattern is None else store_pattern(pattern, self.format)
        except ValueError as error:
            raise BadInput(str(error)) from None

    def _show(self, chosen: Stored) -> None:
        """Show one number; `chosen` is what the format of the menu holds of it, bit for bit."""
        self.rows = {name: chosen if fmt == chosen.fmt else store(chosen.exact, fmt) for name, fmt in FORMATS.items()}
        self.buttons.show(chosen)
        self.view.value = self._table()
        self.say("")

    def say(self, text: str, accent: str = "note") -> None:
        """Show a message under the field; "" shows what can be typed there."""
        if text:
            super().say(text, accent)
        else:
            self.message.value = HINT

    def _write(self, text: str) -> None:
        """Put text into the field as the panel's own: it is not read again."""
        if self.field.value == text:  # it may show what was typed and not sent; only a change reaches it
            self._text = self.field.value = ""
        self._text = text
        self.field.value = text

    @guarded
    def _on_preset(self, text: str) -> None:
        self.number = text

    @guarded
    def _on_bit(self, group: str, place: int) -> None:
        self.toggle(group, place)

    @guarded
    def _on_step(self, direction: int) -> None:
        self.step(direction)

    @guarded
    def _on_text(self, change: dict[str, Any]) -> None:
        text = change["new"]
        if text == self._text or text != self.field.value:  # the panel's own; or a button wrote over it meanwhile
            return
        self._show(self._read(text))
        self._text = text
        self.field.send_state("value")  # a click that overtook this text made the field show another

    @guarded
    def _on_format(self, _change: Any) -> None:
        self._show(store(exact := next(iter(self.rows.values())).exact, self.format))
        if self.field.value != self._text:  # typed and refused: perhaps a pattern that was too wide before
            self._show(self._read(self.field.value))
            self._text = self.field.value
        elif is_pattern(self.field.value):  # of the format before; here it would mean another number
            self._write(_short(exact))

    def _table(self) -> str:
        return bit_table(list(self.rows.values()), self.format.name)

    def summary(self) -> str:
        """The headline, then every format's value and error."""
        lines = [(f"  {name}", value_of(row, row.value), _in_words(row)) for name, row in self.rows.items()]
        return f"{headline(list(self.rows.values()))}\n{markup.columns(lines)}"

    def html(self) -> str:
        """The table as it is now."""
        return self._table()


def _in_words(row: Stored) -> str:
    kind = "subnormal, " if row.kind == "subnormal" else ""
    return f"{kind}{row.outcome}{', error ' + error_of(row) if error_of(row) else ''}"


def _short(x: float) -> str:
    """All digits of a float64, in the spelling that the panel reads."""
    return "nan" if math.isnan(x) else repr(x).removesuffix(".0")


def _as_float(value: float) -> float:
    try:
        return float(value)
    except (TypeError, RuntimeError):
        raise TypeError(f"number is a float, or text such as '2^-24' or '0x3c00'; {value!r} is neither.") from None
