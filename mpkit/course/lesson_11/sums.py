"""Real processes: gradients on their way into the mean over the ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mpkit.course.lesson_11.launch import launch

SCRIPT = "mpkit.course.ranks.sums"


@dataclass(frozen=True)
class Sums:
    """What was observed. Lists have one entry a rank.

    Attributes:
        reductions: of the gradients of four micro-batches, by "DDP" and "FSDP2": summed after each, and after the last.
        difference: between the two gradients, relative to their norm.
        finite: Inf in the last rank's first micro-batch, under `no_sync`: for each rank and micro-batch, whether all of
            its gradients were finite after it.
        accumulated_step: whether each rank then stepped.
        uneven_steps: under `join`, whether each rank stepped, for each batch that it had; rank r has 3 + r of them, and
            an Inf is in rank 0's second.
        same_weights: whether all ranks ended with the same weights, bit for bit.
        mean: [format, value, when divided] → the mean that came out, of ranks that all had the value. The formats are
            "FP16" and "BF16", the values "40000" and "2^-24", and it is divided "before", "√N and √N" or "after".
        fsdp2_finite: whether FSDP2's FP16 sum of 40000 on each rank is finite, "as it comes" and "not divided".
        error: of FSDP2's mean of BF16 gradients, relative, by the format of the sum, "FP32" and "BF16".
    """

    reductions: dict[str, list[int]]
    difference: dict[str, float]
    finite: list[list[bool]]
    accumulated_step: list[bool]
    uneven_steps: list[list[bool]]
    same_weights: bool
    mean: dict[tuple[str, str, str], float]
    fsdp2_finite: dict[str, bool]
    error: dict[str, float]


def sums(ranks: int = 2, device: str = "cpu") -> Sums:
    """Run the four experiments in `ranks` processes, in one launch. RankFailed: see `launch`."""
    answers: list[dict[str, Any]] = launch(SCRIPT, ranks=ranks, device=device)
    first = answers[0]
    both = {name: first["accumulation"][name] for name in ("DDP", "FSDP2")}
    late = [answer["accumulation"]["Inf in the first"] for answer in answers]
    named = [(name.split(", "), mean) for name, mean in first["division"]["mean"].items()]
    return Sums(
        reductions={name: one["sums"] for name, one in both.items()},
        difference={name: one["difference"] for name, one in both.items()},
        finite=[one["finite"] for one in late],
        accumulated_step=[one["stepped"] for one in late],
        uneven_steps=[answer["uneven"]["stepped"] for answer in answers],
        same_weights=all(answer["uneven"]["same weights"] for answer in answers),
        mean={(fmt, value, when): mean for (fmt, value, when), mean in named},
        fsdp2_finite={name: all(a["division"]["FSDP2"][name] for a in answers) for name in first["division"]["FSDP2"]},
        error=first["format"],
    )
