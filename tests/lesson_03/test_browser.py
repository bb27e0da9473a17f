"""Lesson 03 in a real browser: it runs, its panel answers the keyboard at once, and everybody can read it."""

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
LESSON = "03_keep_master_weights.ipynb"
FEEDBACK = ("○ Exercise 03.1", "✗ Exercise 03.2", "○ Exercise 03.3", "○ Exercise 03.4")
FIRST = "BF16, weight 0.0752, nearest: The update is 0.25 of a spacing: it vanishes, every time."


@pytest.fixture
def page(page: Page) -> Page:
    """The lesson, with the panel at the start: the first button's setting, nearest, 1280 pixels."""
    button(page, "Adam's step").click()
    button(page, "nearest").click()
    expect(status(page)).to_contain_text(FIRST)
    slider(page).focus()
    return page


def panel(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_text("keeper", exact=True)).first


def slider(page: Page) -> Locator:
    """The handle of the update's size."""
    return panel(page).locator(".noUi-handle").first


def button(page: Page, name: str) -> Locator:
    return panel(page).get_by_role("button", name=name, exact=True)


def weight(page: Page) -> Locator:
    return panel(page).locator("input[type=text]").first


def status(page: Page) -> Locator:
    return panel(page).get_by_role("status").first


def picture(page: Page) -> Locator:
    return panel(page).locator("img")


def test_the_slider_answers_arrow_keys(lab: Lab, page: Page) -> None:
    sources = [picture(page).get_attribute("src")]
    for share in ("0.312", "0.375", "0.438", "exactly half"):
        page.keyboard.press("ArrowRight")
        expect(status(page)).to_contain_text(f"The update is {share}")
        sources.append(picture(page).get_attribute("src"))
    assert len(set(sources)) == 5
    page.keyboard.press("ArrowRight")
    expect(status(page)).to_contain_text("0.625 of a spacing: it arrives as 1 spacing")


def test_tab_leads_from_the_slider_through_all_controls(lab: Lab, page: Page) -> None:
    page.keyboard.press("Tab")  # the number beside the slider
    for name in ("Adam's step", "a small weight", "2048 : 1 in FP16"):
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.innerText") == name
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("FP16, weight 1, nearest: The update is exactly half a spacing: a tie")
    page.keyboard.press("Tab")
    expect(weight(page)).to_be_focused()
    for name in ("BF16", "FP16", "E5M2", "E4M3", "nearest", "stochastic", "Kahan", "FP32 master"):
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.innerText") == name
        if name in ("E5M2", "Kahan"):
            page.keyboard.press("Space")
    expect(status(page)).to_contain_text("E5M2, weight 1, Kahan: ")


def test_a_weight_is_typed_and_a_wrong_one_gets_a_friendly_line(lab: Lab, page: Page) -> None:
    source = picture(page).get_attribute("src")
    weight(page).fill("2^-3")
    weight(page).press("Enter")
    expect(status(page)).to_contain_text("BF16, weight 0.125, nearest")
    expect(picture(page)).not_to_have_attribute("src", str(source))
    source = picture(page).get_attribute("src")
    weight(page).fill("heavy")
    weight(page).press("Enter")
    expect(panel(page).get_by_text("is not a number that can be read")).to_be_visible()
    assert picture(page).get_attribute("src") == source
    weight(page).fill("0.075")
    weight(page).press("Enter")
    expect(panel(page).get_by_text("is not a number that can be read")).to_have_count(0)
    expect(status(page)).to_contain_text(FIRST)


def test_the_picture_says_its_finding(page: Page) -> None:
    finding = "The update is 0.25 of a spacing: it vanishes, every time"
    expect(panel(page).get_by_role("img", name=finding)).to_be_visible()
    button(page, "FP32 master").click()
    expect(panel(page).get_by_role("img", name=re.compile("the copy waits, the FP32 master moves"))).to_be_visible()


def test_exercises_have_feedback_and_folded_help(page: Page) -> None:
    for text in FEEDBACK:
        expect(page.locator(".jp-OutputArea-output").get_by_text(text, exact=True)).to_be_visible()
    for help_ in ("Hint 1", "Hint 2", "Hint 3", "Solution"):
        expect(page.locator(".jp-RenderedMarkdown summary").get_by_text(help_, exact=True)).to_have_count(4)
    assert page.locator("details[open]").count() == 0


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_text_is_readable(lab: Lab, page: Page, theme: str) -> None:
    lab.theme(page, dark=theme == "Dark")
    feedback = [page.get_by_text(text, exact=True) for text in FEEDBACK]
    labels = panel(page).locator("label:visible, button, .widget-readout").all()
    found = contrasts({text.inner_text(): text for text in (status(page), *feedback, *labels)})
    lab.theme(page, dark=False)
    assert len(found) >= 8
    assert {text: ratio for text, ratio in found.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("width", [1280, 900])
def test_nothing_is_clipped(lab: Lab, page: Page, width: int) -> None:
    lab.resize(page, width)
    page.keyboard.press("End")  # the longest label beside the slider
    assert clipped(panel(page)) == []
    assert picture(page).evaluate("img => img.getBoundingClientRect().width") > width / 2


def test_a_key_press_changes_the_picture(page: Page) -> None:
    for _ in range(5):
        press(page, picture(page), "ArrowRight")
