"""`PicturePanel`: controls above one picture that they decide, and a line of words below it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import ipywidgets as widgets

from mpkit.course import markup
from mpkit.course.panels.controls import Toggles, button, label_of
from mpkit.course.panels.panel import Panel, Picture, guarded
from mpkit.course.panels.setting import TypedNumber, make_controls


class PicturePanel(Panel):
    """A panel whose settings decide one picture.

    A subclass has its settings as class attributes and says in `rows` where their controls stand.
    `look` computes what is shown, `draw` makes the picture of that, `headline` its title, `summary` the same in words.

    Args:
        start: first values of some settings, by name. TypeError: no such setting. Else as for setting them.
    """

    # Names of settings; "presets" are the buttons of `jumps`. What has a row to itself is not put into a box.
    rows: Sequence[Sequence[str]] = ()
    jumps: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # the settings that a button chooses, by the button's name
    jumps_called, jumps_room = "", 80  # the name of their row, and its pixels
    below_rows: Sequence[widgets.Widget] = ()
    drawn_by: Callable[[], Any] | None = None  # makes `figure`, once for each panel
    words_room = 0  # pixels kept free for the words: what stands below stays where it is
    announce = "polite"  # whether a screen reader announces the words; "off" where they change by themselves

    def __init__(self, **start: Any) -> None:
        self.controls, self._held = make_controls(self), 0
        self.presets = {name: button(name, partial(self.choose, **to)) for name, to in self.jumps.items()}
        make_figure = type(self).drawn_by  # from the class: nothing is bound
        self.figure: Any = make_figure and make_figure()
        self.picture, room = Picture(), f"{self.words_room}px" if self.words_room else None
        self.words = widgets.HTML(layout=widgets.Layout(min_height=room))
        if self.message_at is None:
            self.message_at = len(self.rows) + len(self.below_rows)  # above the picture, which may fill the screen
        super().__init__(*map(self._row, self.rows), *self.below_rows, self.picture, self.words)
        if unknown := [name for name in start if name not in self.controls]:
            known = ", ".join(self.controls)
            raise TypeError(f"{type(self).__name__} has no setting {unknown[0]!r}; it has {known}.")
        # What is typed may depend on what is chosen: a weight on its format.
        for name in sorted(start, key=lambda name: isinstance(getattr(type(self), name), TypedNumber)):
            setattr(self, name, start[name])
        for control in self.controls.values():
            control.observe(self.moved, names="value")
        self.look()  # not guarded: a panel that cannot show its first picture is not made
        self.show()

    def look(self) -> None:
        """Compute what the settings ask for and keep it. BadInput: it cannot be used, and nothing was changed."""

    def draw(self) -> Any:
        """The picture of what `look` kept, as something that has `png()`."""
        raise NotImplementedError

    def headline(self) -> str:
        """The picture's title: what it shows, in a sentence."""
        raise NotImplementedError

    def said(self) -> str:
        """The words below the picture."""
        return self.summary()

    def unseen(self) -> str:
        """What screen readers announce before the words, and nobody sees: what the picture says in itself."""
        return ""

    def png(self) -> bytes:
        """The picture shown now."""
        return bytes(self.picture.value)

    def alt(self) -> str:
        """The headline, then the summary, which may begin with it."""
        summary = self.summary()
        return summary if summary.startswith(self.headline()) else f"{self.headline()}. {summary}"

    def moved(self, _change: Any) -> None:
        """A control was moved."""
        if not self._held:
            self.redraw()

    @guarded
    def redraw(self) -> None:
        """Look again, and show it."""
        self.look()
        self.show()

    def show(self) -> None:
        """Show what `look` kept."""
        self.picture.value = self.draw().png()
        self.picture.tooltip = self.headline()
        self._mark_presets()
        self.words.value = markup.status(self.said(), self.unseen(), aria_live=self.announce)

    def _mark_presets(self) -> None:
        """The button whose settings are shown looks pressed; after any of them was moved, none does."""
        for name, to in self.jumps.items():
            shown = all(getattr(self, setting) == value for setting, value in to.items())
            (self.presets[name].add_class if shown else self.presets[name].remove_class)("mod-active")

    def choose(self, **settings: Any) -> None:
        """Set several settings and draw once, at the end."""
        with self.hold():
            for name, value in settings.items():
                setattr(self, name, value)
        self.redraw()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Inside, controls can be moved without a new picture."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def _row(self, names: Sequence[str]) -> widgets.Widget:
        label = [label_of(self.jumps_called, self.jumps_room)] if self.jumps_called else []
        found = [
            [*label, *self.presets.values()] if name == "presets" else _widgets(self.controls[name]) for name in names
        ]
        made = [one for several in found for one in several]
        return made[0] if len(made) == 1 else widgets.HBox(made, layout=widgets.Layout(flex_flow="row wrap"))


def _widgets(control: Any) -> Sequence[widgets.Widget]:
    return control.row if isinstance(control, Toggles) else (control,)
