"""The race itself: interleaved competitors train exactly as each would alone; the runner never leaves a task behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from harness.lesson_cells import LESSONS
from harness.turns import nothing_goes_on, until

from mpkit import LossScaler, StepRecord, fit
from mpkit.course.lesson_06.live_race import COMPETITORS, REFERENCE, TASKS, LiveRace, standings
from mpkit.course.lesson_06.precision_race_picture import RaceFigure
from mpkit.course.lesson_06.precision_race_words import cells, description, headline, line
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP, Autoencoder
from mpkit.course.panels import runner as background
from mpkit.course.panels.runner import Runner
from mpkit.course.runs.experiments import Outcome, Variant
from mpkit.policy.policy import Policy

ALL = list(COMPETITORS.values())


def alone(variant: Variant, task: str, steps: int) -> tuple[list[StepRecord], list[float]]:
    """Records and scores of one competitor, trained by `mpkit.fit` with a recipe that is written out here."""
    held = digits()
    model = Autoencoder(range(5)) if task == "autoencoder" else MLP(range(5))
    weight = 1e-6 if task == "tiny loss" else 1.0
    if task == "classifier":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    else:
        lr = 2e-3 if task == "autoencoder" else 1e-3
        optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    data = held.reconstruction() if task == "autoencoder" else held.classification()
    run = fit(
        model, data, optimizer=optimizer, steps=steps, policy=variant.policy, scaler=LossScaler(variant.rule),
        loss_fn=lambda output, target: model.loss(output, target) * weight,
    )  # fmt: skip
    records = list(run)
    if isinstance(model, Autoencoder):
        return records, model.error(held.test_images).tolist()
    return records, model.accuracy(held.test_images, held.test_labels).tolist()


@pytest.mark.parametrize("task", TASKS)
def test_each_competitor_trains_as_it_would_alone(task: str) -> None:
    race = LiveRace(ALL, TASKS[task], steps=6)
    while race.advance():
        pass
    assert race.over
    for variant in ALL:
        records, scores = alone(variant, task, 6)
        assert race.outcomes[variant.name].records == records
        assert list(race.outcomes[variant.name].scores) == scores


def test_another_learning_rate_reaches_every_optimizer() -> None:
    race = LiveRace(ALL[:2], TASKS["classifier"], lr=0.025, steps=4)
    while race.advance():
        pass
    for variant in ALL[:2]:
        model, held = MLP(range(5)), digits()
        run = fit(
            model, held.classification(), optimizer=torch.optim.SGD(model.parameters(), lr=0.025), steps=4,
            policy=variant.policy, scaler=LossScaler(variant.rule), loss_fn=model.loss,
        )  # fmt: skip
        assert race.outcomes[variant.name].records == list(run)


def test_they_take_turns() -> None:
    race = LiveRace(ALL[:3], TASKS["classifier"], steps=2)
    assert [race.take_turn() for _ in range(6)] == [True] * 5 + [False]
    race = LiveRace(ALL[:3], TASKS["classifier"], steps=3)
    race.take_turn()
    assert [len(o.records) for o in race.outcomes.values()] == [1, 0, 0]
    assert race.step == 0
    assert race.advance()
    assert [len(o.records) for o in race.outcomes.values()] == [1, 1, 1]
    assert race.step == 1


def test_a_stopped_race_keeps_what_it_has_and_a_new_one_begins_at_the_start() -> None:
    race = LiveRace(ALL[:2], TASKS["classifier"], steps=5)
    race.advance()
    race.stop()
    assert not race.advance()
    assert (race.step, race.over, race.stopped) == (1, False, True)
    assert all(o.scores == () for o in race.outcomes.values())
    again = LiveRace(ALL[:2], TASKS["classifier"], steps=5)
    again.advance()
    assert [o.records for o in again.outcomes.values()] == [o.records for o in race.outcomes.values()]


def test_a_race_that_is_stopped_within_a_round_shows_everybody_at_one_step() -> None:
    race = LiveRace(ALL[:3], TASKS["classifier"], steps=5)
    for _ in range(2 * 3 + 2):
        race.take_turn()
    race.stop()
    assert [len(o.records) for o in race.outcomes.values()] == [3, 3, 2]
    assert [len(o.records) for o in race.shown.values()] == [2, 2, 2]
    losses = [race.outcomes[name].records[1].loss for name in race.shown]
    assert [cells(race, one)[0] for one in race.shown.values()] == [f"{loss:.3g}" for loss in losses]
    words = [words for _, words, *_ in RaceFigure().show(race)._words]
    assert "after step 2" in words
    assert "Test: comes at the end of a race." in words
    assert f"FP32: loss {losses[0]:.3g}," in description(race)


def test_what_stands_behind_plus_minus_is_said_beside_it() -> None:
    race = LiveRace(ALL[:2], TASKS["autoencoder"], steps=1)
    race.advance()
    words = [words for _, words, *_ in RaceFigure().show(race)._words]
    assert words.count("±: the standard deviation of the seeds.") == 1
    assert any(one.startswith("± 0.0") for one in words)


def test_the_first_race_is_as_long_as_one_that_a_learner_starts() -> None:
    stored = json.loads((LESSONS / "06_train_mixed.ipynb").read_text(encoding="utf-8"))
    text = "".join("".join(cell["source"]) for cell in stored["cells"])
    assert "race.run_to_end()" in text
    assert f"a race that is over: {TASKS['tiny loss'].steps} steps" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"competitors": []}, "A race needs two competitors or more, but none came; add one."),
        ({"competitors": ALL[:1]}, "A race needs two competitors or more, but FP32 alone came; add one."),
        ({"competitors": [ALL[0], ALL[0]]}, "Competitors need different names, but these came: FP32, FP32."),
        ({"lr": 0.0}, "A learning rate of 0 cannot be used; use a number above 0, such as 1e-3."),
        ({"lr": float("nan")}, "A learning rate of nan cannot be used"),
        ({"steps": 0}, "A race of 0 steps has no end to look at; use 1 or more."),
    ],
)
def test_what_cannot_be_raced_says_so(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LiveRace(**{"competitors": ALL[:2], "task": TASKS["classifier"], **change})  # type: ignore[arg-type]


def test_a_race_is_judged_when_it_is_over_and_has_a_reference() -> None:
    race = LiveRace(ALL[:2], TASKS["classifier"], steps=2)
    with pytest.raises(ValueError, match=r"This race cannot be judged: it is not over\."):
        standings(race)
    race = LiveRace(ALL[1:3], TASKS["classifier"], steps=1)
    race.advance()
    with pytest.raises(ValueError, match=r"cannot be judged: FP32 is not in it\."):
        standings(race)


def rivals(
    task: str, losses: tuple[float, float], scores: tuple[float, float], apart: tuple[float, float] = (0.0, 0.0)
) -> LiveRace:
    """A race that is over of a reference whose loss goes from 1 to losses[0], and a rival's that goes to losses[1].

    `apart`: how far the rival's scores for two seeds are from its own mean, beside the reference's.
    """
    race = LiveRace([Variant(REFERENCE, Policy()), Variant("rival", Policy())], TASKS[task], steps=1)
    race.advance()
    record = race.outcomes["rival"].records[0]
    for outcome, loss, score in zip(race.outcomes.values(), losses, scores, strict=True):
        outcome.records[:] = [replace(record, loss=1.0), *[replace(record, loss=loss)] * 10]
        outcome.scores = (score - 0.002, score + 0.002)
    mine = race.outcomes["rival"]
    mine.scores = tuple(score + off for score, off in zip(mine.scores, apart, strict=True))
    return race


@pytest.mark.parametrize(
    ("task", "losses", "scores", "standing"),
    [
        ("classifier", (0.2, 0.2), (0.9, 0.891), "level"),
        ("classifier", (0.2, 0.2), (0.9, 0.889), "behind"),
        ("classifier", (0.2, 0.2), (0.9, 0.92), "ahead"),
        ("classifier", (0.2, 0.93), (0.9, 0.9), "stuck"),
        ("classifier", (0.2, 0.91), (0.9, 0.9), "level"),
        ("classifier", (0.2, float("nan")), (0.9, 0.9), "stuck"),
        ("autoencoder", (0.2, 0.2), (0.050, 0.0524), "level"),
        ("autoencoder", (0.2, 0.2), (0.050, 0.0530), "behind"),
        ("autoencoder", (0.2, 0.2), (0.050, 0.0470), "ahead"),
    ],
)
def test_who_is_level_behind_ahead_or_stuck(
    task: str, losses: tuple[float, float], scores: tuple[float, float], standing: str
) -> None:
    assert standings(rivals(task, losses, scores))["rival"] == standing


LEARNED = (0.2, 0.2)


@pytest.mark.parametrize(
    ("scores", "apart", "standing", "title"),
    [
        ((0.7, 0.95), (-0.2, 0.2), "undecided", "Undecided: the seeds differ more than the precisions"),
        ((0.7, 0.7), (-0.02, 0.02), "undecided", "Undecided: the seeds differ more than the precisions"),
        ((0.9, 0.888), (0.001, -0.001), "undecided", "Undecided: so few seeds cannot tell who is level with FP32"),
        ((0.9, 0.86), (0.001, -0.001), "behind", "rival is behind"),
    ],
)
def test_a_mean_alone_decides_nothing(
    scores: tuple[float, float], apart: tuple[float, float], standing: str, title: str
) -> None:
    """At learning rate 1 one of five seeds failed in FP32, and a mean that hung on it was called ahead."""
    race = rivals("classifier", LEARNED, scores, apart)
    assert standings(race)["rival"] == standing
    assert headline(race) == title
    assert f"{standing}: rival." in line(race)


def test_scores_that_are_not_finite() -> None:
    race = rivals("autoencoder", LEARNED, (0.05, float("nan")))
    assert standings(race)["rival"] == "stuck"
    race = rivals("autoencoder", LEARNED, (float("nan"), 0.05))
    with pytest.raises(ValueError, match="FP32 itself has learned nothing"):
        standings(race)


def test_a_long_title_counts_instead_of_naming() -> None:
    race = LiveRace(ALL, TASKS["classifier"], steps=1)
    race.advance()
    record = race.outcomes[REFERENCE].records[0]
    for outcome, score in zip(race.outcomes.values(), (0.9, 0.5, 0.6, 0.9, 0.9, 0.97, 0.98), strict=True):
        outcome.records[:] = [replace(record, loss=loss) for loss in (1.0, *[0.2] * 10)]
        outcome.scores = (score,) * 5
    assert headline(race) == "2 competitors are behind; 2 competitors are ahead; 2 competitors are level with FP32"


def test_fp16_without_scaling_goes_nowhere_with_a_tiny_loss_and_scaling_repairs_it() -> None:
    race = LiveRace(ALL[:4], TASKS["tiny loss"], steps=60)
    while race.advance():
        pass
    found = standings(race)
    assert found["FP16, no scaling"] == "stuck"
    assert found["FP16, static 2¹⁰"] == found["FP16, dynamic"] == "level"
    outcome: Outcome = race.outcomes["FP16, no scaling"]
    assert outcome.flushed > 0.99
    assert len({record.losses for record in outcome.records}) > 1  # other batches, though the weights stand still
    assert fmean(r.scale for r in race.outcomes["FP16, dynamic"].records) > 2.0**16


# ---- the runner ----


class Job:
    """Countable work: `length` units, an error at unit `fails`."""

    def __init__(self, length: int = 10**9, fails: int | None = None) -> None:
        self.done, self.length, self.fails = 0, length, fails
        self.states: list[str] = []
        self.errors: list[Exception] = []
        self.runner = Runner("Job", self.work, self.changed, self.errors.append)

    def work(self) -> bool:
        self.done += 1
        if self.done == self.fails:
            raise ZeroDivisionError("unit")
        return self.done < self.length

    def changed(self) -> None:
        self.states.append(self.runner.state)


async def settled() -> None:
    """No task but this one is left, and none of ours is remembered."""
    await nothing_goes_on()
    assert background._RUNNING == {}


def test_it_yields_pauses_resumes_and_stops_at_any_moment() -> None:
    async def check() -> None:
        threads, job = threading.active_count(), Job()
        assert job.runner.start()
        await until(lambda: job.done > 0)
        job.runner.pause()
        assert (job.runner.state, job.runner.active) == ("paused", True)
        at = job.done
        await nothing_goes_on()
        assert job.done == at
        job.runner.resume()
        await until(lambda: job.done > at)
        job.runner.pause()
        job.runner.resume()  # at once: one task goes on, the old one leaves
        await until(lambda: len(asyncio.all_tasks()) == 2)
        job.runner.stop()
        at = job.done
        await settled()
        assert (job.runner.state, job.done, job.errors) == ("stopped", at, [])
        assert threading.active_count() == threads
        job.runner.resume()
        job.runner.stop()
        assert job.runner.state == "stopped"

    asyncio.run(check())


def test_it_ends_by_itself() -> None:
    async def check() -> None:
        job = Job(length=7)
        job.runner.start()
        await settled()
        assert (job.done, job.runner.state, job.states[-1]) == (7, "done", "done")

    asyncio.run(check())


def test_an_error_is_handed_over_and_ends_the_task() -> None:
    async def check() -> None:
        job = Job(fails=3)
        job.runner.start()
        await settled()
        assert (job.done, job.runner.state, [str(error) for error in job.errors]) == (3, "failed", ["unit"])

    asyncio.run(check())


def test_a_second_runner_of_that_name_stops_the_first() -> None:
    async def check() -> None:
        first, second = Job(), Job()
        first.runner.start()
        await until(lambda: first.done > 0)
        second.runner.start()
        assert (first.runner.state, second.runner.state) == ("stopped", "running")
        await until(lambda: second.done > 0)
        assert background.stop("Job")
        assert not background.stop("Job")
        assert second.runner.state == "stopped"
        await settled()

    asyncio.run(check())


def test_it_can_be_finished_on_the_spot_while_it_runs() -> None:
    async def check() -> None:
        job = Job(length=10**6)
        job.runner.start()
        await until(lambda: job.done > 0)
        job.runner.run_to_end()
        assert (job.done, job.runner.state) == (10**6, "done")
        await settled()

    asyncio.run(check())


def test_without_a_loop_it_runs_to_its_end_and_raises() -> None:
    job = Job(length=5)
    assert not job.runner.start()
    assert job.runner.state == "idle"
    job.runner.run_to_end()
    job.runner.run_to_end()
    assert (job.done, job.runner.state) == (5, "done")
    with pytest.raises(RuntimeError, match="this runner is done and runs once; make a new one"):
        job.runner.start()
    broken = Job(fails=2)
    with pytest.raises(ZeroDivisionError, match="unit"):
        broken.runner.run_to_end()
    assert (broken.runner.state, broken.errors) == ("failed", [])


def test_a_stop_inside_the_work_is_obeyed() -> None:
    async def check() -> None:
        job = Job()
        job.runner.work = lambda: job.runner.stop() or True  # type: ignore[func-returns-value]
        job.runner.start()
        await settled()
        assert job.runner.state == "stopped"

    asyncio.run(check())


def test_an_interrupt_in_the_work_stops_it_and_not_the_loop() -> None:
    async def check() -> None:
        job = Job()

        def work() -> bool:
            job.done += 1
            if job.done == 3:
                raise KeyboardInterrupt
            return True

        job.runner.work = work
        job.runner.start()
        await settled()
        assert (job.done, job.runner.state, job.states[-1], job.errors) == (3, "stopped", "stopped", [])

    try:
        asyncio.run(check())
    except KeyboardInterrupt:
        pytest.fail("the interrupt reached the loop")


def test_the_toolbars_interrupt_between_two_slices_stops_it() -> None:
    """There the kernel ignores SIGINT; a message's own handler comes and goes around the message."""
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:

        async def check() -> None:
            job = Job()
            job.runner.start()
            await until(lambda: job.done > 0)
            os.kill(os.getpid(), signal.SIGINT)
            await until(lambda: not job.runner.active)
            await settled()
            assert (job.runner.state, job.states[-1]) == ("stopped", "stopped")
            os.kill(os.getpid(), signal.SIGINT)  # nothing runs: nothing happens
            await settled()

        asyncio.run(check())
    finally:
        signal.signal(signal.SIGINT, kept)


