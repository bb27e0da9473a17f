"""The script of a patient as its owner would show it: without the switch between sick and cured."""

import ast
import inspect
from collections.abc import Sequence

from mpkit.course.clinic.patient import Patient


def script(patient: Patient, sick: bool = True) -> str:
    """Source of `patient.build` with every choice that hangs on `sick` made, and `sick` gone from its head.

    The two scripts of a patient differ in the lines that are its fault, and in no others.
    """
    source = inspect.getsource(patient.build)
    while (changed := _decide_first(source, sick)) != source:
        source = changed
    return source.replace("sick: bool, ", "")


def _decide_first(source: str, sick: bool) -> str:
    """Decide the first choice that hangs on `sick`: `a if sick else b`, `if sick:`, `sick or c`, `not sick and c`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.IfExp | ast.If) and (holds := _holds(node.test, sick)) is not None:
            chosen = node.body if holds else node.orelse
            return _replace(source, node, chosen if isinstance(chosen, Sequence) else [chosen])
        if isinstance(node, ast.BoolOp) and _holds(node.values[0], sick) is not None and _holds(node, sick) is None:
            return _replace(source, node, [node.values[1]])
    return source


def _holds(test: ast.expr, sick: bool) -> bool | None:
    """What a test says if `sick` decides it, else None."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _holds(test.operand, sick)
        return None if inner is None else not inner
    if isinstance(test, ast.BoolOp):
        decides = isinstance(test.op, ast.Or)
        return decides if _holds(test.values[0], sick) is decides else None
    return sick if isinstance(test, ast.Name) and test.id == "sick" else None


def _replace(source: str, whole: ast.stmt | ast.expr, parts: Sequence[ast.stmt | ast.expr]) -> str:
    """`source` with an expression replaced by a part of it, or a statement by those of one branch, moved left."""
    lines = source.splitlines(keepends=True)
    first = whole.lineno - 1
    if isinstance(whole, ast.expr):  # those of the scripts stand on one line
        head, tail = lines[first][: whole.col_offset], lines[first][whole.end_col_offset :]
        lines[first] = head + (ast.get_source_segment(source, parts[0]) or "") + tail
    else:
        kept = lines[parts[0].lineno - 1 : parts[-1].end_lineno] if parts else []
        left = parts[0].col_offset - whole.col_offset if parts else 0
        lines[first : whole.end_lineno] = [line[left:] for line in kept]
    return "".join(lines)
