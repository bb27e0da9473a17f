"""The harness itself: a tiny notebook with one slider shows that opening, running, keys and errors work."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from labdriver import Lab
from labserver import LabError
from nbformat.v4 import new_code_cell, new_notebook
from nbstore import canonical
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
SLIDER = """
import ipywidgets
slider = ipywidgets.IntSlider(value=3, min=0, max=10, description="scale")
text = ipywidgets.HTML("power 3")
slider.observe(lambda change: setattr(text, "value", f"power {change['new']}"), "value")
ipywidgets.VBox([slider, text])
"""
BROKEN_SLIDER = """
import ipywidgets
slider = ipywidgets.IntSlider(value=3, min=0, max=10, description="scale")
slider.observe(lambda change: 1 / 0, "value")
slider
"""


def store(folder: Path, name: str, *sources: str) -> str:
    """Write a notebook that was never run; returns its name."""
    nb = canonical(new_notebook(cells=[new_code_cell(source.strip()) for source in sources]))
    nbformat.write(nb, folder / name)
    return name


def test_a_slider_moved_by_key_changes_the_text(lab: Lab, notebooks_copy: Path) -> None:
    page = lab.open(store(notebooks_copy, "slider.ipynb", SLIDER))
    lab.run_all(page)
    expect(page.locator(".widget-html", has_text="power 3")).to_be_visible()
    page.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".widget-html", has_text="power 4")).to_be_visible()
    assert lab.errors == []
    page.close()


def test_nothing_pops_up_and_no_kernel_is_asked_for(lab: Lab, notebooks_copy: Path) -> None:
    page = lab.open(store(notebooks_copy, "quiet.ipynb", "1 + 1"))
    page.wait_for_timeout(2000)
    assert page.locator(".jp-Dialog").count() == 0
    assert page.locator(".Toastify__toast").count() == 0
    page.close()


def test_a_failing_cell_is_named(lab: Lab, notebooks_copy: Path) -> None:
    page = lab.open(store(notebooks_copy, "failing.ipynb", "1 + 1", "1 / 0"))
    with pytest.raises(LabError, match="cell 1 failed with ZeroDivisionError"):
        lab.run_all(page)
    page.close()


def test_a_failing_callback_is_an_error(lab: Lab, notebooks_copy: Path) -> None:
    page = lab.open(store(notebooks_copy, "callback.ipynb", BROKEN_SLIDER))
    lab.run_all(page)
    page.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(2000)
    assert any("ZeroDivisionError" in error for error in lab.errors), lab.errors
    page.close()


def test_an_error_on_the_page_is_an_error(lab: Lab, notebooks_copy: Path) -> None:
    page = lab.open(store(notebooks_copy, "console.ipynb", "1 + 1"))
    page.evaluate("() => console.error('a broken panel')")
    assert any("a broken panel" in error for error in lab.errors), lab.errors
    page.close()
