"""The panel that follows a training, fed with a training made by hand."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from harness.pictures import page_size

from mpkit import Policy, StepRecord
from mpkit.course.panels import live_comparison
from mpkit.course.panels.live_comparison import Finished, LiveComparison, Results, watch
from mpkit.course.panels.twin import Twins
from mpkit.course.pictures.page import described
from mpkit.course.runs.experiments import Outcome, Variant


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was shown, and what the stored output was replaced with."""
    shown: list[Any] = []

    monkeypatch.setattr(LiveComparison, "_ipython_display_", lambda self: shown.append(("display", self)))
    monkeypatch.setattr(live_comparison, "display", lambda what: what._ipython_display_())
    monkeypatch.setattr(Twins, "update", lambda self: shown.append(("update", self)))
    return shown


def training(names: tuple[str, ...] = ("FP32", "FP16"), steps: int = 3) -> Iterator[Results]:
    results: Results = {}
    for worse, name in enumerate(names):
        outcome = results[name] = Outcome(Variant(name, Policy()), [])
        for step in range(steps):
            loss = (1 + worse) / (step + 1)
            outcome.records.append(StepRecord(step, loss, (loss,), 1.0, False, 0.0, 1.0, 0.0))
            if step == steps - 1:
                outcome.scores = (0.5 + worse, 0.7 + worse)
            yield results


def panel(**changes: Any) -> LiveComparison:
    settings: dict[str, Any] = {
        "title": "Which is better?", "headline": lambda r: f"FP16 is worse by {r['FP16'].mean - r['FP32'].mean:.0f}",
        "reference": "FP32", "steps": 3, "runs": 2, "loss_label": "training loss", "score_label": "test error",
    }  # fmt: skip
    return LiveComparison(**{**settings, **changes})


def test_it_shows_itself_follows_and_returns_the_results(displayed: list[Any]) -> None:
    shown = panel()
    assert (shown.png(), shown.alt(), repr(shown)) == (None, "Which is better?", "Which is better?")
    results = shown.follow(training(), seconds_between_pictures=0.0)
    assert list(results) == ["FP32", "FP16"]
    assert results["FP16"].scores == (1.5, 1.7)
    assert displayed == [("display", shown), ("update", shown.twins)]
    assert shown.bar.layout.display == "none"
    png = shown.png()
    assert png is not None
    assert page_size(png) == (1040, 440)


def test_the_picture_and_the_bar_move_while_it_trains(displayed: list[Any]) -> None:
    shown, seen = panel(), []

    def watched() -> Iterator[Results]:
        for results in training():
            yield results
            seen.append((shown.progress.value, shown.state.value, shown.png(), shown.picture.tooltip))

    shown.follow(watched(), seconds_between_pictures=0.0)
    assert [value for value, *_ in seen] == [1, 2, 3, 4, 5, 6]
    assert shown.progress.max == 6
    assert [state for _, state, *_ in seen] == ["1 of 2: FP32"] * 3 + ["2 of 2: FP16"] * 3
    assert len({png for _, _, png, _ in seen}) == 6
    assert {tooltip for *_, tooltip in seen} == {"Which is better?"}
    assert shown.picture.tooltip == "FP16 is worse by 1"


def test_bar_and_axes_are_there_before_the_first_step(displayed: list[Any]) -> None:
    shown, seen = panel(), []

    def watched() -> Iterator[Results]:
        seen.append((list(displayed), shown.progress.value, shown.png(), shown.picture.tooltip))
        yield from training()

    shown.follow(watched())
    ((first, value, png, tooltip),) = seen
    assert (first, value, tooltip) == ([("display", shown)], 0, "Which is better?")
    assert png is not None
    assert png != shown.png()


