"""A lesson is worth running only if it notices a broken library: each fault must change what some cell shows.

The cells run in this process, with a fault injected, up to the first one that differs from its stored output. Left out
are the cells that train for half a minute, and those that build on them. `pytest -rP` shows which cell caught what.
"""

from __future__ import annotations

import pytest
from lesson_cells import cells, first_difference, without_training
from lesson_faults import FAULTS

from mpkit.widgets import gradient_histogram

QUICK = without_training(cells("04"), trainers=("watch", "compare"))
# Faults that no cell of lesson 04 shows yet. When one does, its test here fails: then take the name out.
UNSEEN = {
    "a_skipped_step_is_applied",
    "a_dynamic_scale_never_grows",
    "a_dynamic_scale_never_backs_off",
    "bf16_has_the_bits_of_fp16",
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


@pytest.fixture(autouse=True)
def strict_and_unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPKIT_STRICT", "1")
    monkeypatch.setattr(gradient_histogram, "GradientHistogramFigure", NoPicture)


def test_a_healthy_library_shows_what_is_stored() -> None:
    difference = first_difference(QUICK)
    assert difference is None, str(difference)


def test_most_of_the_lesson_takes_part() -> None:
    everything, quick = ([cell for cell in part if cell.stored] for part in (cells("04"), QUICK))
    assert len(quick) > len(everything) / 2
    assert sum("claim" in cell.tags for cell in quick) >= 4


@pytest.mark.parametrize("name", FAULTS)
def test_the_lesson_notices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[name](monkeypatch)
    difference = first_difference(QUICK)
    print(f"{name}: {difference}")
    if name in UNSEEN:
        assert difference is None, f"the lesson shows this now, so take {name} out of UNSEEN"
        return
    assert difference is not None, "no cell of lesson 04 shows this fault"
    assert not difference.error, f"an error is not a finding: {difference}"
