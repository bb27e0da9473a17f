"""A verdict on recorded figures is red as soon as one number of the record says otherwise, and green as it stands."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harness.lesson_cells import Cell, cells, leading_to, run
from lesson_07.faults import TOUCHED_UP

LESSON = cells("07")
RED = "this run does not decide it"
# In the place of the small ResNet's two runs on the CPU, which C10 and C24 need beside the record.
FORMATS = {"scores": torch.float16, "loss": torch.float32, "weight": torch.float32, "gradient": torch.float32}
TRAINED: dict[str, Any] = {
    "losses": [2.0, 0.5], "moved": [False, True], "stuck_losses": [2.0, 2.0], "stuck_moved": [False, False],
    "tensors": {name: torch.zeros(1, dtype=dtype) for name, dtype in FORMATS.items()},
}  # fmt: skip
CLAIMS = sorted({claim for _, claims in TOUCHED_UP.values() for claim in claims})


def verdict_of(claim: str) -> str:
    """What a claim's verdict says today: the cells behind it run, but for those that train."""
    (last,) = (cell for cell in LESSON if f'verdict("{claim}"' in cell.source)
    space: dict[str, Any] = {"__name__": "__main__", **TRAINED, "torch": torch}
    shown, error = "", False
    for cell in [*behind(last), last]:
        shown, error = run(cell, space)
        assert not error, f"{cell.id}: {shown}"
    return shown


def behind(last: Cell) -> list[Cell]:
    return [cell for cell in leading_to(LESSON, last)[:-1] if "train_on_cpu" not in cell.source]


@pytest.mark.parametrize("claim", CLAIMS)
def test_as_recorded_the_verdict_stands(claim: str) -> None:
    assert RED not in verdict_of(claim)


@pytest.mark.parametrize(
    ("name", "claim"), [(name, claim) for name, (_, claims) in TOUCHED_UP.items() for claim in claims]
)
def test_one_number_touched_up_turns_it_red(name: str, claim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    TOUCHED_UP[name][0](monkeypatch)
    shown = verdict_of(claim)
    assert RED in shown
    assert "✗" in shown
