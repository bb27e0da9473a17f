"""Real processes: one of two replicas skips a step, and halves its scale. How far apart are they eight steps later?"""

from __future__ import annotations

from typing import Any

from mpkit.course.lesson_11.launch import launch

SCRIPT = "mpkit.course.ranks.drift"


def drift(ranks: int = 2, device: str = "cpu") -> dict[str, dict[int, list[float]]]:
    """For each optimizer and each step at which the last rank skips alone: the distances from that step on.

    A distance is the largest to rank 0's weights, relative to their length; first after the skipped step, then after
    each of eight more. RankFailed: see `launch`.
    """
    first: dict[str, dict[str, Any]] = launch(SCRIPT, ranks=ranks, device=device)[0]
    return {name: {int(step) + 1: apart for step, apart in one.items()} for name, one in first.items()}
