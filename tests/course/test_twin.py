"""A panel's live view and its still twin: what is displayed, and when the twin is drawn anew."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from mpkit.course.panels import twin
from mpkit.course.panels.twin import STYLE, WIDGET_VIEW, Twins
from mpkit.course.pictures import page
from mpkit.course.pictures.page import TELL

LIVE = {WIDGET_VIEW: {"model_id": "m"}}


class Handle:
    """What IPython's `display` returns for an output that can be replaced."""

    def __init__(self) -> None:
        self.shown: list[tuple[Any, Any]] = []

    def update(self, data: Any, *, metadata: Any, raw: bool) -> None:
        assert raw
        self.shown.append((data, metadata))


class Screen:
    """Stands for IPython's `display`."""

    def __init__(self) -> None:
        self.shown: list[tuple[Any, Any]] = []
        self.handle = Handle()

    def __call__(self, data: Any, *, raw: bool, metadata: Any = None, display_id: bool = False) -> Handle | None:
        assert raw
        self.shown.append((data, metadata))
        return self.handle if display_id else None


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen()
    monkeypatch.setattr(twin, "display", screen)
    monkeypatch.setattr(twin, "PAUSE", 0.0)
    for name in ("VSCODE_PID", "VSCODE_CWD"):
        monkeypatch.delenv(name, raising=False)
    return screen


class Counter:
    """Its twin says how often it was asked for one."""

    def __init__(self) -> None:
        self.asked = 0
        self.twins = Twins(self.still, threading.RLock())

    def still(self) -> tuple[dict[str, Any], dict[str, Any]]:
        self.asked += 1
        return {"text/plain": f"twin {self.asked}"}, {"image/png": {"alt": "a"}}


def test_the_live_view_comes_first_then_the_style_then_the_twin(screen: Screen) -> None:
    Counter().twins.show(LIVE)
    live, style, still = screen.shown
    assert live == (LIVE, None), "nothing else in it: JupyterLab would save it beside the twin"
    assert style == ({"text/html": STYLE}, None)
    assert still == ({"text/plain": "twin 1"}, {"image/png": {"alt": "a"}})


def test_a_twin_that_is_an_image_gets_its_name(screen: Screen) -> None:
    Twins(lambda: ({"image/png": ""}, {}), threading.RLock()).show(LIVE)
    assert screen.shown[1] == ({"text/html": STYLE + TELL}, None)


def test_the_style_is_one_that_browsers_take() -> None:
    rule = STYLE.removeprefix('<style class="mpkit-twin">').removesuffix("</style>")
    depth = 0
    for step in re.findall(r":has\(|:is\(|\(|\)", rule):
        if step == ":has(":
            assert depth == 0, "`:has()` inside of `:has()` makes the whole rule void"
        depth += -1 if step == ")" else 1
    assert rule.endswith("{ display: none; }")


@pytest.mark.parametrize("name", ["VSCODE_PID", "VSCODE_CWD"])
def test_in_vs_code_it_is_one_output(screen: Screen, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    Counter().twins.show(LIVE)
    assert screen.shown == [({"text/plain": "twin 1", **LIVE}, {"image/png": {"alt": "a"}})]


def test_on_colab_and_in_vs_codes_kernel_it_is_one_output(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    colab = type("Shell", (), {"__module__": "google.colab._shell", "user_ns": {}})()
    code = type("Shell", (), {"user_ns": {"__vsc_ipynb_file__": "a.ipynb"}})()
    for shell in (colab, code):
        monkeypatch.setattr(page, "get_ipython", lambda shell=shell: shell)
        Counter().twins.show(LIVE)
    assert len(screen.shown) == 2


def test_what_a_cell_changes_leaves_the_twin_alone(screen: Screen) -> None:
    counter = Counter()
    counter.twins.show(LIVE)
    counter.twins.update_soon()
    assert not counter.twins._timer.is_alive()
    assert (counter.asked, screen.handle.shown) == (1, [])


def test_what_a_learner_changes_is_drawn_anew(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = {"header": {"msg_type": "comm_msg"}}
    kernel = type("Kernel", (), {"get_parent": lambda self: parent})()
    shell = type("Shell", (), {"user_ns": {}, "kernel": kernel})()
    monkeypatch.setattr(twin, "get_ipython", lambda: shell)
    counter = Counter()
    counter.twins.update_soon()
    assert counter.asked == 0, "it is not shown yet"
    counter.twins.show(LIVE)
    counter.twins.update_soon()
    counter.twins._timer.join()
    parent["header"]["msg_type"] = "execute_request"  # what a thread of its own draws afterwards counts, too
    counter.twins.update_soon()
    counter.twins._timer.join()
    assert len(screen.handle.shown) == 2
    assert screen.handle.shown[-1] == ({"text/plain": "twin 3"}, {"image/png": {"alt": "a"}})


def test_a_panel_that_is_shown_twice_has_two_twins(screen: Screen) -> None:
    counter = Counter()
    counter.twins.show(LIVE)
    counter.twins.show(LIVE)
    counter.twins.update()
    assert screen.handle.shown == [({"text/plain": "twin 3"}, {"image/png": {"alt": "a"}})] * 2
