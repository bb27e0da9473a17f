"""How soon a run's training loss gets below a bound."""

from statistics import fmean

from mpkit.course.runs.outcome import Outcome

WINDOW = 10  # steps whose mean is compared: one step's loss is its batch's luck


def steps_to(outcome: Outcome, nats: float) -> list[int]:
    """Steps until the mean loss of the last ten is below `nats`, a seed each; all steps where it never is."""
    curves = list(zip(*(record.losses for record in outcome.records), strict=True))
    return [_first(curve, nats) for curve in curves]


def _first(curve: tuple[float, ...], nats: float) -> int:
    ends = range(WINDOW, len(curve) + 1)
    return next((end for end in ends if fmean(curve[end - WINDOW : end]) < nats), len(curve))
