"""A live view with a still twin behind it: what a saved lesson shows when no kernel runs any more.

JupyterLab saves of a widget only its name. Opened again it says "Error displaying widget: model not found", also where
the same output holds a picture. So the picture is an output of its own, and a style decides which of the two is seen:
the twin while there is no widget, and not the error. The style stands between them, in an output without height. It
uses `:has()`, which browsers know since the end of 2023.
"""

import threading
from collections.abc import Callable
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle, display

from mpkit.course.pictures.page import TELL, one_page

Bundle = dict[str, Any]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PAUSE = 1.0  # seconds
_CHILD = ".jp-OutputArea-child"  # of an output area: one output, with its prompt
# What JupyterLab puts there: a node with widgets inside; nothing while they load; a node that is one if they are gone.
_ALIVE = f"{_CHILD}:has(> .jp-OutputArea-output > .jupyter-widgets, > .jp-OutputArea-output:empty)"
_GONE = f"{_CHILD}:has(> .jp-OutputArea-output.jupyter-widgets)"
STYLE = (
    f'<style class="mpkit-twin">{_GONE}:has(+ {_CHILD} .mpkit-twin), {_CHILD}:has(.mpkit-twin), '
    f"{_ALIVE} + {_CHILD}:has(.mpkit-twin) + {_CHILD} {{ display: none; }}</style>"
)


class Twins:
    """The twins of one panel: shown behind it, and drawn anew some time after a learner changed it.

    still: makes the twin, a mime bundle and its metadata.
    lock: held while it does.
    """

    def __init__(self, still: Callable[[], tuple[Bundle, Bundle]], lock: threading.RLock) -> None:
        self._still, self._lock = still, lock
        self._handles: list[DisplayHandle] = []
        self._touched = False  # by a learner; a cell shows the state that it was written for
        self._timer = threading.Timer(0, self.update)

    def show(self, live: Bundle) -> None:
        """Display `live` and a twin behind it.

        Where the outputs of a cell are not one page with that style (VS Code, Colab), both would be seen: there it is
        one output with everything, of which the front end takes what it can show.
        """
        still, metadata = self._still()
        if not one_page():
            display({**still, **live}, metadata=metadata, raw=True)
            return
        display(live, raw=True)
        display({"text/html": STYLE + (TELL if "image/png" in still else "")}, raw=True)
        handle = display(still, metadata=metadata, raw=True, display_id=True)
        if handle is not None:  # outside of IPython there is none
            self._handles.append(handle)

    def update(self) -> None:
        """Put what the panel shows now in the place of every twin."""
        with self._lock:
            still, metadata = self._still()
        for handle in self._handles:
            handle.update(still, metadata=metadata, raw=True)

    def update_soon(self) -> None:
        """The same after a pause without further changes, if it was a learner who set them off."""
        self._touched = self._touched or _asked_by_a_control()
        if self._touched and self._handles:
            self._timer.cancel()
            self._timer = threading.Timer(PAUSE, self.update)
            self._timer.daemon = True
            self._timer.start()


def _asked_by_a_control() -> bool:
    """Whether the kernel is dealing with what a learner did to a widget, and not with a cell."""
    kernel: Any = getattr(get_ipython(), "kernel", None)
    parent = {} if kernel is None else kernel.get_parent()
    return bool(parent.get("header", {}).get("msg_type") == "comm_msg")
