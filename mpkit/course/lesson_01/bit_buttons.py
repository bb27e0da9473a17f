"""The bits of one format as a row of buttons: pressing one turns a 0 into a 1 and back."""

from collections.abc import Callable

import ipywidgets as widgets

from mpkit.course import markup
from mpkit.course.lesson_01.bit_table import BIT
from mpkit.course.lesson_01.bits import Stored
from mpkit.course.pictures.style import power

SIZES = {"sign": 1, "exponent": 8, "mantissa": 23}  # of the widest format
# Jupyter's own mark of the focus is too faint on coloured bits. This one has the text's colour, in either theme.
FOCUS = f"""<style>.mpkit-bits :is(button, input, select):focus-visible {{
outline: 2px solid {markup.TEXT} !important; outline-offset: 1px; position: relative; z-index: 1; }}</style>"""


class BitButtons:
    """`box` holds the buttons. They are made once, for the widest format; a narrower one shows the first of a group.

    Args:
        on_press: called with the group ("sign", "exponent", "mantissa") and the place in it, counted from the left.
    """

    def __init__(self, on_press: Callable[[str, int], None]) -> None:
        # Styles are shared: a button that changes its bit sends one message and makes no new object.
        self._styles = {
            (group, bit): widgets.ButtonStyle(
                button_color=fill, text_color=ink, font_weight="bold" if bit else "normal"
            )
            for group, looks in BIT.items()
            for bit, (fill, ink) in enumerate(looks)
        }
        self.groups = {group: [self._button(group) for _ in range(size)] for group, size in SIZES.items()}
        for group, buttons in self.groups.items():
            for place, button in enumerate(buttons):
                button.on_click(lambda _, group=group, place=place: on_press(group, place))
        wrap = widgets.Layout(flex_flow="row wrap", margin="0 8px 0 0", overflow="visible")
        self._boxes = {group: widgets.HBox(layout=wrap) for group in self.groups}
        self.box = widgets.HBox(
            list(self._boxes.values()), layout=widgets.Layout(flex_flow="row wrap", overflow="visible")
        )

    def _button(self, group: str) -> widgets.Button:
        layout = widgets.Layout(width="20px", height="28px", padding="0", margin="1px")
        return widgets.Button(description="0", layout=layout, style=self._styles[group, 0])

    def show(self, stored: Stored) -> None:
        """Show the bits of one number. Only what changes is sent to the browser."""
        for group, bits in zip(self.groups, stored.bits, strict=True):
            buttons = self.groups[group]
            for place, bit in enumerate(bits):
                with buttons[place].hold_sync():
                    buttons[place].description = bit
                    buttons[place].style = self._styles[group, int(bit)]
                    buttons[place].tooltip = f"{_name(group, place, len(bits))}, is {bit}"
            if len(self._boxes[group].children) != len(bits):
                self._boxes[group].children = buttons[: len(bits)]


def _name(group: str, place: int, size: int) -> str:
    """What a bit is worth: the exponent's as numbers, the mantissa's as shares of the power of two."""
    if group == "sign":
        return "sign bit"
    if group == "exponent":
        return f"exponent bit {size - 1 - place}, worth {2 ** (size - 1 - place)}"
    return f"mantissa bit {place + 1}, worth {power(-place - 1)}"
