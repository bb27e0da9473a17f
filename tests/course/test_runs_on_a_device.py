"""Runs of the course go where they are sent, in what that device has; what was not measured is not counted as 0."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mpkit import NoScaling, Policy, StepRecord
from mpkit.course.lesson_05 import live_rules
from mpkit.course.lesson_05.live_rules import LiveScales
from mpkit.course.lesson_05.rule_race import Lap
from mpkit.course.lesson_05.scaler_race_words import numbers, row
from mpkit.course.lesson_06.live_race import COMPETITORS, TASKS, LiveRace
from mpkit.course.lesson_06.precision_race_picture import RaceFigure, cells
from mpkit.course.lesson_06.precision_race_words import headline
from mpkit.course.nets.models import MLP
from mpkit.course.runs import experiments
from mpkit.course.runs.experiments import READ_EVERY, Variant, start
from mpkit.course.runs.outcome import Outcome
from mpkit.course.runs.recipes import RECIPES
from mpkit.scaling import preset


@pytest.mark.parametrize(("may", "capture", "every"), [(True, "auto", READ_EVERY), (False, False, 1)])
def test_a_variant_trains_in_what_the_device_has(
    may: bool, capture: Any, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(experiments, "fit", lambda *_, **settings: asked.update(settings))
    model = MLP()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    start(Variant("a", Policy.preset("fp16-mixed")), model, None, sgd, 1, may_capture=may)  # type: ignore[arg-type]
    assert (asked["engine"], asked["capture"], asked["read_every"]) == ("auto", capture, every)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_go_to_a_device_and_are_captured_if_their_steps_are_alike(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    honest = live_rules.start

    def watched(*arguments: Any) -> Any:
        asked.append(arguments[-1])
        return honest(*arguments)

    monkeypatch.setattr(live_rules, "start", watched)
    race = LiveScales(name, {"torch": preset("torch")}, 10, "meta")
    assert asked == [name != "falling-loss"] * 2
    for run in race.runs.values():
        inputs, targets = run.data.batch(0)
        assert {t.device.type for t in (inputs, targets, *run.model.parameters())} == {"meta"}


@pytest.mark.parametrize("task", TASKS)
def test_a_race_of_precisions_goes_to_a_device(task: str) -> None:
    race = LiveRace([COMPETITORS["FP32"], COMPETITORS["BF16"]], TASKS[task], steps=2, device="meta")
    for run in race.runs.values():
        inputs, targets = run.data.batch(0)
        assert {t.device.type for t in (inputs, targets, *run.model.parameters())} == {"meta"}


def lap(*flushed: float, skipped: tuple[int, ...] = ()) -> Lap:
    lost = np.array([step in skipped for step in range(len(flushed))])
    return Lap(NoScaling(), np.full(len(flushed), 8.0), lost, lost, np.array(flushed))


def test_a_lap_averages_what_was_measured() -> None:
    nan = math.nan
    assert lap(0.5, nan, nan, 0.25).mean_flushed == 0.375
    assert lap(0.5, nan, 0.25, skipped=(0,)).mean_flushed == 0.25
    unknown = lap(0.5, nan, nan, skipped=(0,))
    assert math.isnan(unknown.mean_flushed)
    assert numbers(unknown)[:2] == ("1", "–")
    assert row("torch", unknown) == "torch: 1 step lost, – flushed, ends at 2³"


def test_a_live_lap_keeps_what_was_not_measured_apart() -> None:
    race = LiveScales("classifier", {"torch": preset("torch")}, 3)
    while race.advance():
        pass
    learner = race.learners["torch"]
    learner.records[1] = dataclasses.replace(learner.records[1], flushed=None)
    assert np.isnan(learner.lap(3).flushed).tolist() == [False, True, False]


def records(*flushed: float | None) -> list[StepRecord]:
    return [StepRecord(step, 1.0, (1.0,), 8.0, False, share, 1.0, 0.1) for step, share in enumerate(flushed)]


def race_of(outcome: Outcome, steps: int = 400) -> Any:
    outcomes = {"BF16": outcome}
    return SimpleNamespace(
        outcomes=outcomes, shown=outcomes, over=False, stopped=False, step=len(outcome.records), steps=steps,
        task=TASKS["classifier"], lr=0.1,
    )  # fmt: skip


def test_the_race_of_precisions_shows_no_share_that_nobody_measured() -> None:
    variant = COMPETITORS["BF16"]
    unknown = Outcome(variant, records(None, None))
    assert unknown.flushed is None
    assert cells(race_of(unknown), unknown)[2] == "–"
    assert headline(race_of(unknown)) == "Step 2 of 400"
    some = Outcome(variant, records(0.5, *[None] * 19, 0.7))
    assert some.flushed == pytest.approx(0.6)
    assert headline(race_of(some)) == "Step 21 of 400: BF16 has lost 60 % of its gradients"


def test_a_row_that_is_measured_now_and_then_has_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are told apart by their marks: each has some, at measured steps, also when there is one point only."""
    figure, marked = RaceFigure(), []
    frame_class = type(figure.canvas.frame())
    honest = frame_class.marks

    def watched(self: Any, ax: Any, points: Any, *how: Any, **more: Any) -> Any:
        if ax is figure.flushed:
            marked.append([tuple(point) for point in points])
        return honest(self, ax, points, *how, **more)

    monkeypatch.setattr(frame_class, "marks", watched)
    for count in (5, 210):
        shares = [0.5 if step % 20 == 0 else None for step in range(count)]
        figure.show(race_of(Outcome(COMPETITORS["BF16"], records(*shares))))
    assert marked[0] == [(0.0, 50.0)]
    assert len(marked[1]) >= 3
    assert all(step % 20 == 0 and share == 50.0 for step, share in marked[1])
