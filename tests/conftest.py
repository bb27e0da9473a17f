"""What every test shares: one thread, one seed, a home of its own for the learner's data; a lab and its browser."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from harness.lesson_page import LessonPage
    from labdriver import Lab
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
# A machine that only runs the GPU tests has no Playwright.
collect_ignore_glob = [] if importlib.util.find_spec("playwright") else ["*/test_browser*.py"]

pytest.register_assert_rewrite("harness.lesson_page")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser's tests come last: while Playwright is alive, asyncio.run() refuses to work in its thread."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.fixture(autouse=True)
def one_thread_one_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small matmuls on a busy two-core machine can be a thousand times slower with two threads."""
    monkeypatch.setenv("MPKIT_HOME", str(tmp_path / "home"))
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def notebooks_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the lab serves: a copy, so that a run leaves the stored lessons alone."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    return Path(shutil.copytree(ROOT / "notebooks", folder))


@pytest.fixture(scope="session")
def running(notebooks_copy: Path) -> Iterator[Lab]:
    """One server and one browser for all tests of a worker. No Chromium: a laptop skips, CI fails."""
    from labdriver import find_browser, running_lab

    if find_browser() is None:
        message = "no Chromium on this machine: install chromium to run the browser tests"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(message)
        pytest.skip(message)
    with running_lab(notebooks_copy) as lab:
        yield lab


@pytest.fixture
def lab(running: Lab) -> Lab:
    """The running lab, with no errors of an earlier test."""
    running.errors.clear()
    return running


@pytest.fixture(scope="module")
def lesson(request: pytest.FixtureRequest, running: Lab, notebooks_copy: Path) -> Iterator[LessonPage]:
    """The notebook that the module calls LESSON, after Run All: one page and one run for all tests of the module."""
    from harness.lesson_page import opened

    with opened(running, notebooks_copy / request.module.LESSON) as found:
        yield found


@pytest.fixture
def page(lesson: LessonPage, lab: Lab) -> Iterator[Page]:
    """The lesson's page, 1280 pixels wide; a test that leaves an error on it, or in its kernel, fails."""
    lab.resize(lesson.page, 1280)
    yield lesson.page
    assert lab.errors == []
