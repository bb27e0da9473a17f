"""Lesson 08 in a real browser: it runs, the attention panel answers, and nothing is clipped."""

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
LESSON = "08_train_a_transformer.ipynb"


def panel(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_text("head size d", exact=True)).first


def test_the_attention_panel_answers(page: Page) -> None:
    here = panel(page)
    words = here.get_by_role("status").first
    expect(words).to_contain_text("FP16: scores overflow, and 9 of 32 queries are lost")
    here.get_by_role("button", name="before", exact=True).click()
    expect(words).to_contain_text("FP16: no query is lost")
    here.get_by_role("button", name="in 16 bits", exact=True).click()
    here.locator(".noUi-handle").nth(1).focus()
    page.keyboard.press("Home")
    expect(words).to_contain_text("FP16: weights add up to 1.2")
    here.locator(".noUi-handle").nth(0).focus()
    page.keyboard.press("End")
    expect(words).to_contain_text("BF16: weights add up to")


@pytest.mark.parametrize("width", [1280, 1000])
def test_nothing_is_clipped(lab: Lab, page: Page, width: int) -> None:
    lab.resize(page, width)
    assert clipped(panel(page)) == []
