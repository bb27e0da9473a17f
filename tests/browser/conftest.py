"""JupyterLab and Chromium for the browser tests: started once, always ended."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from labdriver import Lab, find_browser, running_lab
from labserver import ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is a browser test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def notebooks_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the lab serves: a copy, so that a run leaves the stored lessons alone."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    return Path(shutil.copytree(ROOT / "notebooks", folder))


@pytest.fixture(scope="session")
def running(notebooks_copy: Path) -> Iterator[Lab]:
    """One server and one browser for all tests. No Chromium: a laptop skips, CI fails."""
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
