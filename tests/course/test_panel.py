"""The base of all panels: live view, still twins, and errors that cannot vanish."""

from __future__ import annotations

import base64
import threading
from typing import Any

import ipywidgets as widgets
import pytest

from mpkit.course import markup
from mpkit.course.lesson_00.first_look_panel import first_look, headline, picture
from mpkit.course.panels.panel import WIDGET_VIEW, BadInput, Panel, guarded
from mpkit.course.pictures.page import described

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\2\0\0\0\2 not really"  # of two by two dots


class Counter(Panel):
    """A slider whose callback fails above 5 and refuses 0."""

    def __init__(self, picture: bytes | None = PNG, still: str | None = None) -> None:
        self.slider = widgets.IntSlider(1)
        self.picture, self.still = picture, still
        super().__init__(self.slider)
        self.slider.observe(self.on_change, names="value")

    @guarded
    def on_change(self, change: dict[str, Any]) -> int:
        if change["new"] == 0:
            raise BadInput("zero is <no> number of things")
        if change["new"] > 5:
            raise KeyError("too <many>")
        return int(change["new"])

    def summary(self) -> str:
        return f"count {self.slider.value}"

    def png(self) -> bytes | None:
        return self.picture

    def alt(self) -> str:
        return "a count"

    def html(self) -> str | None:
        return self.still


def test_a_panel_offers_live_view_picture_and_text() -> None:
    panel = Counter()
    data, metadata = panel._repr_mimebundle_()
    assert data[WIDGET_VIEW]["model_id"] == panel.box.model_id
    assert data["text/plain"] == repr(panel) == "count 1"
    assert base64.b64decode(data["image/png"]) == described(PNG, "a count")
    assert metadata == {"image/png": {"alt": "a count", "width": 1, "height": 1}}
    assert "text/html" not in data


def test_a_panel_without_picture_has_an_html_twin_or_just_text() -> None:
    data, metadata = Counter(picture=None, still="<p>still</p>")._repr_mimebundle_()
    assert (data["text/html"], metadata) == ("<p>still</p>", {})
    assert "image/png" not in data
    bare, _ = Panel(widgets.Label("x"))._repr_mimebundle_()
    assert bare["text/plain"] == "Panel"
    assert set(bare) == {"text/plain", WIDGET_VIEW}


def test_an_error_in_a_callback_shows_and_clears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPKIT_STRICT", raising=False)
    panel = Counter()
    panel.slider.value = 6
    assert "KeyError: &#x27;too &lt;many&gt;&#x27;" in panel.message.value
    assert 'role="status"' in panel.message.value, "a screen reader announces it"
    assert isinstance(panel.last_error, KeyError)
    panel.slider.value = 2
    assert panel.message.value == ""
    assert vars(panel)["last_error"] is None


def test_strict_raises_again_but_not_for_the_learners_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPKIT_STRICT", "1")
    panel = Counter()
    with pytest.raises(KeyError, match="too <many>"):
        panel.slider.value = 7
    assert "KeyError" in panel.message.value
    panel.slider.value = 0
    assert "zero is &lt;no&gt; number of things" in panel.message.value
    assert "BadInput" not in panel.message.value


def test_callbacks_of_two_threads_wait_for_each_other() -> None:
    """JupyterLab sends the press of a button to the kernel's main thread, and a slider's value to another."""
    order: list[str] = []

    class Slow(Counter):
        @guarded
        def begin(self) -> None:
            order.append("in")
            thread.start()
            thread.join(0.2)
            order.append("out")

        @guarded
        def on_change(self, change: dict[str, Any]) -> int:
            order.append("changed")
            return 1

    panel = Slow()
    thread = threading.Thread(target=lambda: setattr(panel.slider, "value", 3))
    panel.begin()
    thread.join(10)
    assert order == ["in", "out", "changed"]


def test_a_broken_picture_leaves_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> bytes:
        raise RuntimeError("no ink")

    panel = Counter()
    monkeypatch.delenv("MPKIT_STRICT", raising=False)
    monkeypatch.setattr(panel, "png", broken)
    data, _ = panel._repr_mimebundle_()
    assert WIDGET_VIEW in data
    assert "image/png" not in data
    assert "no ink" in panel.message.value
    monkeypatch.setenv("MPKIT_STRICT", "1")
    with pytest.raises(RuntimeError, match="no ink"):
        panel._repr_mimebundle_()


def test_say_escapes_and_clears() -> None:
    panel = Counter()
    panel.say("<script> and `code`", "good")
    assert "&lt;script&gt; and <code>code</code>" in panel.message.value
    assert '<div role="status">&lt;' in panel.message.value, "a browser test tells it from the words by their aria-live"
    panel.say("")
    assert panel.message.value == ""


def test_text_columns_line_up() -> None:
    assert markup.columns([("a", "bcd"), ("efg", "h")]) == "a    bcd\nefg  h"


@pytest.mark.parametrize(
    ("k", "lost"),
    [(1, ""), (7, ""), (8, "BF16"), (10, "BF16"), (11, "FP16, BF16"), (23, "FP16, BF16"), (24, "FP32, FP16, BF16")],
)
def test_first_look_loses_the_step_behind_the_last_place(k: int, lost: str) -> None:
    """IEEE 754: a format with m stored places keeps 1 + 2^-k for k <= m; k = m + 1 is a tie, which goes to even."""
    panel = first_look()
    panel.k.value = k
    assert headline(k).endswith(f"is exactly 1 in {lost}" if lost else "FP32, FP16 and BF16 keep it")
    assert panel.view.value == panel.html() == picture(k)
    assert picture(k).count("✗ lost") == len(lost.split(", ") if lost else [])


def test_first_look_says_its_values() -> None:
    panel = first_look(9)
    assert repr(panel) == "1 + 2⁻⁹ is exactly 1 in BF16 (FP32 1.001953125, FP16 1.001953125, BF16 1)"
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 25, but 0 came"):
        first_look(0)
