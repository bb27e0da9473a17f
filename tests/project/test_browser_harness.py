"""The harness itself: a tiny notebook with three sliders shows that opening, running, keys and errors work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from labdriver import Lab
from labkeys import press
from labserver import ROOT, LabError
from nbformat.v4 import new_code_cell, new_notebook
from nbstore import canonical
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser
SLIDER = """
import ipywidgets
slider = ipywidgets.IntSlider(value=3, min=0, max=10, description="scale")
text = ipywidgets.HTML("power 3")
slider.observe(lambda change: setattr(text, "value", f"power {change['new']}"), "value")
ipywidgets.VBox([slider, text])
"""
BROKEN = """
broken = ipywidgets.IntSlider(value=3, min=0, max=10, description="broken")
broken.observe(lambda change: 1 / 0, "value")
broken
"""
NAIVE = f"""
import sys
sys.path.append({str(ROOT / "tools")!r})
from naive_pictures import show
show("bars", 1, 300, "naive")
"""
BOOK = (SLIDER, BROKEN, NAIVE, "1 / 0")


@pytest.fixture(scope="module")
def opened(running: Lab, notebooks_copy: Path) -> Iterator[tuple[Page, str]]:
    """The notebook after Run All, and what that raised. Its last cell fails."""
    nb = canonical(new_notebook(cells=[new_code_cell(source.strip()) for source in BOOK]))
    nbformat.write(nb, notebooks_copy / "harness.ipynb")
    page = running.open("harness.ipynb")
    with pytest.raises(LabError) as raised:
        running.run_all(page)
    yield page, str(raised.value)
    running.close(page)


@pytest.fixture
def page(opened: tuple[Page, str]) -> Page:
    return opened[0]


def output(page: Page, label: str) -> Locator:
    """The output that shows a slider of this name."""
    return page.locator(".jp-OutputArea-output", has=page.get_by_text(label, exact=True))


def test_a_failing_cell_is_named(opened: tuple[Page, str]) -> None:
    assert opened[1] == "cell 3 failed with ZeroDivisionError: division by zero"


def test_a_slider_moved_by_key_changes_the_text(lab: Lab, page: Page) -> None:
    expect(page.locator(".widget-html", has_text="power 3")).to_be_visible()
    output(page, "scale").locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".widget-html", has_text="power 4")).to_be_visible()
    assert lab.errors == []


def test_nothing_pops_up_and_no_kernel_is_asked_for(page: Page) -> None:
    page.wait_for_load_state("networkidle")  # nothing that a pop-up could wait for is under way
    assert page.locator(".jp-Dialog").count() == 0
    assert page.locator(".Toastify__toast").count() == 0


@pytest.mark.parametrize("label", ["scale", "naive"])
def test_a_key_is_answered_when_the_picture_is_another_one(lab: Lab, page: Page, label: str) -> None:
    """What the benchmark times: a widget that changes its text, and `interact`, which throws its picture away."""
    here = output(page, label)
    here.locator(".noUi-handle").focus()
    before = here.inner_html()
    press(page, here, "ArrowRight")
    assert here.inner_html() != before
    assert lab.errors == []


def test_a_question_comes_after_all_that_was_done_before(lab: Lab, page: Page) -> None:
    output(page, "scale").locator(".noUi-handle").focus()
    page.keyboard.press("Home")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert lab.ask(page, "slider.value, text.value") == "(5, 'power 5')"
    assert lab.errors == []
    with pytest.raises(LabError, match="1/0 raised ZeroDivisionError: division by zero"):
        lab.ask(page, "1/0")


def test_a_failing_callback_is_an_error(lab: Lab, page: Page) -> None:
    output(page, "broken").locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    lab.ask(page)
    assert any("ZeroDivisionError" in error for error in lab.errors), lab.errors


def test_an_error_on_the_page_is_an_error(lab: Lab, page: Page) -> None:
    page.evaluate("() => console.error('a broken panel')")
    assert any("a broken panel" in error for error in lab.errors), lab.errors
