"""Lesson 02 in a real browser: it runs, both panels answer the keyboard at once, and everybody can read them."""

from __future__ import annotations

import re

import pytest
from harness.lesson_page import (  # noqa: F401
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
LESSON = "02_round_and_lose.ipynb"


def explorer(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_text("too large →", exact=True))


def sums(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_text("additions", exact=True))


def status(panel: Locator) -> Locator:
    return panel.locator("[role=status][aria-live]").first  # not the message about what was typed


def push(page: Page, panel: Locator, name: str, key: str = "Enter") -> None:
    """Focus the button of that name and press a key."""
    panel.get_by_role("button", name=name, exact=True).focus()
    page.keyboard.press(key)


def test_the_explorer_answers_the_keyboard(lab: Lab, page: Page) -> None:
    panel = explorer(page)
    expect(panel.get_by_role("img", name="FP16 turns 24% of these values into 0 and 6.9% into Inf")).to_be_visible()
    push(page, panel, "FP16")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(status(panel)).to_contain_text("cast to BF16")
    expect(panel.get_by_role("img", name=re.compile("^BF16 keeps these values"))).to_be_visible()
    for name, words in (("zero", "rounding zero"), ("largest value", "cut to"), ("Inf", "become Inf")):
        push(page, panel, name)
        expect(status(panel)).to_contain_text(words)
    panel.locator("select").focus()
    for key in ("Enter", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    expect(status(panel)).to_contain_text("one in 100 is 2¹⁶ times larger")
    for key in ("Enter", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    push(page, panel, "nearest")
    push(page, panel, "FP16")
    expect(panel.get_by_role("img", name="FP16 turns 24% of these values into 0 and 6.9% into Inf")).to_be_visible()


def test_the_sum_answers_the_keyboard(lab: Lab, page: Page) -> None:
    panel = sums(page)
    panel.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowLeft")
    expect(panel.get_by_role("img", name="FP16 ends at 2,048, the true total")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(panel.get_by_role("img", name=re.compile("^FP16 stops at 2,048"))).to_be_visible()
    push(page, panel, "BF16", "Space")
    expect(status(panel)).to_contain_text("BF16, one by one: 256 instead of 4,096")
    push(page, panel, "one by one with Kahan")
    expect(status(panel)).to_contain_text("BF16, one by one with Kahan: 4,096 instead of 4,096")
    push(page, panel, "one by one")
    push(page, panel, "FP16")
    expect(status(panel)).to_contain_text("4,096 times 1 in FP16, one by one: 2,048")


def test_a_typed_term_is_used_and_a_wrong_one_is_told_kindly(lab: Lab, page: Page) -> None:
    panel = sums(page)
    field = panel.locator("input[list], input[type=text]").first
    for typed, told in (("abc", "abc is not a number that can be read"), ("1e9", "1e9 cannot be drawn")):
        field.fill(typed)
        page.keyboard.press("Enter")
        expect(panel.get_by_text(told)).to_be_visible()
        expect(status(panel)).to_contain_text("4,096 times 1 in FP16")
    field.fill("2^-4")
    page.keyboard.press("Enter")
    expect(status(panel)).to_contain_text("4,096 times 2^-4 in FP16, one by one: 128 instead of 256")
    expect(panel.get_by_text("cannot be drawn")).to_have_count(0)
    field.fill("1")
    page.keyboard.press("Enter")
    expect(status(panel)).to_contain_text("4,096 times 1 in FP16")


def test_exercises_have_their_feedback_and_help_is_folded(page: Page) -> None:
    for text in ("✗ Exercise 02.1", "✗ Exercise 02.2", "○ Exercise 02.3"):
        expect(page.locator(".jp-OutputArea-output").get_by_text(text, exact=True)).to_be_visible()
    expect(page.locator(".jp-RenderedMarkdown summary").get_by_text("Solution", exact=True)).to_have_count(3)
    assert page.locator("details[open]").count() == 0


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_text_is_readable(lab: Lab, page: Page, theme: str) -> None:
    lab.theme(page, dark=theme == "Dark")
    shown: dict[str, Locator] = {"table": page.get_by_text("Inf from 11.09", exact=True).first}
    for panel in (explorer(page), sums(page)):
        shown[status(panel).inner_text()] = status(panel)
        shown |= {label.inner_text(): label for label in panel.locator("label:visible, button, .widget-readout").all()}
    found = contrasts(shown)
    lab.theme(page, dark=False)
    assert len(found) >= 10
    assert {text: ratio for text, ratio in found.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("width", [1280, 900])
def test_nothing_is_clipped(lab: Lab, page: Page, width: int) -> None:
    lab.resize(page, width)
    for panel in (explorer(page), sums(page)):
        assert clipped(panel) == []
        assert panel.locator("img").evaluate("img => img.getBoundingClientRect().width") > width / 2


def test_key_presses_change_the_pictures(page: Page) -> None:
    panel = explorer(page)
    for name in ("BF16", "FP16") * 2:
        panel.get_by_role("button", name=name, exact=True).focus()
        press(page, panel.locator("img"), "Enter")
    panel = sums(page)
    panel.locator(".noUi-handle").focus()
    for key in ("ArrowLeft", "ArrowRight") * 2:
        press(page, panel.locator("img"), key)