def test_the_bar_moves_more_often_than_the_picture(displayed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100, 1000))
    monkeypatch.setattr(live_comparison.time, "monotonic", lambda: float(next(clock)))
    shown, moves, drawn = panel(), [], []
    shown.progress.observe(lambda change: moves.append(change["new"]), names="value")
    monkeypatch.setattr(shown, "_draw", drawn.append)
    shown.follow(training(), seconds_between_pictures=1000.0)
    assert (moves, len(drawn)) == ([1, 2, 3, 4, 5, 6], 2), "the axes, and the end"


def test_pictures_are_drawn_only_so_often(displayed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100, 1000))
    monkeypatch.setattr(live_comparison.time, "monotonic", lambda: float(next(clock)))
    drawn: list[str] = []
    shown = panel()
    monkeypatch.setattr(shown, "_draw", drawn.append)
    shown.follow(training(steps=12), seconds_between_pictures=5.5)
    assert 4 <= len(drawn) <= 7, "24 steps, the clock ticks once or twice a step"
    assert drawn == ["Which is better?"] * (len(drawn) - 1) + ["FP16 is worse by 1"]


def test_the_stored_output_is_the_finished_picture(displayed: list[Any]) -> None:
    shown = panel()
    shown.follow(training())
    data, metadata = shown._repr_mimebundle_()
    assert data["text/plain"] == "Which is better?", "the finding would make the first output differ from the last"
    png = shown.png()
    assert png is not None
    assert base64.b64decode(data["image/png"]) == described(png, shown.alt())
    assert metadata["image/png"]["alt"] == "FP16 is worse by 1. test error: FP32: 0.6 ± 0.1; FP16: 1.6 ± 0.1."


def test_with_a_margin_the_description_has_the_intervals(displayed: list[Any]) -> None:
    shown = panel(margin=0.1)
    shown.follow(training())
    assert shown.alt().endswith("test error, minus FP32's, 90 % interval, margin 0.1: FP16: +1 to +1.")


def test_a_training_that_is_stopped_leaves_the_runs_that_are_over(displayed: list[Any]) -> None:
    def broken() -> Iterator[Results]:
        for number, results in enumerate(training()):
            if number == 4:
                raise KeyboardInterrupt
            yield results

    shown = panel()
    results = shown.follow(broken(), seconds_between_pictures=0.0)
    assert list(results) == ["FP32"], "the run that was cut off is left out"
    assert shown.alt() == "Which is better?"
    assert shown.picture.tooltip == "Stopped: 1 of 2 runs finished. Run the cell again for all of them."
    assert shown.bar.layout.display == "none"
    assert displayed[-1] == ("update", shown.twins)


def test_a_training_that_is_stopped_at_once_leaves_an_empty_chart(displayed: list[Any]) -> None:
    def stopped() -> Iterator[Results]:
        for results in training():
            if results["FP32"].records:
                raise KeyboardInterrupt
            yield results

    shown = panel()
    assert shown.follow(stopped()) == {}
    assert shown.picture.tooltip == "Stopped: 0 of 2 runs finished. Run the cell again for all of them."
    assert shown.alt() == "Which is better?"


def test_a_run_that_was_stopped_says_what_to_do(displayed: list[Any]) -> None:
    results = Finished(panel().follow(training(names=("FP32",))))
    with pytest.raises(
        LookupError, match=r"there is no finished run 'FP16'; finished: FP32\. If the training was stopped"
    ):
        results["FP16"]
    assert "FP16" not in results


def test_any_other_error_is_not_hidden(displayed: list[Any]) -> None:
    def broken() -> Iterator[Results]:
        yield from training(steps=1)
        raise OSError("no more data")

    with pytest.raises(OSError, match="no more data"):
        panel().follow(broken())


def test_without_a_notebook_it_still_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_comparison, "display", lambda *_, **__: None)
    results = watch(
        training(),
        title="t",
        headline=lambda r: "f",
        reference="FP32",
        steps=3,
        runs=2,
        loss_label="l",
        score_label="s",
    )
    assert results["FP32"].mean == pytest.approx(0.6)
