"""A lesson in a real browser: opened, looked at as it lies in the repository, and run once for all its tests.

A lesson's test_browser.py names its notebook, `LESSON = "04_scale_the_loss.ipynb"`, and imports the tests below: they
share the page with its own. The fixtures `lesson` and `page` are in tests/conftest.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from harness.page_checks import clipped
from labdriver import Lab
from playwright.sync_api import Page, TimeoutError

LOADED = (
    "() => [...document.querySelectorAll('.jp-OutputArea-output img')].map(img => img.complete && img.naturalWidth)"
)


@dataclass(frozen=True)
class Stored:
    """What the lesson shows before it is run: each picture's width, how many there should be, the text of the
    outputs and of their tables' rows, and the errors until then."""

    pictures: list[int]
    expected: int
    rows: list[str]
    text: str
    errors: list[str]


@dataclass(frozen=True)
class LessonPage:
    """The lesson after Run All, and the errors that came with it."""

    page: Page
    stored: Stored
    errors: list[str]


@contextmanager
def opened(lab: Lab, notebook: Path) -> Iterator[LessonPage]:
    """Open a lesson of the lab's folder, look at it, and run it. Its kernel ends with the block."""
    lab.errors.clear()
    page = lab.open(notebook.name, width=1280)
    expected = stored_pictures(notebook)
    with suppress(TimeoutError):  # the test says it better
        page.wait_for_function(f"expected => ({LOADED})().filter(Boolean).length >= expected", arg=expected)
    outputs = page.locator(".jp-OutputArea-output")
    rows, text = outputs.locator("table tbody tr").all_inner_texts(), "\n".join(outputs.all_inner_texts())
    stored = Stored(page.evaluate(LOADED), expected, rows, text, list(lab.errors))
    lab.errors.clear()
    lab.run_all(page)
    yield LessonPage(page, stored, list(lab.errors))
    lab.close(page)


def stored_pictures(notebook: Path) -> int:
    """How many outputs are shown as a picture where no widget is alive."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    shown = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return sum("image/png" in data and "text/html" not in data for data in shown)


def test_run_all_without_an_error(lesson: LessonPage) -> None:
    assert lesson.errors == []


def test_the_stored_lesson_shows_pictures(lesson: LessonPage) -> None:
    stored = lesson.stored
    assert len(stored.pictures) == stored.expected
    assert all(width > 500 for width in stored.pictures)
    assert "model not found" not in stored.text.lower()
    assert stored.errors == []


# What each cell shows below itself: of every output that is not hidden, its text, or that it is a picture.
SHOWN = """() => [...document.querySelectorAll('.jp-CodeCell')].map(cell =>
  [...cell.querySelectorAll('.jp-OutputArea-child')]
    .filter(output => getComputedStyle(output).display !== 'none'
      && !output.querySelector('style.mpkit-twin, style.mpkit-alt'))
    .map(output => output.querySelector('img') ? '[picture]' : output.textContent.trim())
    .filter(Boolean))"""

NAMELESS_PICTURES = """() => [...document.querySelectorAll('.jp-OutputArea-output img')]
  .filter(image => image.getClientRects().length && !image.alt.trim()).map(image => image.outerHTML.slice(0, 80))"""


def test_a_saved_lesson_comes_back_whole(lesson: LessonPage, lab: Lab, notebooks_copy: Path) -> None:
    """Saved after it was run, and opened where no kernel knows its widgets: each output still shows something."""
    name = lesson.page.evaluate("() => jupyterapp.shell.currentWidget.context.path")
    live = lesson.page.evaluate(SHOWN)
    lab.command(lesson.page, "docmanager:save")
    copy = notebooks_copy / f"saved_{Path(name).name}"
    copy.write_bytes((notebooks_copy / Path(name).name).read_bytes())
    page = lab.open(copy.name, width=1280)
    whole = sum(map(len, live))
    with suppress(TimeoutError):  # the assertions say it better
        page.wait_for_function(f"whole => ({SHOWN})().flat().length === whole", arg=whole)
    with suppress(TimeoutError):
        page.wait_for_function(f"() => !({NAMELESS_PICTURES})().length", timeout=5000)
    saved, nameless = page.evaluate(SHOWN), page.evaluate(NAMELESS_PICTURES)
    lab.close(page)
    copy.unlink()
    assert [len(outputs) for outputs in saved] == [len(outputs) for outputs in live]
    assert not [output for outputs in saved for output in outputs if "not found" in output]
    assert nameless == [], "a picture of a saved lesson has its description"
    assert whole > 10


WIDTHS = (700, 848, 1280)


def test_no_panel_is_cut_at_any_width(lesson: LessonPage, lab: Lab) -> None:
    """Its picture keeps its words whatever the width is (tests/course/test_words_fit.py); its controls may not."""
    wrong = []
    for width in WIDTHS:
        lab.resize(lesson.page, width)
        for panel in lesson.page.locator(".jp-OutputArea-output:has(.mpkit-panel)").all():
            if panel.is_visible():
                wrong += [f"{width}: {text}" for text in clipped(panel)]
    lab.resize(lesson.page, 1280)
    assert not wrong, "\n".join(wrong)


# What has to have a name or a state for those who do not see the page, and has none.
NAMELESS = """() => {
  const wrong = [];
  const need = (where, name) => document.querySelectorAll('.jp-OutputArea-output ' + where).forEach(e => {
    if (e.getClientRects().length && !e.getAttribute(name)?.trim()) wrong.push(`${e.className} has no ${name}`); });
  for (const where of ['.noUi-handle', '.widget-radio', '.widget-toggle-buttons', '.progress'])
    need(where, 'aria-label');
  for (const where of ['.widget-toggle-button', '.widget-toggle-buttons button']) need(where, 'aria-pressed');
  document.querySelectorAll('.jp-OutputArea-output [title="null"]').forEach(e => wrong.push(`${e.outerHTML}`));
  return wrong;
}"""


def test_every_control_has_a_name_and_axe_finds_nothing_serious(lesson: LessonPage, lab: Lab) -> None:
    """axe-core's rules for WCAG 2 A and AA, on everything that the lesson's cells show; contrast in both themes."""
    page = lesson.page
    assert page.evaluate(NAMELESS) == []
    assert serious(page, "wcag2a", "wcag2aa", "wcag21a", "wcag21aa") == []
    lab.theme(page, dark=True)
    dark = serious(page, "color-contrast")
    lab.theme(page, dark=False)
    assert dark == []


def serious(page: Page, *only: str) -> list[str]:
    """What axe-core finds with these rules, or the rules with these tags: each name with its element."""
    shown = {"include": [[".jp-OutputArea-output"]]}
    found = Axe().run(page, context=shown, options={"runOnly": list(only)}).response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
