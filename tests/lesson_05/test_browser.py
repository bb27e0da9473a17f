"""Lesson 05 in a real browser: it runs, the race answers the keyboard, and everybody can read it."""

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
LESSON = "05_adapt_the_scale.ipynb"


@pytest.fixture
def page(page: Page) -> Page:
    """The lesson, with every slider at the start."""
    for number in (0, 1, 2):
        panel(page).locator(".noUi-handle").nth(number).focus()
        page.keyboard.press("Home")
    return page


def panel(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_text("gradients of", exact=True))


def status(page: Page) -> Locator:
    return panel(page).get_by_role("status").first


def picture(page: Page) -> Locator:
    return panel(page).locator("img")


def test_the_sliders_answer_arrow_keys(lab: Lab, page: Page) -> None:
    expect(status(page)).to_contain_text("torch, megatron and LogMax end in the window")
    first = picture(page).get_attribute("src")
    panel(page).locator(".noUi-handle").nth(1).focus()
    page.keyboard.press("ArrowRight")  # grow after every step
    expect(status(page)).to_contain_text(re.compile(r"megatron loses most, 6\d\d steps"))
    assert picture(page).get_attribute("src") != first


def test_rules_and_gradients_are_chosen_by_keyboard(lab: Lab, page: Page) -> None:
    button = panel(page).get_by_role("button", name="popart")
    expect(button).to_be_hidden()
    more = panel(page).get_by_role("button", name="more")
    more.focus()
    page.keyboard.press("Space")
    expect(button).to_be_visible()
    button.focus()
    page.keyboard.press("Space")
    expect(status(page)).to_contain_text("popart takes 9 steps with Inf")
    panel(page).get_by_role("button", name="falling loss").click()
    expect(status(page)).to_contain_text("popart ends in the window, 4 rules below it")
    panel(page).get_by_role("button", name="bad start").click()
    button.click()
    expect(status(page)).to_contain_text("megatron loses")
    panel(page).get_by_role("button", name="less").click()
    expect(more).to_be_visible()
    expect(button).to_be_hidden()


def test_rules_train_live_and_a_control_returns_to_the_recording(lab: Lab, page: Page) -> None:
    here = panel(page)
    here.get_by_role("button", name="made up: drifts").click()
    here.get_by_role("button", name="Train live").click()
    expect(here.get_by_text("No network made these gradients")).to_be_visible()
    here.get_by_role("button", name="bad start").click()
    here.get_by_role("button", name="Train live").click()
    here.get_by_role("button", name="Pause").click()  # at once: on a slow machine the training may be over soon
    expect(here.get_by_role("button", name="Resume")).to_be_visible()
    expect(status(page)).to_contain_text(re.compile(r"Step \d+ of 420"))
    here.get_by_role("button", name="Stop").click()
    expect(status(page)).to_contain_text("Stopped after")
    assert clipped(here) == []
    here.get_by_role("button", name="made up: drifts").click()
    expect(status(page)).to_contain_text("megatron ends in the window")


def test_the_sweep_answers(lab: Lab, page: Page) -> None:
    sweep = page.locator(".jp-OutputArea-output", has=page.get_by_text("recorded", exact=True))
    words = sweep.get_by_role("status").first
    expect(words).to_contain_text("autoencoder: 14 of 30 settings do well")
    sweep.get_by_role("button", name="bad start").click()
    expect(words).to_contain_text("bad start: 7 of 30 settings do well")
    expect(words).to_contain_text("0 to 100")
    sweep.locator(".noUi-handle").nth(0).focus()
    page.keyboard.press("ArrowRight")
    expect(words).not_to_contain_text("0 to 100")
    assert clipped(sweep) == []
    sweep.get_by_role("button", name="autoencoder").click()
    page.keyboard.press("Home")


def test_a_key_press_changes_the_picture(page: Page) -> None:
    panel(page).locator(".noUi-handle").nth(0).focus()
    for key in ("ArrowRight", "ArrowLeft") * 2:
        press(page, picture(page), key)


@pytest.mark.parametrize("width", [1280, 1000])
def test_nothing_is_clipped(lab: Lab, page: Page, width: int) -> None:
    lab.resize(page, width)
    assert clipped(panel(page)) == []


def test_words_can_be_read(page: Page) -> None:
    labels = panel(page).locator("label, button").all()
    found = contrasts({text.inner_text(): text for text in (status(page), *labels)})
    assert min(found.values()) >= 4.5, found
