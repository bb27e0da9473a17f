"""Lesson 08 in a real browser: it runs, the attention panel answers, and nothing is clipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.page_checks import clipped
from labdriver import Lab
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser
LESSON = "08_train_a_transformer.ipynb"


@pytest.fixture(scope="session")
def after_run(running: Lab, notebooks_copy: Path) -> Iterator[tuple[Page, list[str]]]:
    """The lesson after Run All, and the errors that came with it. Run once for all tests."""
    running.errors.clear()
    page = running.open(LESSON, width=1280)
    running.run_all(page, timeout_s=420)
    yield page, list(running.errors)
    page.close()


def panel(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_text("head size d", exact=True)).first


def test_run_all_without_an_error(after_run: tuple[Page, list[str]]) -> None:
    assert after_run[1] == []


def test_the_attention_panel_answers(lab: Lab, after_run: tuple[Page, list[str]]) -> None:
    here = panel(after_run[0])
    words = here.get_by_role("status").first
    expect(words).to_contain_text("FP16: scores overflow, and 9 of 32 queries are lost")
    here.get_by_role("button", name="before", exact=True).click()
    expect(words).to_contain_text("FP16: no query is lost")
    here.get_by_role("button", name="in 16 bits", exact=True).click()
    here.locator(".noUi-handle").nth(1).focus()
    after_run[0].keyboard.press("Home")
    expect(words).to_contain_text("FP16: weights add up to 1.2")
    here.locator(".noUi-handle").nth(0).focus()
    after_run[0].keyboard.press("End")
    expect(words).to_contain_text("BF16: weights add up to")
    assert lab.errors == []


@pytest.mark.parametrize("width", [1280, 1000])
def test_nothing_is_clipped(after_run: tuple[Page, list[str]], width: int) -> None:
    page = after_run[0]
    page.set_viewport_size({"width": width, "height": 1000})
    page.wait_for_timeout(500)
    assert clipped(panel(page)) == []
