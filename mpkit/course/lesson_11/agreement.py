"""Real processes: an Inf on one rank, born in several places; who skips, and do the ranks stay one model?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mpkit.course.lesson_11.launch import launch

SCRIPT = "mpkit.course.ranks.agreement"


@dataclass(frozen=True)
class Trained:
    """What was observed in one training. The lists have one entry a rank.

    Attributes:
        case: where the Inf was born; `scaler`: who decided.
        stepped: for each rank, True for each step that its optimizer took.
        scales: at the end.
        apart: the largest difference between a rank's weights and rank 0's, over those that every rank has; Inf if one
            is NaN; None if all are sharded.
    """

    case: str
    scaler: str
    stepped: list[list[bool]]
    scales: list[float]
    apart: float | None

    @property
    def agrees(self) -> bool:
        """Whether all ranks took the same steps, at the same scale."""
        return all(one == self.stepped[0] for one in self.stepped) and len(set(self.scales)) == 1

    @property
    def same_weights(self) -> bool | None:
        """Whether what every rank has is equal, bit for bit, and finite; None: all are sharded, nothing to compare."""
        return None if self.apart is None else self.apart == 0

    def __str__(self) -> str:
        rows = ["".join("·" if step else "S" for step in one) for one in self.stepped]
        said = "agrees" if self.agrees else "DISAGREES"
        scales = "scale " + " and ".join(f"{scale:g}" for scale in dict.fromkeys(self.scales))
        apart = self.apart or 0.0
        drift = "" if not apart else ", NaN" if apart == float("inf") else f", weights {apart:.0e} apart"
        return f"{self.case:24} {self.scaler:18} {'  '.join(rows)}  {said}, {scales}{drift}"


@dataclass(frozen=True)
class Agreement:
    """All trainings of a launch; `found[case, scaler]` is one."""

    trained: dict[tuple[str, str], Trained]

    def __getitem__(self, key: tuple[str, str]) -> Trained:
        return self.trained[key]

    def of(self, scaler: str) -> list[Trained]:
        """Those in which this scaler decided."""
        return [one for one in self.trained.values() if one.scaler == scaler]

    def __str__(self) -> str:
        """A row a training: for each rank its steps, · taken and S skipped."""
        return "\n".join(map(str, self.trained.values()))


def agreement(ranks: int = 2, *scalers: str, device: str = "cpu") -> Agreement:
    """Train in `ranks` processes, in every case, with every scaler or with those named. The Inf is on the last rank.

    RankFailed: see `launch`.
    """
    answers: list[dict[str, Any]] = launch(SCRIPT, *scalers, ranks=ranks, device=device)
    found = {}
    for case, rows in answers[0].items():
        for scaler in rows:
            each = [answer[case][scaler] for answer in answers]
            apart = [one["apart"] for one in each]
            found[case, scaler] = Trained(
                case, scaler, [one["taken"] for one in each], [one["scale"] for one in each],
                None if None in apart else max(apart),
            )  # fmt: skip
    return Agreement(found)
