"""The panel of the live race, without a browser."""

from __future__ import annotations

import asyncio
import math
import re

import numpy as np
import pytest
from harness.pictures import page_pixels, page_size
from harness.turns import nothing_goes_on, started_and_paused, until

from mpkit.course.lesson_06.precision_race import ALIKE, ENDED, STALE, PrecisionRacePanel
from mpkit.course.lesson_06.precision_race_picture import LOOK, SIZE, SMOOTH, _loss_ticks, _smooth
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
    found = "tiny loss, 60 steps, against FP32. level: FP16 dynamic, BF16; stuck: FP16 without scaling."
    assert repr(panel) == found
    stuck, level = panel.picture.tooltip.split("; ")
    assert re.fullmatch(r"FP16 without scaling is stuck \((100|>99\.9|9\d\.\d) % flushed\)", stuck)
    assert level == "FP16 dynamic and BF16 are level with FP32"
    assert ALIKE in panel.words.value, "the title has the finding already"
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
        assert panel.picture.tooltip == ENDED.format("task")
        assert "the old one was stopped" in panel.words.value
        assert panel.controls["lr"].value == "0.1"
        panel.buttons.start.click()
        assert (panel.runner.state, panel.message.value, panel.old) == ("running", "", "")
        assert panel.buttons.start.button_style == ""
        panel.controls["competitors"].buttons["BF16"].value = False
        assert panel.picture.tooltip == ENDED.format("competitors")
        assert panel.buttons.start.button_style == "primary"
        panel.buttons.start.click()
        PrecisionRacePanel()
        assert panel.runner.state == "stopped", "a new panel ends the old one's race"
        await nothing_goes_on()

    asyncio.run(check())


def test_a_race_that_is_not_the_chosen_one_turns_pale(panel: PrecisionRacePanel) -> None:
    panel.run_to_end(steps=3)
    fresh = page_pixels(panel.png())
    panel.controls["lr"].value = "0.01"
    assert panel.picture.tooltip == STALE.format("learning rate")
    old = page_pixels(panel.png())
    assert old.shape == fresh.shape
    assert old[60:].min() > 140, "nothing below the title is dark"
    assert fresh[60:].min() < 60
    assert old[:40].min() < 60
    assert panel.message.value == "", "a line more would push the picture out of the window"
    assert panel.alt().startswith(STALE.format("learning rate"))
    panel.run_to_end(steps=3)
    assert not panel.old


def test_the_ticks_of_the_loss_are_round_and_several() -> None:
    for low, high in ((1.6, 2.5), (0.066, 0.2), (0.2, 2.6), (0.01, 8.0), (1e-3, 1e6)):
        ticks = _loss_ticks(math.log10(low), math.log10(high))
        assert 3 <= len(ticks) <= 9, (low, high, ticks)
        assert all(10**place == pytest.approx(float(words), rel=0.06) for place, words in ticks.items())


def test_a_tick_of_the_loss_is_the_number_that_it_says() -> None:
    """Early in a race ticks of 0.025 read 2.38, 2.35, 2.33, 2.3, 2.27."""
    for low, high in ((2.25, 2.4), (2.29, 2.31), (0.93, 1.02), (0.0301, 0.0312)):
        for place, words in _loss_ticks(math.log10(low), math.log10(high)).items():
            assert 10**place == pytest.approx(float(words), rel=1e-9)


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


def test_nobody_is_level_with_a_yardstick_that_learned_next_to_nothing(panel: PrecisionRacePanel) -> None:
    """At this rate all competitors fall by a third of a per cent in as many steps, and all have chance's accuracy."""
    panel.choose(task="classifier", lr=0.001, competitors=("FP16, no scaling",))
    panel.run_to_end(steps=40)
    assert panel.headline() == "FP32 itself has learned nothing: try another learning rate"


def test_everyone_has_a_colour_a_dash_and_a_marker_of_their_own() -> None:
    for looks in zip(*LOOK.values(), strict=True):
        assert len(set(looks)) == len(LOOK) == 7


def test_a_step_without_a_finite_loss_pulls_nobody_down() -> None:
    values = np.array([2.0, 2.0, np.nan, 2.0, np.inf, 2.0, 2.0])
    assert np.array_equal(_smooth(values), [2, 2, np.nan, 2, np.nan, 2, 2], equal_nan=True)
    rising = np.arange(20.0)
    assert _smooth(rising)[-1] == rising[-SMOOTH:].mean()
    assert _smooth(rising)[1] == 0.5