def test_a_change_of_state_is_told_without_a_loop_too() -> None:
    job = Job(fails=3)
    with pytest.raises(ZeroDivisionError, match="unit"):
        job.runner.run_to_end()
    assert job.states[-1] == job.runner.state == "failed"


def test_stopping_inside_changed_ends_the_work() -> None:
    done = []

    def work() -> bool:
        done.append(1)
        return len(done) < 50

    runner = Runner("Stops", work, lambda: runner.stop() if len(done) == 3 else None, print)
    runner.run_to_end()
    assert (len(done), runner.state) == (3, "stopped")


def test_resuming_without_a_loop_says_so_and_stays_paused() -> None:
    async def begin() -> Runner:
        job = Job()
        job.runner.start()
        await until(lambda: job.done > 0)
        job.runner.pause()
        return job.runner

    runner = asyncio.run(begin())
    with pytest.raises(RuntimeError, match="no running event loop"):
        runner.resume()
    assert runner.state == "paused"
    runner.stop()


def test_pausing_and_resuming_inside_changed_leaves_one_task() -> None:
    async def check() -> None:
        states = []

        def changed() -> None:
            states.append(runner.state)
            if len(states) == 1:
                runner.pause()
                runner.resume()

        runner = Runner("Once", lambda: True, changed, print)
        runner.start()
        await until(lambda: len(states) > 8)  # two tasks would have shown up by now
        assert len([task for task in asyncio.all_tasks() if task.get_name() == "mpkit Once"]) == 1
        runner.stop()

    asyncio.run(check())


def test_nobody_is_judged_by_a_reference_that_learned_nothing() -> None:
    race = LiveRace(ALL[:3], TASKS["classifier"], lr=1e6, steps=12)
    while race.advance():
        pass
    with pytest.raises(ValueError, match="FP32 itself has learned nothing"):
        standings(race)
