"""The sweep: thirty races as mpkit.course.lesson_05.rule_race runs them, and a title that counts those that do well."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from harness.colours import XYZ, linear
from harness.pictures import page_size
from harness.turns import nothing_goes_on, until

from mpkit.course import markup
from mpkit.course.lesson_05 import settings_sweep
from mpkit.course.lesson_05.rule_choice import RUNS
from mpkit.course.lesson_05.rule_race import Lap, race
from mpkit.course.lesson_05.scaler_race_words import LONGEST
from mpkit.course.lesson_05.settings_sweep import INITS, INTERVALS, PAIRS, SettingsSweepPanel, Sweep
from mpkit.course.lesson_05.settings_sweep_picture import SHADES, SIZE, does_well, headline, shade
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
    assert page_size(panel.png()) == SIZE


def lap(lost: int, flushed: float, steps: int = 1000) -> Lap:
    skipped = np.arange(steps) < lost
    return Lap(NoScaling(), np.ones(steps), skipped, skipped, np.full(steps, flushed))


def test_the_words_by_hand() -> None:
    assert [does_well(one) for one in (lap(10, 0.04), lap(11, 0.0), lap(0, 0.06))] == [True, False, False]
    good, bad, torch = lap(0, 0.0), lap(11, 0.0), (2.0**16, 2000)
    assert headline({torch: good}) == "1 of 1 settings does well, torch's own among them"
    assert headline({torch: good, (1.0, 10): bad}) == (
        "1 of 2 settings does well, torch's own among them. Failed: 1 by lost steps"
    )
    assert headline({torch: bad, (1.0, 10): replace(good)}) == "1 of 2 settings does well. Failed: 1 by lost steps"
    assert headline({torch: lap(11, 0.06), (1.0, 10): lap(0, 0.06), (1.0, 50): bad}) == (
        "None of 3 settings do well. Failed: 1 by lost steps, 1 by flushing, 1 by both"
    )


def test_limits_of_doing_well_can_be_turned() -> None:
    assert does_well(lap(30, 0.0), lost=0.03)
    assert not does_well(lap(0, 0.02), flushed=0.017)


def test_torchs_own_is_named_only_where_the_factors_are_its_own() -> None:
    """At growth × 16 a setting was still called torch's own."""
    panel, own = SettingsSweepPanel(), "torch's own among them"
    notes = [words for _, words, *_ in panel.draw()._words]
    assert own in panel.headline()
    assert any(words.endswith("Thick frame: torch's own setting.") for words in notes)
    for name, value in (("growth", 16.0), ("backoff", 0.9)):
        panel = SettingsSweepPanel(**{name: value})
        notes = [words for _, words, *_ in panel.draw()._words]
        assert own not in panel.headline()
        assert any(words.endswith("Thick frame: torch's initial scale and interval.") for words in notes)


def test_no_title_is_wider_than_the_picture() -> None:
    panel = SettingsSweepPanel()
    for name in RUNS:
        panel.gradients = name
        assert len(panel.headline()) <= LONGEST, panel.headline()


def test_darker_is_better_in_the_heat_maps() -> None:
    def light(color: object) -> float:
        return float(XYZ[1] @ linear(color))  # type: ignore[arg-type]

    shares = [0.0, 0.001, 0.004, 0.01, 0.02, 0.04, 0.5, 1.0]
    shown = [light(shade(share, limit=0.01)) for share in shares]
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (min(map(light, SHADES)), max(map(light, SHADES)))


def test_what_it_does_not_offer() -> None:
    panel = SettingsSweepPanel()
    with pytest.raises(ValueError, match="gradients 'x' is not in this panel; use one of 'made up: drifts'"):
        panel.gradients = "x"
    with pytest.raises(ValueError, match=r"backoff 1.5 is not in this panel; use one of 0.25, 0.5, 0.75, 0.9"):
        panel.backoff = 1.5
    with pytest.raises(ValueError, match=r"growth 0.5 is not in this panel; use one of 1.5, 2.0, 4.0, 16.0"):
        panel.growth = 0.5


# ---- a picture before the end ----


def told(panel: SettingsSweepPanel) -> list[str]:
    """What the panel shows from now on, as it comes: its counts, and the titles of its pictures."""
    out: list[str] = []
    panel.count.observe(lambda change: out.append(change["new"]), names="value")
    panel.picture.observe(lambda change: out.append(change["new"]), names="tooltip")
    return out


def test_an_empty_grid_comes_first_and_the_whole_one_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_sweep, "AT_ONCE", 0.0)
    panel = SettingsSweepPanel()

    async def check() -> None:
        seen = told(panel)
        panel.gradients = "falling loss"
        assert seen == ["0 of 30 settings", "0 of 30 settings are raced, the others follow"]
        assert (panel.bar.value, panel.bar.max, panel.sweep.about) == (0, PAIRS, ""), "nothing was read or raced"
        assert "falling loss: 0 of 30 settings are raced, the others follow" in panel.words.value
        empty = bytes(panel.picture.value)
        await until(lambda: panel.sweep.over)
        await nothing_goes_on()
        assert (panel.bar.value, seen[-1]) == (PAIRS, panel.headline())
        assert bytes(panel.picture.value) == SettingsSweepPanel(gradients="falling loss").png() != empty

    asyncio.run(check())


def test_a_sweep_that_is_ready_at_once_shows_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = SettingsSweepPanel()
    monkeypatch.setattr(settings_sweep, "AT_ONCE", 1e9)

    async def check() -> None:
        seen = told(panel)
        panel.growth = 4.0
        assert seen == [panel.headline()], "one picture, and the bar stays full"
        assert panel.sweep.over

    asyncio.run(check())


def test_a_control_ends_the_sweep_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_sweep, "AT_ONCE", 0.0)
    panel = SettingsSweepPanel()

    async def check() -> None:
        panel.backoff = 0.25
        first, runner = panel.sweep, panel.runner
        panel.backoff = 0.75
        raced = len(first.laps)
        assert (runner.state, panel.runner.state) == ("stopped", "running")
        monkeypatch.setattr(settings_sweep, "AT_ONCE", 1e9)
        runner = panel.runner
        panel.backoff = 0.9
        assert (runner.state, panel.runner.state) == ("stopped", "idle"), "one that is ready at once ends it too"
        await nothing_goes_on()
        assert (len(first.laps), panel.sweep.over) == (raced, True)
        assert {lap.rule.backoff_factor for lap in panel.laps.values()} == {0.9}

    asyncio.run(check())


@pytest.mark.parametrize("ask", ["laps", "png", "summary", "alt"])
def test_what_code_asks_for_is_of_the_whole_sweep(ask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_sweep, "AT_ONCE", 0.0)
    panel = SettingsSweepPanel()

    async def check() -> None:
        panel.growth = 4.0
        assert not panel.sweep.over
        asked = getattr(panel, ask)
        whole = SettingsSweepPanel(growth=4.0)
        if ask == "laps":
            assert len(asked) == PAIRS
        else:
            assert asked() == getattr(whole, ask)()
        assert panel.picture.value == whole.picture.value

    asyncio.run(check())


def test_an_error_in_a_race_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPKIT_STRICT", raising=False)
    monkeypatch.setattr(settings_sweep, "AT_ONCE", 0.0)
    panel = SettingsSweepPanel()

    async def check() -> None:
        panel.growth = 4.0
        monkeypatch.setattr(Sweep, "take_turn", lambda sweep: 1 / 0)
        await until(lambda: panel.runner.state == "failed")
        assert "ZeroDivisionError: division by zero" in panel.message.value

    asyncio.run(check())
