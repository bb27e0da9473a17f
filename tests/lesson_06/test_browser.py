"""Lesson 06 in a real browser: it runs, and the live race can be started, paused, stopped and started again."""

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
from harness.page_checks import clipped
from labdriver import Lab
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser
LESSON = "06_train_mixed.ipynb"


def panel(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_role("button", name="Start", exact=True)).first


def source(page: Page) -> str:
    return panel(page).locator("img").get_attribute("src") or ""


def test_the_first_picture_makes_the_point(page: Page) -> None:
    expect(panel(page).get_by_role("status").first).to_contain_text("stuck: FP16 without scaling")


def test_start_pause_stop_and_start_again(lab: Lab, page: Page) -> None:
    here, before = panel(page), source(page)
    for _ in range(2):
        here.get_by_role("button", name="Start", exact=True).click()
        expect(here.locator("img")).not_to_have_attribute("src", before)
        before = source(page)
        expect(here.locator("img")).not_to_have_attribute("src", before)  # it goes on by itself
        here.get_by_role("button", name="Pause", exact=True).click()  # answered while training
        expect(here.get_by_role("button", name="Resume", exact=True)).to_be_enabled()
        step, before = lab.ask(page, "race.race.step"), source(page)
        for _ in range(10):  # each gives the kernel's loop turns, in which a race that goes on takes its steps
            assert lab.ask(page, "race.race.step") == step
        assert source(page) == before
        here.get_by_role("button", name="Stop", exact=True).click()
        assert lab.ask(page, "race.runner.state") == "'stopped'"
        before = source(page)


def test_another_cell_runs_during_a_race_and_the_race_goes_on(page: Page) -> None:
    here, before = panel(page), source(page)
    here.get_by_role("button", name="Start", exact=True).click()
    expect(here.locator("img")).not_to_have_attribute("src", before)
    cell = page.locator(".jp-CodeCell", has=page.get_by_text("print(race)", exact=True)).first
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    expect(cell.locator(".jp-OutputArea")).to_contain_text("tiny loss: under way")
    before = source(page)
    expect(here.locator("img")).not_to_have_attribute("src", before)
    here.get_by_role("button", name="Stop", exact=True).click()
    expect(here.get_by_role("status").first).to_contain_text("stopped")


def choose(lab: Lab, page: Page, others: dict[str, Locator], there: bool) -> None:
    """Press these buttons, and wait until the kernel has heard: a press of Start may overtake a change."""
    for name, button in others.items():
        button.click()
        assert any((repr(name) in lab.ask(page, "race.competitors")) == there for _ in range(100)), name


def test_a_race_comes_to_its_end(lab: Lab, page: Page) -> None:
    names = ("FP16, dynamic", "BF16")
    others = {name: panel(page).get_by_role("button", name=name, exact=True) for name in names}
    choose(lab, page, others, there=False)  # two racers take half the time of four
    panel(page).get_by_role("button", name="Start", exact=True).click()
    expect(panel(page).get_by_text(re.compile("stuck")).first).to_be_visible()
    choose(lab, page, others, there=True)


@pytest.mark.parametrize("width", [1280, 1000])
def test_nothing_is_clipped(lab: Lab, page: Page, width: int) -> None:
    lab.resize(page, width)
    assert clipped(panel(page)) == []
