"""Controls that a panel's settings make: sliders, rows of buttons, menus and fields, all dressed alike."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import ipywidgets as widgets
import traitlets

# Makes a control of its options, as (name, what it holds), and of what it holds first.
Maker = Callable[[list[tuple[str, Any]], Any], Any]


def control(
    kind: Callable[..., Any], label: str, width: int | str, room: int = 80, tooltip: str = "",
    button: int | str | None = None, **more: Any,
) -> Maker:  # fmt: skip
    """A maker of `kind`. Numbers are pixels: of all, of the label, and of one of its buttons if it has some."""
    style = {"description_width": _px(room)} | ({} if button is None else {"button_width": _px(button)})
    # A row of buttons stays one row, as wide as the page at most, and its label ends where those of sliders do.
    row = {} if button is None else {"max_width": "100%", "display": "flex", "flex_flow": "row"}
    beside = [] if button is None else ["widget-inline-hbox"]
    return lambda options, value: kind(
        options=options, value=value, description=label, tooltip=tooltip, style=style,
        layout=widgets.Layout(width=_px(width), **row), _dom_classes=beside, **more,
    )  # fmt: skip


def _px(size: int | str) -> str:
    return f"{size}px" if isinstance(size, int) else size


def _whole(options: list[tuple[str, Any]], **more: Any) -> widgets.IntSlider:
    return widgets.IntSlider(min=options[0][1], max=options[-1][1], **more)


def _field(options: list[tuple[str, Any]], **more: Any) -> widgets.Text:
    if not options:
        return widgets.Text(continuous_update=False, **more)
    return widgets.Combobox(options=[name for name, _ in options], continuous_update=False, **more)


slider = partial(control, widgets.SelectionSlider)
whole_slider = partial(control, _whole)  # over whole numbers, from the first option to the last; they can be typed, too
menu = partial(control, widgets.Dropdown)
field = partial(control, _field)  # tells what was typed at Enter, or when it is left; options drop down from it
# JupyterLab takes the arrow keys and some letters away from a menu, but not Enter and Space from a button.
buttons = partial(control, widgets.ToggleButtons)


def button(text: str, press: Callable[[], object], tooltip: str | None = None) -> widgets.Button:
    """A button as wide as its text."""
    made = widgets.Button(description=text, tooltip=tooltip, layout=widgets.Layout(width="auto"))
    made.on_click(lambda _: press())
    return made


class Unseen(traitlets.HasTraits):  # type: ignore[misc]
    """Holds a setting that no control shows, such as which of some buttons was pressed last."""

    value = traitlets.Any()


def label_of(words: str, room: int | None) -> widgets.Label:
    """As wide and as aligned as a slider's description of that room; None: as wide as its words."""
    if room is None:
        return widgets.Label(words)
    place = widgets.Layout(width=_px(room), margin="2px 8px 2px 0", display="flex", justify_content="flex-end")
    return widgets.Label(words, layout=place)


class Toggles(Unseen):
    """Toggle buttons by name, in `buttons`; `value`: the names of those that are pressed, in their order.

    tooltip: name → what its button says when one points at it. `first`: names beyond so many are seen while they are
    pressed, or while "more" is; None: all are seen. `room`: pixels of the label, which ends at their right.
    """

    def __init__(
        self, names: Iterable[str], pressed: Iterable[str], tooltip: Callable[[str], str], label: str,
        first: int | None = None, room: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(value=tuple(pressed))
        self._setting = self._open = False
        self.buttons = {
            name: widgets.ToggleButton(
                name in self.value, description=name, tooltip=tooltip(name) or None, layout=widgets.Layout(width="auto")
            )
            for name in names
        }
        self._later = list(self.buttons.items())[first:] if first is not None else []
        self.more = button("more", self._turn, "show the others as well")
        seen: list[widgets.Widget] = list(self.buttons.values())
        if self._later:  # "more" stays where it is, and a second line begins where the first does
            seen.insert(first or 0, self.more)
            seen = [widgets.HBox(seen, layout=widgets.Layout(flex="1 1 0%", flex_flow="row wrap"))]
        self.row = (*([label_of(label, room)] if label else []), *seen)
        for one in self.buttons.values():
            one.observe(self._pressed, names="value")
        self.observe(self._set, names="value")
        self._show()

    def _show(self) -> None:
        for name, one in self._later:
            one.layout.display = None if self._open or name in self.value else "none"

    def _turn(self) -> None:
        self._open = not self._open
        self.more.description = "less" if self._open else "more"
        self.more.tooltip = "hide those that are not pressed" if self._open else "show the others as well"
        self._show()

    def _pressed(self, _change: Any) -> None:
        if not self._setting:
            self.value = tuple(name for name, one in self.buttons.items() if one.value)
            self._show()

    def _set(self, _change: Any) -> None:
        self._setting = True
        for name, one in self.buttons.items():
            one.value = name in self.value
        self._setting = False
        self._show()
