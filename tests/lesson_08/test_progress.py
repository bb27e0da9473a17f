"""Steps until a loss is reached, counted by hand."""

from __future__ import annotations

from mpkit import Policy, StepRecord
from mpkit.course.lesson_08.progress import steps_to
from mpkit.course.runs.outcome import Outcome, Variant


def outcome(*curves: list[float]) -> Outcome:
    steps = zip(*curves, strict=True)
    records = [StepRecord(k, sum(of) / len(of), of, 1.0, False, None, 0.0, 0.0) for k, of in enumerate(steps)]
    return Outcome(Variant("one", Policy()), records)


def test_the_step_is_the_last_of_the_first_ten_whose_mean_is_below() -> None:
    # 4 for ten steps, then 2: after 15 steps five of ten are 2 and the mean is 3, after 16 it is 2.8.
    falling = [4.0] * 10 + [2.0] * 10
    assert steps_to(outcome(falling, [2.0] * 20, [4.0] * 20), 3.0) == [16, 10, 20]
    assert steps_to(outcome([1.0] * 5), 3.0) == [5], "too short to tell"
