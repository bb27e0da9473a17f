"""Read and run the cells of the stored lessons, so that tests use the very text that a learner sees.

exercises("04")["04.1"].solution        the folded solution's code
judge(exercise, "def largest_scale(amax): ...")   what `check` says to that code in the exercise's cell
first_difference(cells("04"))           the first cell whose output is not the stored one
"""

from __future__ import annotations

import ast
import contextlib
import html
import io
import re
import symtable
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import nbformat
import torch

import mpkit
from mpkit.course import table
from mpkit.course.exercises import Feedback, check

LESSONS = Path(__file__).resolve().parents[2] / "notebooks"
DETAILS = re.compile(r"<details><summary>(.*?)</summary>(.*?)</details>", re.DOTALL)
CODE_BLOCK = re.compile(r"``python\n(.*?)``", re.DOTALL)
INLINE_ANSWER = re.compile(r"<code>(\w+ = .*?)</code>")
CARD = re.compile(r"^(Code|Debug|Explain) · difficulty ([●○]{5}) · (\d+) minutes?$", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """One cell: its id, its source, its tags, the heading above it, and what it printed when it was stored."""

    id: str
    kind: str
    source: str
    tags: frozenset[str]
    heading: str
    stored: str


@dataclass(frozen=True)
class Exercise:
    """One exercise as the notebook shows it. `hints` are texts, `solution` is code."""

    key: str
    card: str
    stub: str
    hints: tuple[str, ...]
    solution: str


def cells(number: str) -> list[Cell]:
    """The cells of a lesson, in order."""
    nb = nbformat.read(LESSONS / table.find(number).filename, as_version=4)
    found: list[Cell] = []
    heading = ""
    for cell in nb.cells:
        if cell.cell_type == "markdown" and (titles := re.findall(r"^#+ (.*)$", cell.source, re.MULTILINE)):
            heading = titles[-1]
        tags = frozenset(cell.metadata.get("tags", ()))
        found.append(Cell(cell.id, cell.cell_type, cell.source, tags, heading, _text(cell.get("outputs", ()))))
    return found


def _text(outputs: Iterable[Any]) -> str:
    """What nbval compares and `run` reproduces: printed text and the text form of results."""
    shown = (out.get("text") or out.get("data", {}).get("text/plain", "") for out in outputs)
    return "\n".join(text.rstrip("\n") for text in shown if text)


def exercises(number: str) -> dict[str, Exercise]:
    """Every exercise of a lesson by its key: the cell tagged "exercise", the text above it and the help below it."""
    found = {}
    every = cells(number)
    for above, stub, below in zip(every, every[1:], every[2:], strict=False):
        if "exercise" in stub.tags:
            parts = DETAILS.findall(below.source)
            hints = tuple(text.strip() for title, text in parts if title.startswith("Hint "))
            (solution,) = [_code(text) for title, text in parts if title == "Solution"]
            key = ast.literal_eval(_last(stub.source).args[0])
            found[key] = Exercise(key, above.source, stub.source, hints, solution)
    return found


def _code(text: str) -> str:
    """The code of a folded solution: a block, or, for a single line, `name = value` between <code> marks."""
    if block := CODE_BLOCK.search(text):
        return block.group(1)
    (line,) = INLINE_ANSWER.findall(text)
    return html.unescape(line)


def _last(source: str) -> ast.Call:
    """The call of `check` that ends an exercise cell."""
    statement = ast.parse(source).body[-1]
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    return statement.value


def judge(exercise: Exercise, answer: str) -> Feedback:
    """Run `answer` in the place of the stub, then the stub's own last line, and return what it says."""
    space: dict[str, Any] = {"__name__": "__main__", "mpkit": mpkit, "torch": torch}
    space["check"] = lambda key, given: check(key, given, record=False)
    exec(compile(answer, f"<answer to {exercise.key}>", "exec"), space)
    feedback = eval(compile(ast.Expression(_last(exercise.stub)), "<exercise>", "eval"), space)
    assert isinstance(feedback, Feedback)
    return feedback


@dataclass(frozen=True)
class Difference:
    """A cell whose output is not the stored one. `shown` is what came instead; `error` is True for an exception."""

    cell: Cell
    shown: str
    error: bool

    def __str__(self) -> str:
        pairs = zip_longest(self.cell.stored.splitlines(), self.shown.splitlines(), fillvalue="")
        stored, came = next(pair for pair in pairs if pair[0] != pair[1])
        return f'{self.cell.id} ("{self.cell.heading}"): stored {stored!r}, came {came!r}'


def first_difference(lesson_cells: Sequence[Cell]) -> Difference | None:
    """Run code cells one after the other in a fresh namespace, until one shows something else than was stored."""
    return next(differences(lesson_cells), None)


def differences(lesson_cells: Sequence[Cell]) -> Iterator[Difference]:
    """Run code cells one after the other in a fresh namespace; yield each that shows something else than was stored.

    As under nbval, what a cell tagged nbval-ignore-output shows belongs to the machine; only its errors count.
    """
    space: dict[str, Any] = {"__name__": "__main__"}
    for cell in lesson_cells:
        if cell.kind == "code":
            shown, error = run(cell, space)
            if error or (shown != cell.stored and "nbval-ignore-output" not in cell.tags):
                yield Difference(cell, shown, error)


def run(cell: Cell, space: dict[str, Any]) -> tuple[str, bool]:
    """Run one cell as a notebook would; returns its text, and whether it ended with an exception."""
    body = ast.parse(cell.source)
    result = ast.Expression(body.body.pop().value) if body.body and isinstance(body.body[-1], ast.Expr) else None
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(body, f"<{cell.id}>", "exec"), space)
            value = eval(compile(result, f"<{cell.id}>", "eval"), space) if result else None
    except Exception as error:
        return f"{type(error).__name__}: {error}", True
    texts = [out.getvalue().rstrip("\n"), "" if value is None else repr(value)]
    return "\n".join(text for text in texts if text), False


