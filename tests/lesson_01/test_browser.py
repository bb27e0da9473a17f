"""Lesson 01 in a real browser: it runs, the bit explorer answers typing and keys at once, and everybody can read it."""

from __future__ import annotations

import re

import pytest
from harness.lesson_page import (  # noqa: F401
    LessonPage,
    test_a_saved_lesson_comes_back_whole,
    test_every_control_has_a_name_and_axe_finds_nothing_serious,
    test_no_panel_is_cut_at_any_width,
    test_run_all_without_an_error,
    test_the_stored_lesson_shows_pictures,
)
from harness.page_checks import clipped, contrasts
from labdriver import Lab
from labkeys import press
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser
LESSON = "01_see_the_bits.ipynb"
START = "3e-5: 0 in E4M3, subnormal in FP16 and E5M2, exact in none"
FEEDBACK = ("○ Exercise 01.1", "✗ Exercise 01.2", "○ Exercise 01.3")
# Labels, headline, the buttons of each kind, the table's head, and every cell and bit of FP16's row.
SAMPLE = (
    "label:visible, [role=status], button:nth-of-type(-n+2), th[scope=col], th[scope=col] span, "
    "tbody tr:nth-child(3) :is(th, td, span span)"
)
CUT = "cells => cells.filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText)"
SCROLLS = "e => { const box = e.parentElement; return box.scrollWidth > box.clientWidth; }"


@pytest.fixture
def page(page: Page) -> Page:
    """The lesson, with the panel at the start: 3e-5, FP16, light theme, 1280 pixels."""
    menu(page).select_option("FP16")
    enter(page, "3e-5")
    expect(status(page)).to_have_text(START)
    return page


def panel(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_text("toggle the bits of", exact=True))


def field(page: Page) -> Locator:
    return panel(page).get_by_label("number", exact=True)


def menu(page: Page) -> Locator:
    return panel(page).get_by_label("toggle the bits of")


def status(page: Page) -> Locator:
    """The headline over the table."""
    return view(page).get_by_role("status")


def view(page: Page) -> Locator:
    return panel(page).locator(".widget-html-content", has=page.locator("table"))


def bit(page: Page, name: str) -> Locator:
    """A bit's button by the beginning of its tooltip."""
    return panel(page).locator(f'button[title^="{name},"]')


def enter(page: Page, text: str) -> None:
    field(page).fill(text)
    field(page).press("Enter")


def test_a_typed_number_is_shown_in_all_formats(lab: Lab, page: Page) -> None:
    enter(page, "65519.99")
    expect(status(page)).to_have_text("65519.99: Inf in E5M2, 448 in E4M3, exact in none")
    expect(view(page).locator("tbody tr")).to_have_count(6)
    expect(view(page).get_by_role("row", name=re.compile("^▸ FP16"))).to_contain_text("65504")
    enter(page, "0x3c00")
    expect(status(page)).to_have_text("1: exact in all formats")


def test_what_cannot_be_read_gets_a_friendly_message(lab: Lab, page: Page) -> None:
    enter(page, "half")
    message = panel(page).get_by_text("is not a number that can be read; type one such as")
    expect(message).to_be_visible()
    expect(status(page)).to_have_text(START)
    expect(field(page)).to_have_value("half")
    enter(page, "0.1")
    expect(message).to_have_count(0)


@pytest.mark.parametrize("width", [1280, 900])
def test_messages_and_steps_do_not_move_the_table(lab: Lab, page: Page, width: int) -> None:
    """Where the table and its columns begin, with and without a message, and after each of some steps."""
    lab.resize(page, width)
    before = places(page)
    enter(page, "0x13c00")
    expect(panel(page).get_by_text("Type a shorter one, or choose a wider format")).to_be_visible()
    assert places(page) == before
    enter(page, "3e-5")
    seen = []
    for _ in range(6):
        panel(page).get_by_role("button", name="next up").press("Enter")
        lab.ask(page)
        seen.append(places(page)[1:])
    assert seen == [before[1:]] * 6


