"""Lesson 07 in a real browser: it runs, both panels answer, and nothing is clipped."""

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
LESSON = "07_measure_the_speedup.ipynb"


def panel(page: Page, label: str) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_text(label, exact=True)).first


def test_the_speed_lab_answers(page: Page) -> None:
    here = panel(page, "matrix size")
    words = here.get_by_role("status").first
    here.get_by_role("button", name="misaligned").click()
    expect(words).to_contain_text("4095 is no multiple of 8")
    here.locator(".noUi-handle").first.focus()
    page.keyboard.press("Home")
    expect(words).to_contain_text("too small to keep the GPU busy")
    here.get_by_role("button", name="launch-bound").click()
    expect(words).to_contain_text(
        re.compile(r"Launch-bound: torch\.amp takes 1\.\d \(MLP\) and 1\.\d \(transformer\) times as long")
    )
    here.get_by_role("button", name="sync every step").click()
    expect(words).to_contain_text("A wait in every step costs neither model more than its times swing")
    here.get_by_role("button", name="too small").click()
    expect(words).to_contain_text("64 x 64")


def test_the_memory_ledger_answers(page: Page) -> None:
    here = panel(page, "parameters")
    words = here.get_by_role("status").first
    expect(words).to_contain_text("Autocast keeps 49% less than FP32")
    here.get_by_role("button", name="Adam", exact=True).click()
    here.locator(".noUi-handle").nth(0).focus()
    page.keyboard.press("End")
    expect(words).to_contain_text("175 B, GPT-3, Adam")


@pytest.mark.parametrize("width", [1280, 1000])
def test_nothing_is_clipped(lab: Lab, page: Page, width: int) -> None:
    lab.resize(page, width)
    assert clipped(panel(page, "matrix size")) == []
    assert clipped(panel(page, "parameters")) == []
