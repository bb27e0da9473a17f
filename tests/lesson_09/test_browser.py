"""Lesson 09 in a real browser: it runs, both panels answer, and nothing is clipped."""

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
LESSON = "09_go_below_16_bits.ipynb"
LABELS = ["one scale for", "planted jump"]


def panel(page: Page, label: str) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_text(label, exact=True)).first


def test_the_granularity_panel_answers(page: Page) -> None:
    here = panel(page, "one scale for")
    words = here.get_by_role("status").first
    expect(words).to_contain_text("INT8, one scale for all: beside the outlier weights are off by 100%")
    here.get_by_role("button", name="a column", exact=True).click()
    expect(words).to_contain_text("INT8, one scale a column: beside the outlier weights are off by 0.")
    here.get_by_role("button", name="layer-norm gains collapse", exact=True).click()
    expect(words).to_contain_text("gains of 1 ± 0.02 become")


def test_the_delayed_race_answers(page: Page) -> None:
    here = panel(page, "planted jump")
    words = here.get_by_role("status").first
    expect(words).to_contain_text("for 1 step")
    here.get_by_role("button", name="none", exact=True).click()
    expect(words).not_to_contain_text("up clips")


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("width", [1280, 1000])
def test_nothing_is_clipped(lab: Lab, page: Page, width: int, label: str) -> None:
    lab.resize(page, width)
    assert clipped(panel(page, label)) == []
