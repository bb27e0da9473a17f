"""Real processes: one of two replicas skips a step, and halves its scale. How far apart are they later?"""

from __future__ import annotations

from typing import Any

from mpkit.course.lesson_11.launch import launch

SCRIPT = "mpkit.course.ranks.drift"


def drift(ranks: int = 2, device: str = "cpu") -> dict[tuple[str, int], dict[int, float]]:
    """For each optimizer and each batch of a rank: the distance after the skipped step, 8 and 100 steps later.

    The last rank alone skips step 31, counted from 1. A distance is the largest to rank 0's weights, relative to their
    length. RankFailed: see `launch`.
    """
    first: dict[str, dict[str, Any]] = launch(SCRIPT, ranks=ranks, device=device)[0]
    return {
        (name, int(batch)): {int(later): far for later, far in one.items()}
        for name, row in first.items()
        for batch, one in row.items()
    }
