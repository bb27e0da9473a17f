"""A learner who presses everything: random actions on a panel's controls, junk included."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import ipywidgets as widgets

JUNK = (
    "", " ", "abc", "nan", "inf", "-inf", "1e999", "-1e-999", "0", "-0", "1/0", "2^2^2^2^2", "0x", "1e", "--1", "1,5",
    "½", "１２", "<b>1</b>", "__import__('os')", "9" * 400, "1e308*10", "\0", "∞", "0.1", "3", "2^-20", "65504", "1e5",
)  # fmt: skip
ASKED = (
    widgets.Button, widgets.ToggleButton, widgets.Text, widgets.Combobox, widgets.IntSlider, widgets.SelectionSlider,
    widgets.Dropdown, widgets.ToggleButtons, widgets.RadioButtons, widgets.Checkbox,
)  # fmt: skip


def controls(widget: widgets.Widget) -> Iterator[Any]:
    """Everything in a widget that can be pressed, moved or typed into now."""
    if isinstance(widget, ASKED) and not widget.disabled and widget.layout.display != "none":
        yield widget
    for child in getattr(widget, "children", ()):
        yield from controls(child)


def act(control: Any, draw: random.Random) -> str:
    """Do something with it, as the page would; returns what."""
    if isinstance(control, widgets.Button):
        control.click()
        return f"press {control.description}"
    control.value = value = _value(control, draw)
    return f"{control.description} = {value!r}"


def _value(control: Any, draw: random.Random) -> Any:
    if isinstance(control, widgets.Text):  # a Combobox is one
        return draw.choice(JUNK)
    if isinstance(control, (widgets.ToggleButton, widgets.Checkbox)):
        return not control.value
    if isinstance(control, widgets.IntSlider):
        return draw.randint(control.min, control.max)
    return draw.choice([value for _, value in control._options_full])
