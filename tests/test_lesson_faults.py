"""A lesson is worth running only if it notices a broken library: each fault must change what some cell shows.

The cells run in this process, with a fault injected, up to the first one that differs from its stored output. Left out
are the cells that train for half a minute, and those that build on them. `pytest -rP` shows which cell caught what.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from lesson_cells import Difference, cells, differences, first_difference, without_training
from lesson_faults import FAULTS

from mpkit.widgets import gradient_histogram

QUICK = without_training(cells("04"), trainers=("train_each", "compare"))
# Faults that no cell of lesson 04 shows yet. When one does, its test here fails: then take the name out.
UNSEEN = {
    "a_skipped_step_is_applied",
    "a_dynamic_scale_never_grows",
    "a_dynamic_scale_never_backs_off",
}


class NoPicture:
    """Stands for the panel's figure: text is compared here, and drawing is the slowest part of a cell."""

    def __init__(self, *_: object) -> None:
        pass

    def show(self, *_: object) -> None:
        """Draw nothing."""

    def png(self) -> bytes:
        """An empty picture."""
        return b""


@pytest.fixture(scope="module", autouse=True)
def strict_and_unpainted() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPKIT_STRICT", "1")
        patch.setattr(gradient_histogram, "GradientHistogramFigure", NoPicture)
        yield


@pytest.fixture(scope="module")
def stale(strict_and_unpainted: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Difference]:
    """What a healthy library shows today where the stored lesson shows something else, by cell: it should be empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPKIT_HOME", str(tmp_path_factory.mktemp("home")))
        return {difference.cell.id: difference for difference in differences(QUICK)}


def test_a_healthy_library_shows_what_is_stored(stale: dict[str, Difference]) -> None:
    assert not stale, "store the lesson again: " + "; ".join(map(str, stale.values()))


def test_most_of_the_lesson_takes_part() -> None:
    everything, quick = ([cell for cell in part if cell.stored] for part in (cells("04"), QUICK))
    assert len(quick) > len(everything) / 2
    assert sum("claim" in cell.tags for cell in quick) >= 4


@pytest.mark.parametrize("name", FAULTS)
def test_the_lesson_notices(name: str, stale: dict[str, Difference], monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = [replace(cell, stored=stale[cell.id].shown) if cell.id in stale else cell for cell in QUICK]
    FAULTS[name](monkeypatch)
    difference = first_difference(healthy)
    print(f"{name}: {difference}")
    if name in UNSEEN:
        assert difference is None, f"the lesson shows this now, so take {name} out of UNSEEN"
        return
    assert difference is not None, "no cell of lesson 04 shows this fault"
    assert not difference.error, f"an error is not a finding: {difference}"
