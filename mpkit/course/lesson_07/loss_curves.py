"""The recorded losses of ResNet-50 as curves: every precision on one axis, and where each seed ended."""

from statistics import fmean

from mpkit import Policy, StepRecord
from mpkit.course.pictures.comparison import comparison
from mpkit.course.pictures.still import StillPicture
from mpkit.course.recorded.speed import LAST, SpeedRecord
from mpkit.course.runs.outcome import Outcome, Variant


def loss_curves(record: SpeedRecord, planted: str) -> StillPicture:
    """Mean loss of each step, and each seed's end. `planted` is the arm that was made bad on purpose."""
    results = {arm: _outcome(record, arm) for arm in record.losses}
    real = max(max(record.ends(arm)) for arm in record.losses if arm != planted)
    title = f"Every precision ends below {real + 0.05:.1f} nats; with gradients flushed none of the seeds does"
    if min(record.ends(planted)) < real:
        title = "The planted run is not told from the others"
    steps = len(record.losses[planted][0])
    ends = f"mean loss of the last {LAST} steps (nats), each seed"
    figure = comparison(results, "fp32", title, ends, steps, "training loss of images never seen before (nats)")
    said = "; ".join(f"{arm} {fmean(record.ends(arm)):.2f}" for arm in record.losses)
    return StillPicture(figure, f"{title}. Mean ends in nats: {said}.")


def _outcome(record: SpeedRecord, arm: str) -> Outcome:
    steps = [
        StepRecord(number, fmean(losses), losses, 1.0, False, None, 0.0, 0.0)
        for number, losses in enumerate(zip(*record.losses[arm], strict=True))
    ]
    return Outcome(Variant(arm, Policy()), steps, tuple(record.ends(arm)))