def places(page: Page) -> list[int]:
    """Upper edge of the table, and left edge of each column."""
    left = "cells => cells.map(e => Math.round(e.getBoundingClientRect().left))"
    edges = list(view(page).locator("th[scope=col]").evaluate_all(left))
    return [round(view(page).locator("table").bounding_box()["y"] - field(page).bounding_box()["y"]), *edges]


def test_field_and_table_agree_when_text_and_a_button_come_together(lab: Lab, page: Page) -> None:
    """The browser sends typed text when the field is left. It may arrive before the button's click, or after it."""
    preset = panel(page).get_by_role("button", name="0.1", exact=True)
    preset.click()
    expect(status(page)).to_have_text("0.1: exact in no format")
    field(page).fill("0.15")  # without Enter
    preset.click()
    lab.ask(page)
    field(page).press("End")
    page.keyboard.type("5")
    preset.click()
    lab.ask(page)
    expect(status(page)).to_have_text(f"{field(page).input_value()}: exact in no format")


def test_the_focus_can_be_seen(page: Page) -> None:
    field(page).press("Tab")
    style = "e => { const s = getComputedStyle(e); return [s.outlineWidth, s.outlineStyle, s.outlineColor, s.color]; }"
    bit(page, "exponent bit 4").focus()
    page.keyboard.press("Tab")
    width, line, color, _ = bit(page, "exponent bit 3").evaluate(style)
    assert (width, line) == ("2px", "solid")
    assert max(map(float, re.findall(r"[\d.]+", color)[:3])) < 80, f"dark in the light theme, not {color}"


def test_bits_presets_and_neighbours_answer_the_keyboard(lab: Lab, page: Page) -> None:
    field(page).focus()
    page.keyboard.press("Tab")  # the first preset
    page.keyboard.press("Space")
    expect(status(page)).to_have_text("0.1: exact in no format")
    enter(page, "1")
    panel(page).get_by_role("button", name="next up").press("Enter")
    expect(status(page)).to_contain_text("1.0009765625: exact in FP32, TF32 and FP16")
    expect(field(page)).to_have_value("1.0009765625")
    bit(page, "exponent bit 4").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(bit(page, "exponent bit 2")).to_be_focused()
    bit(page, "exponent bit 0").press("Space")
    expect(bit(page, "exponent bit 0")).to_have_attribute("title", "exponent bit 0, worth 1, is 0")
    expect(field(page)).to_have_value("0.50048828125")
    expect(bit(page, "exponent bit 0")).to_be_focused()


def test_another_format_has_other_bits(page: Page) -> None:
    for name, count in (("FP32", 32), ("E4M3", 8), ("FP16", 16)):
        menu(page).select_option(name)
        expect(panel(page).locator('button[title*=" bit"]')).to_have_count(count)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_text_is_readable(lab: Lab, page: Page, theme: str) -> None:
    lab.theme(page, dark=theme == "Dark")
    places = panel(page).locator(SAMPLE).all()
    ratios = contrasts({f"{n}: {text.inner_text()[:20]}": text for n, text in enumerate(places)})
    feedback = contrasts({text: page.get_by_text(text, exact=True) for text in FEEDBACK})
    lab.theme(page, dark=False)
    assert len(ratios) > 30
    assert {text: ratio for text, ratio in (ratios | feedback).items() if ratio < 4.5} == {}


@pytest.mark.parametrize("width", [1280, 900])
def test_nothing_is_clipped(lab: Lab, page: Page, width: int) -> None:
    lab.resize(page, width)
    for number in ("3e-5", "65520", "-1.2345678e-38"):
        enter(page, number)
        expect(status(page)).to_contain_text(f"{number}:")
        lab.ask(page)
        assert clipped(panel(page)) == []
        assert view(page).locator("td").evaluate_all(CUT) == [], f"a cell is too narrow: {number}"
        assert not view(page).locator("table").evaluate(SCROLLS), f"the table does not fit: {number}"


def test_a_key_press_changes_the_table(page: Page) -> None:
    bit(page, "mantissa bit 10").focus()
    for _ in range(5):
        press(page, view(page), "Space")


def test_the_stored_lesson_shows_the_table(lesson: LessonPage) -> None:
    assert START in lesson.stored.text
    assert sum("32 bits" in row for row in lesson.stored.rows) == 1
