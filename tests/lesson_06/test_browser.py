"""Lesson 06 in a real browser: it runs, and the live race can be started, paused, stopped and started again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.page_checks import clipped
from labdriver import Lab
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser
LESSON = "06_train_mixed.ipynb"


@pytest.fixture(scope="session")
def after_run(running: Lab, notebooks_copy: Path) -> Iterator[tuple[Page, list[str]]]:
    """The lesson after Run All, and the errors that came with it. Run once for all tests."""
    running.errors.clear()
    page = running.open(LESSON, width=1280)
    running.run_all(page, timeout_s=240)
    yield page, list(running.errors)
    page.close()


def panel(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_role("button", name="Start", exact=True)).first


def source(page: Page) -> str:
    return panel(page).locator("img").get_attribute("src") or ""


def test_run_all_without_an_error(after_run: tuple[Page, list[str]]) -> None:
    assert after_run[1] == []


def test_the_first_picture_makes_the_point(after_run: tuple[Page, list[str]]) -> None:
    expect(panel(after_run[0]).get_by_role("status").first).to_contain_text("stuck: FP16, no scaling")


def test_start_pause_stop_and_start_again(lab: Lab, after_run: tuple[Page, list[str]]) -> None:
    page = after_run[0]
    here, before = panel(page), source(page)
    for _ in range(2):
        here.get_by_role("button", name="Start", exact=True).click()
        expect(here.locator("img")).not_to_have_attribute("src", before)
        before = source(page)
        expect(here.locator("img")).not_to_have_attribute("src", before)  # it goes on by itself
        here.get_by_role("button", name="Pause", exact=True).click()  # answered while training
        page.wait_for_timeout(700)
        before = source(page)
        page.wait_for_timeout(1000)
        assert source(page) == before
        here.get_by_role("button", name="Stop", exact=True).click()
        page.wait_for_timeout(500)
        before = source(page)
    assert lab.errors == []


def test_another_cell_runs_during_a_race_and_the_race_goes_on(lab: Lab, after_run: tuple[Page, list[str]]) -> None:
    page = after_run[0]
    here = panel(page)
    here.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_timeout(500)
    cell = page.locator(".jp-CodeCell", has=page.get_by_text("print(race)", exact=True)).first
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    expect(cell.locator(".jp-OutputArea")).to_contain_text("tiny loss: under way", timeout=20_000)
    before = source(page)
    expect(here.locator("img")).not_to_have_attribute("src", before)
    here.get_by_role("button", name="Stop", exact=True).click()
    expect(here.get_by_role("status").first).to_contain_text("stopped")
    assert lab.errors == []


def test_a_race_comes_to_its_end(lab: Lab, after_run: tuple[Page, list[str]]) -> None:
    page = after_run[0]
    panel(page).get_by_role("button", name="Start", exact=True).click()
    expect(panel(page).get_by_text(re.compile("stuck")).first).to_be_visible(timeout=90_000)
    assert lab.errors == []


@pytest.mark.parametrize("width", [1280, 1000])
def test_nothing_is_clipped(after_run: tuple[Page, list[str]], width: int) -> None:
    page = after_run[0]
    page.set_viewport_size({"width": width, "height": 1000})
    page.wait_for_timeout(500)
    assert clipped(panel(page)) == []
