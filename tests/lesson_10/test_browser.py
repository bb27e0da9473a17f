"""Lesson 10 in a real browser: it runs, the clinic answers, and nothing is clipped."""

from __future__ import annotations

import pytest
from harness.lesson_page import (  # noqa: F401
    test_a_saved_lesson_comes_back_whole,
    test_every_control_has_a_name_and_axe_finds_nothing_serious,
    test_no_panel_is_cut_at_any_width,
    test_run_all_without_an_error,
    test_the_stored_lesson_shows_pictures,
)
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser
LESSON = "10_debug_the_nan.ipynb"


def clinic(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_text("patient", exact=True)).first


def test_a_patient_is_tested_diagnosed_and_cured(page: Page) -> None:
    here = clinic(page)
    words = here.get_by_role("status").last
    press = lambda name: here.get_by_role("button", name=name, exact=True).click()  # noqa: E731
    expect(words).to_contain_text("Patient 1: the loss falls from 9.16 to 0.355, and eval loss is NaN from step 12")
    press("look at the data · 1")
    expect(words).to_contain_text("The first batch of the run")
    press("healthy")
    expect(words).to_contain_text("Not healthy")
    press("poisoned state")
    expect(words).to_contain_text("Now pick the cure")
    expect(here.get_by_role("button", name="healthy", exact=True)).to_be_hidden()
    press("cure A")
    expect(words).to_contain_text("The curve does not heal")
    press("cure C")
    expect(words).to_contain_text("running_mean and running_var")
    press("begin again")
    expect(here.get_by_role("button", name="healthy", exact=True)).to_be_visible()


def test_another_patient_comes_by_keyboard(page: Page) -> None:
    here = clinic(page)
    menu = here.locator("select")
    menu.focus()
    menu.select_option(index=8)
    expect(here.get_by_role("status").last).to_contain_text("Patient 9: the loss is 6.2e-9 at every step")
    button = here.get_by_role("button", name="tally the gradients · 1", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    expect(here.get_by_role("status").last).to_contain_text("100% zero")
    menu.select_option(index=0)


def test_it_fits_a_laptop(page: Page) -> None:
    box = clinic(page).bounding_box()
    assert box is not None
    assert box["height"] <= 760, "1280 x 800, without the browser's own bars"
