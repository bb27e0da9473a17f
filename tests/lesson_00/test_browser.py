"""Lesson 00 in a real browser: it runs, the first picture answers the keyboard, and everybody can read it."""

from __future__ import annotations

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
LESSON = "00_start_here.ipynb"


def panel(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.locator(".noUi-handle"))


def view(page: Page) -> Locator:
    return panel(page).locator(".widget-html-content", has=page.locator("table"))


def test_a_key_press_changes_the_table(page: Page) -> None:
    panel(page).locator(".noUi-handle").focus()
    press(page, view(page), "ArrowRight")
    press(page, view(page), "ArrowRight")
    expect(view(page)).to_contain_text("is exactly 1 in FP16, BF16")
    press(page, view(page), "ArrowLeft")
    press(page, view(page), "ArrowLeft")
    expect(view(page)).to_contain_text("1 + 2⁻⁹ is exactly 1 in BF16")


@pytest.mark.parametrize("width", [1280, 1000])
def test_nothing_is_clipped(lab: Lab, page: Page, width: int) -> None:
    lab.resize(page, width)
    assert clipped(panel(page)) == []


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_text_is_readable(lab: Lab, page: Page, theme: str) -> None:
    lab.theme(page, dark=theme == "Dark")
    shown = panel(page).locator("label:visible, .widget-readout, table :is(th, td)").all()
    found = contrasts({text.inner_text(): text for text in shown})
    lab.theme(page, dark=False)
    assert len(found) >= 8
    assert {text: ratio for text, ratio in found.items() if ratio < 4.5} == {}