def without_training(lesson_cells: Sequence[Cell], trainers: Sequence[str]) -> list[Cell]:
    """Leave out the cells that call one of `trainers`, and every cell that needs a name which only those define.

    Their imports stay, for later cells rely on them.
    """
    missing: set[str] = set()
    kept = []
    for cell in lesson_cells:
        if cell.kind != "code":
            continue
        imports, (defined, needed, called) = _imports(cell.source), _names(cell.source)
        if called & set(trainers) or needed & missing:
            missing |= defined - _names(imports)[0]
            kept.append(replace(cell, source=imports, stored=""))
        else:
            missing -= defined
            kept.append(cell)
    return kept


def leading_to(lesson_cells: Sequence[Cell], last: Cell) -> list[Cell]:
    """The code cells that define what `last` needs, and what those need in turn; `last` is the last of them."""
    before = list(lesson_cells)[: lesson_cells.index(last)]
    needed, kept = set(_names(last.source)[1]), [last]
    for cell in reversed([cell for cell in before if cell.kind == "code"]):
        defined, needs, _ = _names(cell.source)
        if defined & needed:
            needed = (needed - defined) | needs
            kept.insert(0, cell)
    return kept


def _imports(source: str) -> str:
    """The import statements at the top level of a cell."""
    return "\n".join(
        ast.unparse(node) for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)
    )


def _names(source: str) -> tuple[set[str], set[str], set[str]]:
    """Names that a cell defines, names that it needs from elsewhere, and functions that it calls by name."""
    table = symtable.symtable(source, "<cell>", "exec")
    tables, seen = [table], []
    while tables:
        seen.append(tables.pop())
        tables += seen[-1].get_children()
    defined = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    needed = {
        s.get_name() for t in seen for s in t.get_symbols() if s.is_referenced() and (t is table or s.is_global())
    }
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return defined, needed - defined, {func.id for func in calls if isinstance(func, ast.Name)}
