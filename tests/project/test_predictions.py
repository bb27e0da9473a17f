"""A prediction can be made: nothing gives its answer away before the cell that settles it, in no lesson before either.

What settles it stands in tests/lesson_NN/predictions.py:
    SETTLED    key -> (id of the cell whose output settles it, regex of whatever would give the answer away)

The regex must be found in that cell, or in its output, so that it can fail; and nowhere above it, in text, code, stored
output or a picture's words. What is folded away (hints, solutions, the learner's own prediction) counts too.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nblint import calls

from mpkit.course.table import LESSONS

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SETTLED: dict[str, tuple[str, str]] = {
    key: where
    for path in sorted(Path(__file__).parents[1].glob("lesson_*/predictions.py"))
    for key, where in importlib.import_module(f"{path.parent.name}.predictions").SETTLED.items()
}
READY = [entry for entry in LESSONS if entry.ready]


def words(cell: nbformat.NotebookNode) -> str:
    """All that a reader can see of a cell."""
    shown = [cell.source]
    for output in cell.get("outputs", ()):
        shown.append(output.get("text", ""))
        shown += [str(output.get("data", {}).get(kind, "")) for kind in ("text/plain", "text/html")]
        kinds = [kind for kind in output.get("metadata", {}).values() if isinstance(kind, dict)]
        shown += [str(said) for kind in kinds for said in kind.values()]
    return "\n".join(shown)


def course() -> Iterator[tuple[str, nbformat.NotebookNode]]:
    """Lesson and cell, in course order."""
    for entry in READY:
        for cell in nbformat.read(NOTEBOOKS / entry.filename, as_version=4).cells:
            yield entry.number, cell


COURSE = list(course())


def asked(cell: nbformat.NotebookNode) -> list[str]:
    """Keys of the predictions that a cell asks for."""
    found = calls(cell.source, "predict") if cell.cell_type == "code" else []
    return [str(ast.literal_eval(call.args[0])) for call in found]


ASKED = [key for _, cell in COURSE for key in asked(cell)]


def test_every_prediction_says_what_settles_it() -> None:
    assert sorted(SETTLED) == sorted(ASKED)


@pytest.mark.parametrize("key", SETTLED)
def test_nothing_gives_the_answer_away(key: str) -> None:
    settles, pattern = SETTLED[key]
    for number, cell in COURSE:
        text = words(cell)
        if key in asked(cell):
            continue  # its own question offers the answers
        if (number, cell.id) == (key.split(".")[0], settles):
            assert re.search(pattern, text), f"{key}: {pattern!r} is not in the cell that should settle it"
            return
        found = re.search(pattern, text)
        assert not found, f"{key} is answered in lesson {number}, cell {cell.id}: {found and found[0]!r}"
    pytest.fail(f"{key}: there is no cell {settles}")


@pytest.mark.parametrize("number", [entry.number for entry in READY])
def test_a_prediction_comes_before_what_settles_it(number: str) -> None:
    cells = [cell for lesson, cell in COURSE if lesson == number]
    places = {cell.id: place for place, cell in enumerate(cells)}
    for place, cell in enumerate(cells):
        for key in asked(cell):
            assert place < places[SETTLED[key][0]], key
