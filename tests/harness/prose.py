"""The figures that a lesson's prose says: each must be one that a test checks against what was measured.

A lesson's test_figures.py has NOTEBOOK, NO_EXERCISE (ids of cells that are left out), SAID (phrase → whether the record
says so) and COUNTED (phrases whose figures nobody measured), and imports the tests below, `prose` and
`pytest_generate_tests`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

NUMBER = r"(?:\d[\d.,]*|one|two|three|four|five|six|seven|eight|nine|ten|eleven)"
PART = r"(?:half|thirds?|quarters?|fifths?|eighths?|tenths?)"
FIGURE = re.compile(  # 2.6, five times, two thirds, a fifth of, twice as, 3 ms
    rf"\b\d+\.\d+\b|\b{NUMBER}\*{{0,2}} times\b|\b{NUMBER} {PART}\b|\ban? {PART}\b|\btenths\b|\btwice\b"
    rf"|\b{NUMBER} (?:ms|nats|TFLOP/s|GB/s|GiB|MiB|watts|joules|GFLOP|percent|%)"
)
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def prose_of(notebook: str, left_out: re.Pattern[str]) -> str:
    """All markdown of a lesson in one line, but for cells whose id matches, names of exercises and formulas."""
    cells = json.loads((NOTEBOOKS / notebook).read_text(encoding="utf-8"))["cells"]
    told = [cell for cell in cells if cell["cell_type"] == "markdown" and not left_out.match(cell["id"])]
    words = " | ".join(" ".join("".join(cell["source"]).split()) for cell in told)
    return re.sub(r"\(exercise \d\d\.\d\)|\(\d\d\.\d at home|\$[^$]*\$", "", words)


def unchecked(prose: str, phrases: Iterable[str]) -> list[str]:
    """Figures, with some words around them, that lie in none of these phrases."""
    checked = [match.span() for phrase in phrases for match in re.finditer(re.escape(phrase), prose)]
    return [
        prose[max(0, found.start() - 30) : found.end() + 30]
        for found in FIGURE.finditer(prose)
        if not any(start <= found.start() and found.end() <= end for start, end in checked)
    ]


@pytest.fixture(scope="module")
def prose(request: pytest.FixtureRequest) -> str:
    """The lesson's prose in one line."""
    module: Any = request.module
    return prose_of(module.NOTEBOOK, module.NO_EXERCISE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a phrase."""
    if "phrase" in metafunc.fixturenames:
        said: dict[str, bool] = metafunc.module.SAID  # type: ignore[attr-defined]
        metafunc.parametrize(("phrase", "recorded"), said.items(), ids=said)


def test_what_is_said_is_what_was_recorded(phrase: str, recorded: bool, prose: str) -> None:
    assert phrase in prose, "take it out of SAID"
    assert recorded, f"the record says otherwise: {phrase}"


def test_no_figure_is_said_that_is_not_checked_here(request: pytest.FixtureRequest, prose: str) -> None:
    module: Any = request.module
    free = unchecked(prose, (*module.SAID, *module.COUNTED))
    assert not free, "\n".join(free)
