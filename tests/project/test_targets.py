"""Each of the Makefile's targets finds its tests by their markers, and together they miss none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What each target ran before the tests moved into today's folders. A number may only fall where tests were merged.
BEFORE = {"unit": 3904, "browser": 79, "test-gpu-unit": 305}
TELL = """
import json, sys, pytest
class Tell:
    def pytest_collection_finish(self, session):
        marks = [sorted({mark.name for mark in item.iter_markers()} & {"browser", "gpu"}) for item in session.items]
        print("MARKS", json.dumps(marks))
sys.exit(pytest.main(["-q", "--collect-only", "tests"], plugins=[Tell()]))
"""


@cache
def marks_of_all_tests() -> list[list[str]]:
    """Which of the two markers each collected test has."""
    done = subprocess.run([sys.executable, "-c", TELL], cwd=ROOT, capture_output=True, text=True, timeout=300)
    found = re.search(r"^MARKS (.*)$", done.stdout, re.M)
    assert found is not None, done.stdout[-2000:] + done.stderr[-2000:]
    return list(json.loads(found[1]))


def expression(target: str) -> str:
    """What a target passes to pytest as -m."""
    recipe = (ROOT / "Makefile").read_text().split(f"\n{target}:")[1].split("\n\n")[0]
    found = re.search(r'-m ("[^"]+"|\w+)', recipe.split("pytest", 1)[1])
    assert found is not None, f"make {target} chooses no tests by marker"
    return found[1].strip('"')


def count(target: str) -> int:
    """Tests that run in a target; a GPU test is skipped where there is no GPU, so `unit` is counted without."""
    chosen = {
        "not browser": lambda marks: "browser" not in marks and "gpu" not in marks,
        "browser": lambda marks: "browser" in marks,
        "gpu": lambda marks: "gpu" in marks,
    }[expression(target)]
    return sum(map(chosen, marks_of_all_tests()))


@pytest.mark.parametrize("target", BEFORE)
def test_no_target_has_lost_tests(target: str) -> None:
    assert count(target) >= BEFORE[target]


def test_the_gpu_tests_come_before_the_lessons() -> None:
    assert "\ntest-gpu: test-gpu-unit test-gpu-lessons\n" in (ROOT / "Makefile").read_text()


def test_together_the_targets_miss_none() -> None:
    assert sum(map(count, BEFORE)) == len(marks_of_all_tests())


@pytest.mark.parametrize("notebook", sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb")))
def test_every_lesson_is_run_in_the_browser(notebook: str) -> None:
    """By the tests that each lesson's browser tests import, on the page that they share."""
    source = (ROOT / "tests" / f"lesson_{notebook[:2]}" / "test_browser.py").read_text(encoding="utf-8")
    assert f'LESSON = "{notebook}"' in source
    imported = re.search(r"^from harness.lesson_page import \(.*?^\)", source, re.M | re.S)
    assert imported is not None
    for test in (
        "test_run_all_without_an_error", "test_the_stored_lesson_shows_pictures",
        "test_a_saved_lesson_comes_back_whole",
    ):  # fmt: skip
        assert f" {test}," in imported[0]
