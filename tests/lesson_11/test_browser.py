"""Lesson 11 in a real browser: it runs, the rank simulator answers by mouse and by keyboard, and nothing is clipped."""

from __future__ import annotations

import pytest
from harness.lesson_page import (  # noqa: F401
    test_a_saved_lesson_comes_back_whole,
    test_every_control_has_a_name_and_axe_finds_nothing_serious,
    test_no_panel_is_cut_at_any_width,
    test_run_all_without_an_error,
    test_the_stored_lesson_shows_pictures,
)
from harness.page_checks import clipped
from labdriver import Lab
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser
LESSON = "11_scale_out.ipynb"


def simulator(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_text("how they agree", exact=True)).first


def test_one_switch_mends_the_drift(page: Page) -> None:
    here = simulator(page)
    words = here.get_by_role("status").first
    press = lambda name: here.get_by_role("button", name=name, exact=True).click()  # noqa: E731
    expect(words).to_contain_text("Tested before the sum: rank 1 alone skips 2 steps, and the 4 ranks' weights drift")
    press("through the data")
    expect(words).to_contain_text("all 4 ranks skip the same 2 steps, and their weights stay equal")
    press("after the sum")
    expect(words).to_contain_text("Through the data: rank 1 alone skips 2 steps")
    press("MAX of the flag")
    expect(words).to_contain_text("MAX of the flag: all 4 ranks skip the same 2 steps, and their weights stay equal")


def test_ranks_come_by_keyboard(page: Page) -> None:
    here = simulator(page)
    handle = here.locator(".noUi-handle").first
    handle.focus()
    page.keyboard.press("End")
    expect(here.get_by_role("status").first).to_contain_text("8 ranks")
    page.keyboard.press("Home")
    expect(here.get_by_role("status").first).to_contain_text("both ranks")


def test_it_fits_a_laptop(page: Page) -> None:
    box = simulator(page).bounding_box()
    assert box is not None
    assert box["height"] <= 640, "1280 x 800, without the browser's own bars"
    picture = simulator(page).locator("img").first.bounding_box()
    assert picture is not None
    assert picture["y"] - box["y"] <= 118, "the controls leave room for the picture"


@pytest.mark.parametrize("width", [1280, 1000])
def test_nothing_is_clipped(lab: Lab, page: Page, width: int) -> None:
    lab.resize(page, width)
    assert clipped(simulator(page)) == []
