"""`Panel`, the base of every interactive picture: live in JupyterLab, a still twin everywhere else."""

import base64
import functools
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import ipywidgets as widgets
import traitlets

from mpkit.course import markup
from mpkit.course.panels.names import named
from mpkit.course.panels.twin import WIDGET_VIEW, Bundle, Twins
from mpkit.course.pictures.page import about_png, described

P = ParamSpec("P")
R = TypeVar("R")
PanelT = TypeVar("PanelT", bound="Panel")


class Picture(widgets.Image):  # type: ignore[misc]
    """A PNG with an accessible name: set `tooltip` to what the picture says.

    The plain Image has no `description`, which the front end reads when there is a tooltip.
    """

    description = traitlets.Unicode("").tag(sync=True)

    def __init__(self) -> None:
        super().__init__(format="png", layout=widgets.Layout(width="100%", max_width="1040px", object_fit="contain"))


class BadInput(ValueError):
    """The learner typed something that the panel cannot use. Its text is shown in the panel, and that is all."""


class Panel:
    """A container of widgets that can also show itself without a front end.

    A subclass builds its widgets, passes them to `super().__init__`, and says in `summary`, `png` (with `alt`) or
    `html` what it shows now. Those three depend on the widgets' values alone, so a stored notebook is repeatable.

    JupyterLab shows the live widget (`box`). Where that view is missing (see twin.py), readers see `html()` if there
    is one, else `png()`, else the summary.
    """

    message_at: int | None = None  # how many of the children stand above the message; None: all
    message_room = 0  # pixels kept free for the message: what stands below stays where it is
    controls: Mapping[str, Any]  # by the names of the class's settings
    lock: threading.RLock  # held by whatever changes the panel
    box: widgets.VBox
    message: widgets.HTML
    last_error: Exception | None
    twins: Twins

    def __init__(self, *children: widgets.Widget) -> None:
        self.lock = threading.RLock()
        room = f"{self.message_room}px" if self.message_room else None
        self.message = widgets.HTML(layout=widgets.Layout(display=None if room else "none", min_height=room))
        above = len(children) if self.message_at is None else self.message_at
        self.box = widgets.VBox()
        self.box.children = [*children[:above], self.message, *children[above:], named(self.box)]
        self.last_error = None
        self.twins = Twins(self._still, self.lock)

    def summary(self) -> str:
        """What the panel shows now, in one or more lines of text that do not vary between runs."""
        return type(self).__name__

    def png(self) -> bytes | None:
        """The picture shown now, as a PNG file's bytes, or None for a panel without a picture."""
        return None

    def alt(self) -> str:
        """What the picture says, for those who cannot see it."""
        return self.summary()

    def html(self) -> str | None:
        """The panel as still HTML, for panels without a picture. It must not vary between runs: nbval compares it."""
        return None

    def say(self, text: str, accent: str = "note") -> None:
        """Show a line under the controls; "" clears it. The text is escaped; `accent` is good, note, bad or plain."""
        self.message.value = markup.card(markup.status(text), accent) if text else ""
        if not self.message_room:  # an empty line would keep its height
            self.message.layout.display = None if text else "none"

    def __repr__(self) -> str:
        return self.summary()

    def _ipython_display_(self) -> None:
        """Show the live view, and behind it the twin that a saved notebook needs."""
        self.twins.show(self._live())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[Bundle, Bundle]:
        """Both in one, for a front end that asks."""
        still, metadata = self._still()
        return {**still, **self._live()}, metadata

    def _live(self) -> Bundle:
        return {WIDGET_VIEW: (self.box._repr_mimebundle_() or {})[WIDGET_VIEW]}

    def _still(self) -> tuple[Bundle, Bundle]:
        """What the panel shows without a kernel, as a mime bundle, and its metadata."""
        data: Bundle = {"text/plain": repr(self)}
        metadata: Bundle = {}
        try:
            if html := self.html():
                data["text/html"] = html
            if png := self.png():
                alt = self.alt()
                data["image/png"] = base64.b64encode(described(png, alt)).decode("ascii")
                metadata["image/png"] = about_png(png, alt)
        except Exception as error:  # a broken picture must not take the live widget down with it
            _tell(self, error)
        return data, metadata


def guarded(method: Callable[Concatenate[PanelT, P], R]) -> Callable[Concatenate[PanelT, P], R | None]:
    """Decorator for a panel's callbacks: an error is shown in the panel instead of vanishing in the kernel's log.

    `BadInput` shows its own text. Any other exception shows its type and text and is kept in `panel.last_error`;
    with MPKIT_STRICT=1 in the environment (the tests set it) it is raised again. The next call clears the message.

    One callback of a panel runs at a time: JupyterLab 4.4 and later send what a control holds to one thread of the
    kernel (a subshell of ipykernel 7) and the press of a button to another.
    """

    @functools.wraps(method)
    def run(self: PanelT, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        with self.lock:
            if self.last_error is not None:
                self.last_error = None
                self.say("")
            try:
                return method(self, *args, **kwargs)
            except Exception as error:
                _tell(self, error)
                return None
            finally:
                self.twins.update_soon()

    return run


def _tell(panel: Panel, error: Exception) -> None:
    """Show an error in the panel; in strict mode raise it again, unless the learner's input caused it."""
    panel.last_error = error
    if isinstance(error, BadInput):
        panel.say(str(error), "bad")
        return
    panel.say(
        f"This did not work: {type(error).__name__}: {error}. "
        "Try another setting, or run the cell again. `panel.last_error` has the details.",
        "bad",
    )
    if os.environ.get("MPKIT_STRICT") == "1":
        raise error
