"""A learner's way through the lessons: by keyboard alone, and after a run that was stopped."""

from __future__ import annotations

import re

import pytest
from harness.lesson_cells import cells

from mpkit.course.table import LESSONS

READY = [entry.number for entry in LESSONS if entry.ready]


@pytest.mark.parametrize("number", READY)
def test_without_a_mouse_the_cell_stays_chosen(number: str) -> None:
    """After Shift + Enter the next cell is the chosen one, and Tab never comes to the panel: it lies behind."""
    (told,) = [cell.source for cell in cells(number) if "ithout a mouse" in cell.source]
    assert "Ctrl + Enter" in told.split("ithout a mouse")[1]


def test_lesson_00_says_how_to_get_out_of_a_field() -> None:
    (told,) = [cell.source for cell in cells("00") if "ithout a mouse" in cell.source]
    assert "Shift + Tab" in told
    assert "down arrow" in told


@pytest.mark.parametrize("number", ["04", "05"])
def test_a_stopped_run_is_asked_for_by_name(number: str) -> None:
    """`runs["2⁶"]` of a training that was stopped says what to do; what `runs.items()` makes only lacks the key."""
    watched = {name for cell in cells(number) for name in re.findall(r"^(\w+) = watch\(", cell.source, re.M)}
    assert watched
    taken = [cell.id for cell in cells(number) for name in watched if re.search(rf"\b{name}\.items\(\)", cell.source)]
    assert taken == []
