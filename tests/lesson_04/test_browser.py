"""Lesson 04 in a real browser: it runs, its panel answers the keyboard at once, and everybody can read it."""

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
LESSON = "04_scale_the_loss.ipynb"
FEEDBACK = ("○ Exercise 04.1", "✗ Exercise 04.2", "○ Exercise 04.3")


@pytest.fixture
def page(page: Page) -> Page:
    """The lesson, with the panel at the start: scale 2^0, light theme, 1280 pixels."""
    slider(page).focus()
    page.keyboard.press("Home")
    expect(status(page)).to_contain_text("38% flushed to zero")
    return page


def panel(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_text("log2 loss scale", exact=True))


def slider(page: Page) -> Locator:
    """The handle of the loss scale."""
    return panel(page).locator(".noUi-handle").first


def status(page: Page) -> Locator:
    return panel(page).get_by_role("status").first


def picture(page: Page) -> Locator:
    return panel(page).locator("img")


def flushed(page: Page) -> int:
    found = re.search(r"(\d+)% flushed", status(page).inner_text())
    assert found
    return int(found.group(1))


def test_the_slider_answers_arrow_keys(lab: Lab, page: Page) -> None:
    seen = [(flushed(page), picture(page).get_attribute("src"))]
    for power in "¹²³":
        page.keyboard.press("ArrowRight")
        expect(status(page)).to_contain_text(f"Loss scale 2{power},")
        seen.append((flushed(page), picture(page).get_attribute("src")))
    shares = [share for share, _ in seen]
    assert shares[0] == 38
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 4
    assert len({source for _, source in seen}) == 4
    page.keyboard.press("End")
    expect(status(page)).to_contain_text(re.compile(r"[1-9]\d*% overflowed\. .*Inf"))


def test_the_buttons_answer_the_keyboard(lab: Lab, page: Page) -> None:
    names = panel(page).locator("button.widget-button").all_inner_texts()  # such as "no scaling: 2⁰"
    assert len(names) == 3
    page.keyboard.press("End")
    page.keyboard.press("Tab")  # the number beside the slider, which can be edited
    for name, key in zip(names, ("Enter", "Space", "Enter"), strict=True):
        page.keyboard.press("Tab")
        page.keyboard.press(key)
        expect(status(page)).to_contain_text(f"Loss scale {name.split()[-1]},")


def test_tab_reaches_the_slider_from_the_text_above_it(page: Page) -> None:
    page.evaluate(
        "() => { const book = jupyterapp.shell.currentWidget.content; book.mode = 'command';"
        " const above = book.widgets.findIndex(cell => cell.node.innerText.includes('Now move the slider'));"
        " book.activeCellIndex = above; book.widgets[above].node.focus(); }"
    )
    for _ in range(3):  # buttons of the cell's own toolbar may come first
        page.keyboard.press("Tab")
        if slider(page).evaluate("handle => handle === document.activeElement"):
            break
    expect(slider(page)).to_be_focused()


def test_the_picture_says_its_finding(page: Page) -> None:
    finding = "At loss scale 2⁰, 38% of all gradients vanish in FP16"
    expect(panel(page).get_by_role("img", name=finding)).to_be_visible()
    page.keyboard.press("End")
    expect(panel(page).get_by_role("img", name=re.compile("2³⁶.*overflow in FP16"))).to_be_visible()


def test_exercises_have_a_card_feedback_and_folded_help(page: Page) -> None:
    for title, card in (("04.1", "Code"), ("04.2", "Debug"), ("04.3", "Explain")):
        expect(page.get_by_role("heading", name=re.compile(f"Exercise {title}"))).to_have_count(1)
        line = page.locator(".jp-RenderedMarkdown").get_by_text(re.compile(f"^{card} · difficulty .* minutes$"))
        expect(line).to_be_visible()
    for text in FEEDBACK:
        expect(page.locator(".jp-OutputArea-output").get_by_text(text, exact=True)).to_be_visible()
    for help_ in ("Hint 1", "Hint 2", "Hint 3", "Solution"):
        expect(page.locator(".jp-RenderedMarkdown summary").get_by_text(help_, exact=True)).to_have_count(3)
    assert page.locator("details[open]").count() == 0


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_text_is_readable(lab: Lab, page: Page, theme: str) -> None:
    lab.theme(page, dark=theme == "Dark")
    feedback = [page.get_by_text(text, exact=True) for text in FEEDBACK]
    labels = panel(page).locator("label:visible, button, .widget-readout").all()
    found = contrasts({text.inner_text(): text for text in (status(page), *feedback, *labels)})
    lab.theme(page, dark=False)
    print(theme, {text[:20]: round(ratio, 1) for text, ratio in found.items()})
    assert len(found) >= 8
    assert {text: ratio for text, ratio in found.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("width", [1280, 900])
def test_nothing_is_clipped(lab: Lab, page: Page, width: int) -> None:
    lab.resize(page, width)
    assert clipped(panel(page)) == []
    assert picture(page).evaluate("img => img.getBoundingClientRect().width") > width / 2


def test_a_key_press_changes_the_picture(page: Page) -> None:
    for _ in range(5):
        press(page, picture(page), "ArrowRight")


# ---- by keyboard alone ----


def cell_with(page: Page, source: str) -> Locator:
    return page.locator(".jp-Cell", has=page.locator(".jp-InputArea", has_text=source))


def focus(page: Page) -> str:
    """What has the focus: the cell, or the tag inside of it."""
    return str(
        page.evaluate("() => document.activeElement.matches('.jp-Cell') ? 'cell' : document.activeElement.tagName")
    )


def test_a_prediction_is_reached_answered_and_left_by_keyboard_as_lesson_00_says(lab: Lab, page: Page) -> None:
    """Ctrl + Enter, Tab to the field; back with Shift + Tab twice, and on with the down arrow."""
    number, options = cell_with(page, 'predict("04.flushed"'), cell_with(page, 'predict("04.window"')
    number.focus()
    page.keyboard.press("Control+Enter")
    lab.ask(page)
    expect(number.locator("input")).to_be_visible()
    for key in ("Tab", "Tab"):  # a button of JupyterLab's, then the field
        page.keyboard.press(key)
    assert focus(page) == "INPUT"
    page.keyboard.type("30")
    page.keyboard.press("Enter")
    expect(number).to_contain_text("Noted: 30 %")
    for key in ("Shift+Tab", "Shift+Tab"):
        page.keyboard.press(key)
    assert focus(page) == "cell"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Control+Enter")
    lab.ask(page)
    expect(options.locator("input").first).to_be_visible()
    for key in ("Tab", "Tab", "Tab", "Space"):  # the second option
        page.keyboard.press(key)
    expect(options).to_contain_text("Noted: about 10 times")
    page.keyboard.press("ArrowDown")
    assert focus(page) == "cell"
