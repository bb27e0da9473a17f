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
from labdriver import Lab
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser
LESSON = "10_debug_the_nan.ipynb"


ALL = ("run it again · 1", "in FP32 · 2", "smaller scale · 1", "look at the data · 1", "tally the gradients · 1",
       "trace · 4")  # fmt: skip
BOTTOM = 776  # of what JupyterLab shows of a notebook in a window of 1280 x 800


def clinic(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output", has=page.get_by_text("patient", exact=True)).first


def press(here: Locator, name: str) -> None:
    here.get_by_role("button", name=name, exact=True).click()


def choose(here: Locator, kind: str) -> None:
    """A diagnosis from the list, and name it."""
    options = [text.replace("\xa0", " ") for text in here.get_by_label("diagnosis").locator("option").all_inner_texts()]
    here.get_by_label("diagnosis").select_option(index=next(k for k, o in enumerate(options) if o.startswith(kind)))
    press(here, "name it")


def words_of(here: Locator) -> Locator:
    return here.get_by_role("status").last


def test_a_patient_is_tested_diagnosed_and_cured(page: Page) -> None:
    here = clinic(page)
    words = words_of(here)
    expect(words).to_contain_text("Patient 1: the loss falls from 9.16 to 0.355, and eval loss is NaN from step 12")
    press(here, "look at the data · 1")
    expect(words).to_contain_text("The first batch of the run")
    choose(here, "healthy")
    expect(words).to_contain_text("“healthy” does not fit: eval loss is NaN from step 12.")
    choose(here, "poisoned state")
    expect(words).to_contain_text("Now pick the cure")
    expect(here.get_by_role("button", name="name it", exact=True)).to_be_hidden()
    press(here, "cure A")
    expect(words).to_contain_text("The curve does not heal")
    press(here, "cure C")
    expect(words).to_contain_text("running_mean and running_var")
    press(here, "begin again")
    expect(here.get_by_role("button", name="name it", exact=True)).to_be_visible()


def test_another_patient_comes_by_keyboard(page: Page) -> None:
    here = clinic(page)
    menu = here.get_by_label("patient")
    menu.focus()
    menu.select_option(index=8)
    expect(words_of(here)).to_contain_text("Patient 9: the loss is 6.2e-9 at every step")
    button = here.get_by_role("button", name="tally the gradients · 1", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    expect(words_of(here)).to_contain_text("100% zero")
    menu.select_option(index=0)


@pytest.mark.parametrize(
    ("which", "kind", "cure"), [(1, "overflow", "C"), (16, "loss scale", "A"), (24, "healthy", "")]
)
def test_nothing_is_below_the_fold_in_any_state(page: Page, lab: Lab, which: int, kind: str, cure: str) -> None:
    here, seen = clinic(page), []

    def look(state: str) -> None:
        lab.ask(page)
        here.evaluate("e => e.scrollIntoView({block: 'start'})")
        hidden = words_of(here).evaluate("e => e.parentElement.scrollHeight - e.parentElement.clientHeight")
        box = here.bounding_box()
        assert box is not None
        seen.append((state, box["y"] + box["height"], hidden))

    here.get_by_label("patient").select_option(index=which - 1)
    look("comes in")
    for test in ALL:
        press(here, test)
        look(test)
    choose(here, "order")
    look("a wrong diagnosis")
    choose(here, kind)
    look("the right one")
    if cure:
        press(here, f"cure {'B' if cure != 'B' else 'A'}")
        look("a wrong cure")
        press(here, f"cure {cure}")
        look("cured")
    press(here, "show me")
    look("shown")
    here.get_by_text("What your tests said").click()
    expect(here.get_by_text("From the same state the loss is")).to_be_visible()
    assert not [one for one in seen if one[1] > BOTTOM or one[2] > 0], seen
    press(here, "begin again")
    here.get_by_label("patient").select_option(index=0)
