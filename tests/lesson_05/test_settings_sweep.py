"""The sweep: thirty races as mpkit.course.lesson_05.rule_race runs them, and a title that counts those that do well."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mpkit.course import markup
from mpkit.course.lesson_05.rule_choice import RUNS
from mpkit.course.lesson_05.rule_race import Lap, race
from mpkit.course.lesson_05.settings_sweep import INITS, INTERVALS, SettingsSweepPanel
from mpkit.course.lesson_05.settings_sweep_picture import SIZE, does_well, headline
from mpkit.course.recorded.history import GradientHistory
from mpkit.scaling import DynamicScale, NoScaling


def test_the_laps_are_those_of_the_race_and_the_title_counts_them() -> None:
    panel = SettingsSweepPanel()
    panel.gradients, panel.backoff, panel.growth = "bad start", 0.25, 4.0
    history, well = GradientHistory.load("bad-start"), 0
    assert set(panel.laps) == {(init, interval) for init in INITS for interval in INTERVALS}
    for (init, interval), lap in panel.laps.items():
        mine = race(DynamicScale(init, growth_factor=4.0, backoff_factor=0.25, growth_interval=interval), history)
        assert np.array_equal(lap.scales, mine.scales)
        well += mine.skipped.mean() <= 0.01 and mine.flushed[~mine.skipped].mean() <= 0.05
    assert repr(panel).startswith(f"bad start: {well} of 30 settings do well")
    assert markup.escape(panel.picture.tooltip) in panel.words.value


def test_every_control_changes_the_picture() -> None:
    panel = SettingsSweepPanel()
    seen = {panel.png()}
    for name, value in (("backoff", 0.9), ("growth", 16.0), *(("gradients", name) for name in RUNS)):
        setattr(panel, name, value)
        assert getattr(panel, name) == value
        seen.add(panel.png())
    assert len(seen) == 2 + len(RUNS)
    assert Image.open(io.BytesIO(panel.png())).size == SIZE


def lap(lost: int, flushed: float, steps: int = 1000) -> Lap:
    skipped = np.arange(steps) < lost
    return Lap(NoScaling(), np.ones(steps), skipped, skipped, np.full(steps, flushed))


def test_the_words_by_hand() -> None:
    assert [does_well(one) for one in (lap(10, 0.04), lap(11, 0.0), lap(0, 0.06))] == [True, False, False]
    good, bad, torch = lap(0, 0.0), lap(11, 0.0), (2.0**16, 2000)
    assert headline({torch: good, (1.0, 10): bad}) == "1 of 2 settings does well, torch's own among them"
    assert headline({torch: bad, (1.0, 10): replace(good)}) == "1 of 2 settings does well"
    assert headline({torch: bad}) == "None of 1 settings do well"


def test_what_it_does_not_offer() -> None:
    panel = SettingsSweepPanel()
    with pytest.raises(ValueError, match="gradients 'x' is not in this panel; use one of 'made up: drifts'"):
        panel.gradients = "x"
    with pytest.raises(ValueError, match=r"backoff 1.5 is not in this panel; use one of 0.25, 0.5, 0.75, 0.9"):
        panel.backoff = 1.5
    with pytest.raises(ValueError, match=r"growth 0.5 is not in this panel; use one of 1.5, 2.0, 4.0, 16.0"):
        panel.growth = 0.5
