"""A lesson is worth running only if it notices a broken library: each fault must change what some cell shows.

The cells run in this process, with a fault injected, up to the first one that differs from its stored output. Left out
are the cells that train for half a minute or start other processes, and those that build on them. `pytest -rP` shows
which cell caught what.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness.lesson_cells import Cell, Difference, cells, differences, first_difference, without_training

MODULES = {
    path.parent.name[-2:]: importlib.import_module(f"{path.parent.name}.faults")
    for path in sorted(Path(__file__).parents[1].glob("lesson_*/faults.py"))
}
# Those that train, and those that start other processes, which no fault of this one reaches.
TRAINERS = ("train_each", "train_seeds", "compare", "agreement", "drift", "launch", "sums", "resume")


class NoFrame:
    """Stands for a panel's figure and for each of its frames: drawing is the slowest part of a cell."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def show(self, *_: object, **__: object) -> NoFrame:
        """Draw nothing."""
        return self

    def png(self) -> bytes:
        """An empty picture."""
        return b""


@pytest.fixture(scope="module", autouse=True)
def strict_and_unpainted() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPKIT_STRICT", "1")
        for module in MODULES.values():
            for place, name in module.UNPAINTED:
                patch.setattr(place, name, NoFrame)
        yield


@pytest.fixture(scope="module")
def quick() -> dict[str, list[Cell]]:
    """The cells of each lesson that do not train."""
    return {number: without_training(cells(number), trainers=TRAINERS) for number in MODULES}


@pytest.fixture(scope="module")
def stale(
    quick: dict[str, list[Cell]], strict_and_unpainted: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Difference]:
    """What a healthy library shows today where a stored lesson shows something else, by cell: it should be empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPKIT_HOME", str(tmp_path_factory.mktemp("home")))
        return {found.cell.id: found for lesson in quick.values() for found in differences(lesson)}


def test_a_healthy_library_shows_what_is_stored(stale: dict[str, Difference]) -> None:
    assert not stale, "store the lesson again: " + "; ".join(map(str, stale.values()))


@pytest.mark.parametrize(
    ("source", "tags", "differs"),
    [("print(2)", (), True), ("print(2)", ("nbval-ignore-output",), False), ("1 / 0", ("nbval-ignore-output",), True)],
)
def test_what_belongs_to_the_machine_is_not_compared(source: str, tags: tuple[str, ...], differs: bool) -> None:
    cell = Cell("here", "code", source, frozenset(tags), "", "1")
    assert bool(list(differences([cell]))) == differs


@pytest.mark.parametrize("number", MODULES)
def test_most_of_the_lesson_takes_part(number: str, quick: dict[str, list[Cell]]) -> None:
    everything, part = ([cell for cell in some if cell.stored] for some in (cells(number), quick[number]))
    assert len(part) > len(everything) / 2
    assert sum("claim" in cell.tags for cell in part) >= 3


@pytest.mark.parametrize(("number", "name"), [(number, name) for number in MODULES for name in MODULES[number].FAULTS])
def test_the_lesson_notices(
    number: str,
    name: str,
    quick: dict[str, list[Cell]],
    stale: dict[str, Difference],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    healthy = [replace(cell, stored=stale[cell.id].shown) if cell.id in stale else cell for cell in quick[number]]
    MODULES[number].FAULTS[name](monkeypatch)
    difference = first_difference(healthy)
    print(f"{name}: {difference}")
    if name in MODULES[number].UNSEEN:
        assert difference is None, f"the lesson shows this now, so take {name} out of UNSEEN"
        return
    assert difference is not None, f"no cell of lesson {number} shows this fault"
    assert not difference.error, f"an error is not a finding: {difference}"
