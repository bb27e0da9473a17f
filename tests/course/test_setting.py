"""The settings of a panel's class: read, set, refused, and the controls that they make."""

from __future__ import annotations

import importlib
import pkgutil
import pydoc
from typing import Any, Literal, get_args

import pytest

from mpkit import BF16, FP16, FP32, FloatFormat, course
from mpkit.course.panels.controls import Toggles, Unseen, buttons, field, menu, slider, whole_slider
from mpkit.course.panels.panel import Panel
from mpkit.course.panels.setting import FormatSetting, OwnSetting, Setting, Several, TypedNumber, make_controls

Way = Literal["up", "down"]
WAYS: tuple[Way, ...] = get_args(Way)


def positive(panel: Kitchen, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{value} is not above 0 {panel.way}.")


class Kitchen:
    """Every kind of setting."""

    size = Setting((1, 2, 4), slider("size", 300, 80), 2, text="{} m".format, doc="How large.")
    way = Setting(WAYS, buttons("way", 200, 60, "which way", 50, tooltips=("a", "b")), doc="Which way.")
    name = Setting[str](lambda panel: panel.names, menu("name", 100, 50), doc="Who.")
    whole = Setting(range(5), whole_slider("whole", 300, 80), 3, use="a whole number from 0 to 4", doc="How many.")
    format = FormatSetting((FP16, BF16), buttons("format", 200), BF16, doc="Which format.")
    init: OwnSetting[int] = OwnSetting((1, 10), slider("init", 300, 80), doc="The first one.")
    weight = TypedNumber(field("weight", 100, 50, "a number"), 0.1, check=positive, doc="How heavy.")
    some = Several(("a, b", "c", "d"), ("d", "c"), label="some of", tooltip="{} is in".format, doc="Which of them.")
    hidden = Setting(WAYS, lambda _, value: Unseen(value=value), doc="Shown by nothing.")

    def __init__(self) -> None:
        self.names = ["Ada", "Grace"]
        self.controls = make_controls(self)


@pytest.fixture
def kitchen() -> Kitchen:
    return Kitchen()


def test_names_beyond_the_first_stand_behind_a_button_until_they_are_wanted() -> None:
    toggles = Toggles(("a", "b", "c"), ("a",), "about {}".format, "", first=1)

    def seen() -> list[str]:
        return [name for name, one in toggles.buttons.items() if one.layout.display != "none"]

    (box,) = toggles.row
    assert [one.description for one in box.children] == ["a", "more", "b", "c"], "it does not move when it is pressed"
    assert seen() == ["a"]
    assert toggles.buttons["c"].tooltip == "about c"
    toggles.value = ("a", "c")
    assert seen() == ["a", "c"], "what is pressed is seen"
    toggles.value = ("a",)
    assert seen() == ["a"]
    toggles.more.click()
    toggles.value = ("b",)
    assert (seen(), toggles.more.description) == (["a", "b", "c"], "less")
    toggles.more.click()
    assert (seen(), toggles.more.description) == (["a", "b"], "more"), "what is pressed stays"
    assert all(one.description != "more" for one in Toggles(("a", "b"), (), str, "").row)


def values(kitchen: Kitchen) -> dict[str, Any]:
    return {name: getattr(kitchen, name) for name in kitchen.controls}


def test_the_controls_start_where_the_settings_say(kitchen: Kitchen) -> None:
    assert values(kitchen) == {
        "size": 2, "way": "up", "name": "Ada", "whole": 3, "format": BF16, "init": None, "weight": 0.1,
        "some": ("c", "d"), "hidden": "up",
    }  # fmt: skip
    assert {name: control.value for name, control in kitchen.controls.items()} == values(kitchen) | {
        "format": "BF16", "init": "own", "weight": "0.1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [("size", 4, 4), ("way", "down", "down"), ("name", "Grace", "Grace"), ("whole", 0, 0), ("format", FP16, "FP16"),
     ("init", 10, 10), ("weight", 0.1 + 2.0**-40, "0.1000000000009095"), ("weight", 1e-9, "1e-09"),
     ("some", ("a, b", "d"), ("a, b", "d")), ("some", (), ()), ("hidden", "down", "down")],
)  # fmt: skip
def test_what_is_set_is_in_the_control_and_read_again(kitchen: Kitchen, name: str, value: Any, held: Any) -> None:
    setattr(kitchen, name, value)
    assert (getattr(kitchen, name), kitchen.controls[name].value) == (value, held)


