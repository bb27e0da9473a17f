"""The panel of the live race, without a browser."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from harness.pictures import page_size
from harness.turns import nothing_goes_on, started_and_paused, until

from mpkit.course.lesson_06.precision_race import PrecisionRacePanel
from mpkit.course.lesson_06.precision_race_picture import LOOK, SIZE, SMOOTH, _smooth
from mpkit.course.panels.panel import BadInput


@pytest.fixture
def panel(monkeypatch: pytest.MonkeyPatch) -> PrecisionRacePanel:
    monkeypatch.setenv("MPKIT_STRICT", "1")
    return PrecisionRacePanel()


def test_before_and_after_a_race(panel: PrecisionRacePanel) -> None:
    empty = panel.png()
    assert page_size(empty) == SIZE
    assert repr(panel) == "Nobody has started yet: press Start"
    assert panel.run_to_end(steps=60) is panel
    found = "tiny loss, 60 steps, against FP32. level: FP16, dynamic, BF16; stuck: FP16, no scaling."
    assert repr(panel) == found
    assert panel.picture.tooltip == "2 of 3 level with FP32; stuck: FP16, no scaling"
    assert "FP16, no scaling: loss 2.3" in panel.alt()
    assert panel.png() != empty
    assert (panel.buttons.progress.value, panel.buttons.progress.max) == (60, 60)


def test_the_buttons_and_a_change_of_settings_during_a_race(panel: PrecisionRacePanel) -> None:
    async def check() -> None:
        await started_and_paused(panel)
        panel.buttons.pause.click()
        assert (panel.runner.state, panel.buttons.pause.description) == ("running", "Pause")
        panel.controls["lr"].value = "0.01"
        assert "This learning rate is for the next race." in panel.message.value
        panel.task = "classifier"
        assert panel.runner.state == "stopped"
        assert "The race was stopped, because you changed the task." in panel.message.value
        assert panel.picture.tooltip.startswith("Stopped after ")
        assert panel.controls["lr"].value == "0.1"
        panel.buttons.start.click()
        assert (panel.runner.state, panel.message.value) == ("running", "")
        panel.controls["competitors"].buttons["BF16"].value = False
        assert "because you changed the competitors." in panel.message.value
        panel.buttons.start.click()
        PrecisionRacePanel()
        assert panel.runner.state == "stopped", "a new panel ends the old one's race"
        await nothing_goes_on()

    asyncio.run(check())


def test_an_error_in_the_training_is_shown(panel: PrecisionRacePanel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPKIT_STRICT")

    async def check() -> None:
        panel.start()
        assert panel.race is not None
        monkeypatch.setattr(panel.race, "take_turn", lambda: 1 / 0)
        await until(lambda: not panel.runner.active)
        assert panel.runner.state == "failed"
        assert "ZeroDivisionError: division by zero" in panel.message.value

    asyncio.run(check())


@pytest.mark.parametrize(
    ("lr", "words"), [("many", "is not a number that can be read"), ("-1", "A learning rate of -1 cannot be used")]
)
def test_a_learning_rate_that_cannot_be_used(panel: PrecisionRacePanel, lr: str, words: str) -> None:
    panel.controls["lr"].value = lr
    panel.start()
    assert words in panel.message.value
    assert "The race has not started." in panel.message.value
    assert isinstance(panel.last_error, BadInput)


def test_nobody_to_race_against_and_unknown_names(panel: PrecisionRacePanel) -> None:
    panel.competitors = []
    panel.start()
    assert "choose at least one competitor" in panel.message.value
    with pytest.raises(
        ValueError, match="competitors 'FP8' is not in this panel; use some of 'FP16, no scaling', 'FP16, static"
    ):
        panel.competitors = ["FP8"]
    with pytest.raises(ValueError, match="task 'x' is not in this panel; use one of 'tiny loss', 'classifier'"):
        panel.task = "x"


def test_everyone_has_a_colour_a_dash_and_a_marker_of_their_own() -> None:
    for looks in zip(*LOOK.values(), strict=True):
        assert len(set(looks)) == len(LOOK) == 7


def test_a_step_without_a_finite_loss_pulls_nobody_down() -> None:
    values = np.array([2.0, 2.0, np.nan, 2.0, np.inf, 2.0, 2.0])
    assert np.array_equal(_smooth(values), [2, 2, np.nan, 2, np.nan, 2, 2], equal_nan=True)
    rising = np.arange(20.0)
    assert _smooth(rising)[-1] == rising[-SMOOTH:].mean()
    assert _smooth(rising)[1] == 0.5
