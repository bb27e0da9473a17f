"""Real processes: a sharded training is saved by two ranks, and resumed by as many, by fewer and by more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mpkit.course.lesson_11.launch import launch
from mpkit.course.ranks import GLOBAL_BATCH as BATCH

SCRIPT = "mpkit.course.ranks.checkpoint"
Place = tuple[int, float, int]


@dataclass(frozen=True)
class Resumed:
    """What was observed. A distance is the largest difference of a weight to the run that was never interrupted.

    Attributes:
        bit_equal: whether the run that was resumed by as many ranks ended with the very same weights.
        state, end: (step, scale, clean steps counted towards the next growth) when it was saved, and of the straight
            run at the end; `loaded`, `ended`: by world size, what each resumed run began and ended with.
        distance: by world size, with the same global batch.
        cut: the same with one image less on each rank.
        largest: the largest weight.
    """

    bit_equal: bool
    state: Place
    end: Place
    loaded: dict[int, Place]
    ended: dict[int, Place]
    distance: dict[int, float]
    cut: dict[int, float]
    largest: float


def resume(others: tuple[int, ...] = (1,), saved_by: int = 2, device: str = "cpu") -> Resumed:
    """Save with `saved_by` ranks, resume with as many in the same launch, and with each of `others` in one of its own.

    RankFailed: see `launch`. ValueError: the global batch cannot be shared out equally.
    """
    if uneven := [n for n in (saved_by, *others) if BATCH % n]:
        raise ValueError(f"the global batch is {BATCH}; {uneven[0]} ranks cannot share it equally. Use a divisor.")
    with TemporaryDirectory(prefix="mpkit-checkpoint-") as name:
        folder = Path(name, "checkpoint")
        first: dict[str, Any] = launch(SCRIPT, folder, "save", ranks=saved_by, device=device)[0]
        rest = {
            n: launch(SCRIPT, folder, "resume", BATCH, BATCH - n, ranks=n, device=device)[0] for n in others
        }  # fmt: skip
    straight = first["straight"]
    same = {saved_by: first[str(BATCH)], **{n: runs[str(BATCH)] for n, runs in rest.items()}}

    def place(run: dict[str, Any], when: str) -> Place:
        step, scale, clean = run[when]
        return step, scale, clean

    def distance(run: dict[str, Any]) -> float:
        return float(max(abs(a - b) for a, b in zip(straight["weights"], run["weights"], strict=True)))

    return Resumed(
        bit_equal=straight["weights"] == same[saved_by]["weights"],
        state=place(straight, "begin"),
        end=place(straight, "end"),
        loaded={n: place(run, "begin") for n, run in same.items()},
        ended={n: place(run, "end") for n, run in same.items()},
        distance={n: distance(run) for n, run in same.items()},
        cut={n: distance(runs[str(BATCH - n)]) for n, runs in rest.items()},
        largest=max(map(abs, straight["weights"])),
    )
