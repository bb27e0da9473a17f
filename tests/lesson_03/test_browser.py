"""Lesson 03 in a real browser: it runs, its panel answers the keyboard at once, and everybody can read it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from harness.page_checks import PRESSES, clipped, contrasts, times_to_answer
from labdriver import Lab
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser
LESSON = "03_keep_master_weights.ipynb"
FEEDBACK = ("○ Exercise 03.1", "✗ Exercise 03.2", "○ Exercise 03.3")
FIRST = "BF16, weight 0.0752, nearest: The update is 0.25 of a spacing: it vanishes, every time."


@pytest.fixture(scope="session")
def after_run(running: Lab) -> Iterator[tuple[Page, list[str], bool]]:
    """The lesson after Run All, the errors that came with it, and whether pictures stood there before."""
    running.errors.clear()
    page = running.open(LESSON, width=1280)
    stored = page.locator(".jp-OutputArea-output img").count() == 2
    running.run_all(page, timeout_s=240)
    yield page, list(running.errors), stored
    page.close()


@pytest.fixture
def page(after_run: tuple[Page, list[str], bool]) -> Page:
    """The lesson, with the panel at the start: the first button's setting, nearest, 1280 pixels."""
    page = after_run[0]
    page.set_viewport_size({"width": 1280, "height": 1000})
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


def test_run_all_without_an_error(after_run: tuple[Page, list[str], bool]) -> None:
    assert after_run[1] == []
    assert after_run[2], "the stored lesson shows its two pictures before it is run"


def test_the_slider_answers_arrow_keys(lab: Lab, page: Page) -> None:
    sources = [picture(page).get_attribute("src")]
    for share in ("0.312", "0.375", "0.438", "exactly half"):
        page.keyboard.press("ArrowRight")
        expect(status(page)).to_contain_text(f"The update is {share}")
        sources.append(picture(page).get_attribute("src"))
    assert len(set(sources)) == 5
    page.keyboard.press("ArrowRight")
    expect(status(page)).to_contain_text("0.625 of a spacing: it arrives as 1 spacing")
    assert lab.errors == []


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
    assert lab.errors == []


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
    assert lab.errors == []


def test_the_picture_says_its_finding(page: Page) -> None:
    finding = "The update is 0.25 of a spacing: it vanishes, every time"
    expect(panel(page).get_by_role("img", name=finding)).to_be_visible()
    button(page, "FP32 master").click()
    expect(panel(page).get_by_role("img", name=re.compile("the copy waits, the FP32 master moves"))).to_be_visible()


def test_exercises_have_feedback_and_folded_help(page: Page) -> None:
    for text in FEEDBACK:
        expect(page.locator(".jp-OutputArea-output").get_by_text(text, exact=True)).to_be_visible()
    for help_ in ("Hint 1", "Hint 2", "Hint 3", "Solution"):
        expect(page.locator(".jp-RenderedMarkdown summary").get_by_text(help_, exact=True)).to_have_count(3)
    assert page.locator("details[open]").count() == 0


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_text_is_readable(lab: Lab, page: Page, theme: str) -> None:
    lab.command(page, "apputils:change-theme", theme=f"JupyterLab {theme}")
    page.wait_for_timeout(500)
    feedback = [page.get_by_text(text, exact=True) for text in FEEDBACK]
    labels = panel(page).locator("label:visible, button, .widget-readout").all()
    found = contrasts({text.inner_text(): text for text in (status(page), *feedback, *labels)})
    lab.command(page, "apputils:change-theme", theme="JupyterLab Light")
    assert len(found) >= 8
    assert {text: ratio for text, ratio in found.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("width", [1280, 900])
def test_nothing_is_clipped(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    page.wait_for_timeout(500)
    page.keyboard.press("End")  # the longest label beside the slider
    assert clipped(panel(page)) == []
    assert picture(page).evaluate("img => img.getBoundingClientRect().width") > width / 2


def test_a_key_press_changes_the_picture_at_once(page: Page) -> None:
    _, late = times_to_answer(page, picture(page), ["ArrowRight"] * PRESSES)
    assert late <= 400, "a quiet machine takes about 100 ms; this bar leaves room for a busy one"