def test_what_the_control_gets_is_read(kitchen: Kitchen) -> None:
    for name, held in (("size", 1), ("format", "FP16"), ("init", 1), ("weight", "1/4")):
        kitchen.controls[name].value = held
    assert (kitchen.size, kitchen.format, kitchen.init, kitchen.weight) == (1, FP16, 1, 0.25)
    kitchen.init = None
    assert kitchen.controls["init"].value == "own"
    kitchen.controls["weight"].value = "many"
    with pytest.raises(ValueError, match="`many` is not a number that can be read"):
        _ = kitchen.weight


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("size", 3, "size 3 is not in this panel; use one of 1, 2, 4."),
        ("way", "left", "way 'left' is not in this panel; use one of 'up', 'down'."),
        ("name", "Alan", "name 'Alan' is not in this panel; use one of 'Ada', 'Grace'."),
        ("whole", 2.5, "whole 2.5 is not in this panel; use a whole number from 0 to 4."),
        ("whole", "2", "whole '2' is not in this panel; use a whole number from 0 to 4."),
        ("format", FP32, "format FP32 is not in this panel; use one of FP16, BF16."),
        ("format", FloatFormat("FP16", 6, 9), "format FP16 is not in this panel; use one of FP16, BF16."),
        ("init", 5, "init 5 is not in this panel; use one of 1, 10."),
        ("init", "own", "init 'own' is not in this panel; use one of 1, 10."),
        ("weight", -1.0, "-1.0 is not above 0 up."),
        ("some", ("c", "x"), "some 'x' is not in this panel; use some of 'a, b', 'c', 'd'."),
    ],
)
def test_what_is_not_offered_is_refused_and_changes_nothing(kitchen: Kitchen, name: str, value: Any, text: str) -> None:
    before = values(kitchen)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole text is compared
        setattr(kitchen, name, value)
    assert str(caught.value) == text
    assert values(kitchen) == before


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("weight", FP32, "weight is a number, but FP32 (FloatFormat) came."),
        ("weight", None, "weight is a number, but None (NoneType) came."),
        ("some", None, "some are several names, such as ('a, b', 'c'), but None came."),
        ("some", "c", "some are several names, such as ('a, b', 'c'), but 'c' came."),
    ],
)
def test_another_type_is_named(kitchen: Kitchen, name: str, value: Any, text: str) -> None:
    before = values(kitchen)
    with pytest.raises(TypeError) as caught:
        setattr(kitchen, name, value)
    assert str(caught.value) == text
    assert values(kitchen) == before


def test_what_is_no_format_is_a_type_error(kitchen: Kitchen) -> None:
    with pytest.raises(TypeError, match=r"'BF16' \(str\) came; write mpkit\.BF16"):
        kitchen.format = "BF16"  # type: ignore[assignment]


def test_buttons_and_the_setting_behind_them_agree(kitchen: Kitchen) -> None:
    seen: list[tuple[str, ...]] = []
    some = kitchen.controls["some"]
    some.observe(lambda change: seen.append(change["new"]), names="value")
    some.buttons["a, b"].value = True
    some.buttons["d"].value = False
    kitchen.some = ("d",)
    assert seen == [("a, b", "c", "d"), ("a, b", "c"), ("d",)], "one change for each press, and one for all that is set"
    assert [one.value for one in some.buttons.values()] == [False, False, True]
    assert (some.row[0].value, some.row[1].tooltip) == ("some of", "a, b is in")


def test_the_controls_are_dressed(kitchen: Kitchen) -> None:
    size, way = kitchen.controls["size"], kitchen.controls["way"]
    assert (size.description, size.options, size.tooltip) == ("size", (("1 m", 1), ("2 m", 2), ("4 m", 4)), "")
    assert (size.layout.width, size.style.description_width) == ("300px", "80px")
    assert (way.tooltip, way.tooltips, way.style.button_width, way.layout.width) == (
        "which way", ("a", "b"), "50px", "200px",
    )  # fmt: skip
    whole = kitchen.controls["whole"]
    assert (whole.min, whole.max) == (0, 4)


def test_two_panels_have_controls_of_their_own(kitchen: Kitchen) -> None:
    other = Kitchen()
    other.size = 4
    assert kitchen.size == 2


def test_every_setting_of_every_panel_says_what_it_is() -> None:
    for module in pkgutil.walk_packages(course.__path__, "mpkit.course."):
        if ".lesson_" in module.name:
            importlib.import_module(module.name)
    panels, found = [Panel], {}
    while panels:
        panel = panels.pop()
        panels += panel.__subclasses__()
        found |= {f"{panel.__name__}.{name}": one for name, one in vars(panel).items() if isinstance(one, Setting)}
    assert len(found) >= 30
    assert [name for name, one in found.items() if not (one.__doc__ or "").endswith(".")] == []
    assert "How heavy." in pydoc.render_doc(Kitchen, renderer=pydoc.plaintext)
