"""The panel of one picture: when it draws, what it says, and what happens to an error."""

from __future__ import annotations

from typing import Any, ClassVar

import ipywidgets as widgets
import pytest

from mpkit.course.panels.controls import buttons, slider
from mpkit.course.panels.panel import BadInput
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import Setting, Several


class Frame:
    """Eight letters of a PNG, and the title."""

    def __init__(self, title: str) -> None:
        self.title = title

    def png(self) -> bytes:
        return b"\x89PNG " + self.title.encode()


class Product(PicturePanel):
    """The product of two numbers, which must not be 6, and not 0."""

    a = Setting((0, 1, 2, 3), slider("a", 100, 50), 1, doc="One.")
    b = Setting((1, 2, 3), buttons("b", 100), doc="The other.")
    marks = Several(("x", "y"), ("x",), doc="Marks.")
    rows, drawn_by = (("a", "presets"), ("b",), ("marks",)), list
    jumps: ClassVar = {"nine": {"a": 3, "b": 3}, "one": {"a": 1, "b": 1}}
    words_room = 40

    def look(self) -> None:
        if self.a * self.b == 6:
            raise BadInput("Not 6, please.")
        self.seen, self.inverse = (self.a, self.b), 1 / (self.a * self.b)

    def draw(self) -> Frame:
        self.figure.append(self.seen)
        return Frame(self.headline())

    def headline(self) -> str:
        return f"{self.seen[0]} times {self.seen[1]} < 10"

    def summary(self) -> str:
        return f"The inverse is {self.inverse:.2f}, <b>."


@pytest.fixture
def panel(monkeypatch: pytest.MonkeyPatch) -> Product:
    monkeypatch.setenv("MPKIT_STRICT", "1")
    return Product(a=2)


def test_it_draws_once_at_first_and_says_what_it_shows(panel: Product) -> None:
    assert panel.figure == [(2, 1)], "the first values are set before anything is drawn"
    assert panel.png() == b"\x89PNG 2 times 1 < 10"
    assert panel.picture.tooltip == "2 times 1 < 10"
    assert panel.words.value == (
        '<div role="status" aria-live="polite">The inverse is 0.50, &lt;b&gt;.</div>'
    )  # escaped
    assert panel.words.layout.min_height == "40px"
    assert panel.alt() == "2 times 1 < 10. The inverse is 0.50, <b>."
    assert Product().figure == [(1, 1)], "another panel has a figure of its own"


def test_a_summary_that_begins_with_the_headline_is_the_alt_text(
    panel: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel, "summary", lambda: f"{panel.headline()}, and more.")
    assert panel.alt() == "2 times 1 < 10, and more."


def test_every_control_draws(panel: Product) -> None:
    panel.controls["a"].value = 3
    panel.b = 3
    panel.controls["marks"].buttons["y"].value = True
    assert panel.figure == [(2, 1), (3, 1), (3, 3), (3, 3)]


def test_the_rows_stand_above_the_picture(panel: Product) -> None:
    first, second, third, *rest = panel.box.children
    assert list(first.children) == [panel.controls["a"], *panel.presets.values()]
    assert second is panel.controls["b"], "alone, it is in no box"
    assert list(third.children) == list(panel.controls["marks"].row)
    assert rest[:-1] == [panel.message, panel.picture, panel.words], "a message is seen without scrolling"


def test_the_message_can_stand_higher() -> None:
    class Higher(Product):
        message_at = 1

    panel = Higher()
    assert panel.box.children[1] is panel.message
    assert panel.box.children[-2] is panel.words


def test_a_button_that_jumps_draws_once_even_where_the_panel_is_there(panel: Product) -> None:
    panel.presets["nine"].click()
    panel.presets["nine"].click()
    assert panel.figure == [(2, 1), (3, 3), (3, 3)]
    assert [one.description for one in panel.presets.values()] == ["nine", "one"]


def test_nothing_is_drawn_while_it_is_held(panel: Product) -> None:
    with panel.hold(), panel.hold():
        panel.a = 3
    with pytest.raises(KeyError), panel.hold():
        raise KeyError
    assert panel.figure == [(2, 1)]
    panel.b = 1
    assert len(panel.figure) == 1, "b was 1 already"
    panel.b = 3
    assert panel.figure == [(2, 1), (3, 3)], "an error inside does not hold it for ever"


def test_bad_input_is_told_and_the_picture_stays(panel: Product) -> None:
    before = panel.png(), panel.words.value, repr(panel)
    panel.controls["b"].value = 3
    assert "Not 6, please." in panel.message.value
    assert isinstance(panel.last_error, BadInput)
    assert (panel.png(), panel.words.value, repr(panel)) == before
    panel.a = 1
    assert (panel.message.value, vars(panel)["last_error"]) == ("", None)


def test_any_other_error_is_told_too_and_raised_where_that_is_strict(
    panel: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ZeroDivisionError):
        panel.controls["a"].value = 0
    panel.a = 1
    monkeypatch.delenv("MPKIT_STRICT")
    panel.controls["a"].value = 0
    assert "This did not work: ZeroDivisionError" in panel.message.value


def test_a_first_value_that_is_not_offered_is_refused() -> None:
    with pytest.raises(ValueError, match="a 7 is not in this panel; use one of 0, 1, 2, 3"):
        Product(a=7)


def test_a_screen_reader_can_be_left_in_peace() -> None:
    class Quiet(Product):
        announce = "off"

        def said(self) -> str:
            return "Shh."

    assert Quiet().words.value == '<div role="status" aria-live="off">Shh.</div>'


def test_the_row_of_a_panel_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(Product):
        rows: tuple[Any, ...] = ()
        below_rows = (widgets.Label("here"),)

    assert [type(child).__name__ for child in Bare().box.children] == ["Label", "HTML", "Picture", "HTML", "HTML"]


def test_a_panel_is_not_made_of_what_it_does_not_have() -> None:
    with pytest.raises(TypeError, match="Product has no setting 'c'; it has a, b, marks"):
        Product(c=1)
    with pytest.raises(TypeError, match="Product has no setting 'draw'"):
        Product(draw=1)
    with pytest.raises(ValueError, match="a 7 is not in this panel"):
        Product(a=7)
    with pytest.raises(BadInput, match="Not 6, please"):
        Product(a=2, b=3)
