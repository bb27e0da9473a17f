"""What the rank simulator says: the finding as its title, what the switches mean, the numbers, and all in words."""

import math
from collections.abc import Iterable, Sequence

from mpkit.course.lesson_11.simulated_ranks import (
    AFTER_SUM,
    AUTO,
    CLIPPING,
    DATA,
    EARLY,
    GRAD_SCALER,
    IN_DATA,
    MAX,
    SHARDED_FIRST,
    STEPS,
    Run,
    Setup,
)
from mpkit.course.pictures.style import percent, power

# A line that screen readers say and nobody sees.
UNSEEN = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)"
_AGREES = {
    EARLY: "A loop of one's own: each rank tests before the sum. If its gradients are bad it sends zeros, and skips.",
    DATA: "Each rank tests what it holds after the sum, and asks nobody.",
    MAX: "After the sum all ranks exchange their flags: if one found Inf, all skip.",
}
_PLAIN = {
    GRAD_SCALER: "GradScaler tests what a rank holds after the sum. Plain gradients: it asks nobody.",
    AUTO: "LossScaler's default tests what a rank holds after the sum. Plain gradients: it asks nobody.",
}
_SHARDED = {
    AUTO: "LossScaler's default finds sharded weights, and asks all ranks that share them.",
    GRAD_SCALER: "GradScaler goes by the first gradient. It is a replica, so it asks nobody.",
}
_BORN = {
    IN_DATA: "Inf is born in the data: one input of rank 1.",
    AFTER_SUM: "Inf is born in a hook of rank 1, after the sum.",
    CLIPPING: "Each rank multiplies the mean by a limit ÷ its own loss, at most 1. Rank 1's batch is empty: 0/0.",
}
_SHARD = "Half of the weights are sharded. Inf is born after the sum, in the part of it that rank 1 alone holds."
_FIRST_SHARD = "GradScaler goes by the first gradient. It is sharded, so it asks all ranks."
_DIVIDED = {"before": "before the sum", "√N": "by √N before and after", "after": "after the sum"}
_LABELS = {EARLY: "Tested before the sum", DATA: "Through the data", GRAD_SCALER: "GradScaler",
           AUTO: "LossScaler, auto", MAX: "MAX of the flag"}  # fmt: skip

NO_MEAN = "no finite mean"


def headline(run: Run) -> str:
    """The finding: who skips alone, what is lost, and how far the weights are apart in the end."""
    return f"{_LABELS[run.setup.agreement]}: {_finding(run)}"


def _finding(run: Run) -> str:
    ranks, apart = run.setup.ranks, float(run.distance[-1])
    if run.spoiled.any():
        lost = run.spoiled.any(0).nonzero().flatten().tolist()
        who = "all ranks step" if len(lost) == ranks else f"{_named(lost)} step{'s' * (len(lost) == 1)}"
        everyones = len(lost) == ranks or run.setup.sharded  # what its owner stepped goes to all ranks
        whose = "the" if everyones else "its" if len(lost) == 1 else "their"
        return f"{who} with Inf or NaN in the gradients, and {whose} weights are lost"
    drift = f"weights drift {share(apart)} apart"
    if len(run.torn):
        alone = run.skipped[run.torn].any(0).nonzero().flatten().tolist()
        if len(alone) == 1:
            return f"rank {alone[0]} alone skips {_steps(len(run.torn))}, and the {ranks} ranks' {drift}"
        return f"at {_steps(len(run.torn))} some ranks skip and others do not, and {drift}"
    everyone, over = "both ranks" if ranks == 2 else f"all {ranks} ranks", int(run.overflowed.sum())
    skip = f"{everyone} skip the same {_steps(int(run.skipped.any(1).sum()))}"
    why = f", {over} as the {run.setup.reduce} sum overflows" if over else ""
    return f"{skip}{why}, and their {f'{drift} all the same' if apart else 'weights stay equal'}"


def about(setup: Setup) -> tuple[str, str]:
    """Two lines below the title: how the ranks decide, and where the Inf comes from."""
    if setup.agreement in _AGREES:
        decides = _AGREES[setup.agreement]
    elif not setup.sharded:
        decides = _PLAIN[setup.agreement]
    elif setup.agreement == GRAD_SCALER and setup.born == SHARDED_FIRST:
        decides = _FIRST_SHARD
    else:
        decides = _SHARDED[setup.agreement]
    return decides, _BORN.get(setup.born, _SHARD)


def how_the_mean_is_made(setup: Setup) -> str:
    """Above the table: when it is divided, and the format of the sum."""
    return f"mean: divided {_DIVIDED[setup.divide]}, {setup.reduce}"


def numbers(run: Run) -> Sequence[tuple[str, str]]:
    """The table below the ranks: what it is, and how much."""
    return (
        ("ranks disagree at", _steps(len(run.torn))),
        ("weights apart at the end", share(float(run.distance[-1]))),
        ("the sum itself overflows at", _steps(int(run.overflowed.sum()))),
        ("flushed to 0 in the mean", _flushed(run.flushed)),
        ("error of the mean", _off(run.error)),
    )


def by_rank(run: Run) -> Sequence[tuple[str, str]]:
    """For each rank how many steps it skipped, and its loss scale at the end."""
    skips = run.skipped.sum(0).tolist()
    return [
        (str(skip), power(int(math.log2(scale)))) for skip, scale in zip(skips, run.scales[-1].tolist(), strict=True)
    ]


def share(distance: float) -> str:
    """A distance relative to the weights' length, which may be above 1 or Inf."""
    if not math.isfinite(distance):
        return "not a number"
    return percent(distance) if distance < 0.995 else f"{distance:.0%}"


def _flushed(share: float) -> str:
    if math.isnan(share):
        return NO_MEAN
    return f"{share:.1%}" if 0.0995 <= share < 0.995 else percent(share)  # one decimal, for what differs by one


def _off(error: float) -> str:
    if math.isnan(error):
        return NO_MEAN
    return f"{100 * error:.2g}%" if error >= 1e-5 else "<0.001%"


def describe(run: Run) -> str:
    """Finding, settings and numbers in words."""
    setup = run.setup
    ranks = "; ".join(f"rank {rank} skips {skip} of {STEPS}, scale {scale}" for rank, (skip, scale) in
                      enumerate(by_rank(run)))  # fmt: skip
    torn = f" (step {', '.join(str(step + 1) for step in run.torn[:4].tolist())})" if len(run.torn) else ""
    said = "; ".join(f"{what} {value}" for what, value in numbers(run)).replace(" steps", f" steps{torn}", 1)
    how = f"{setup.ranks} ranks, divided {_DIVIDED[setup.divide]}, summed in {setup.reduce}"
    return f"{headline(run)}. {' '.join(about(setup))} {how}. {ranks}; {said}."


def _named(ranks: Iterable[int]) -> str:
    names = [str(rank) for rank in ranks]
    return f"rank {names[0]}" if len(names) == 1 else f"ranks {', '.join(names[:-1])} and {names[-1]}"


def _steps(count: int) -> str:
    return f"{count} step{'s' * (count != 1)}"
