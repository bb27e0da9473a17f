"""The panel that trains, with a race that only counts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from harness.turns import nothing_goes_on, started_and_paused, until

from mpkit.course.panels import live_panel
from mpkit.course.panels.controls import slider
from mpkit.course.panels.live_panel import LivePanel
from mpkit.course.panels.panel import BadInput
from mpkit.course.panels.run_buttons import IDLE
from mpkit.course.panels.setting import Setting


class Count:
    """A race of one."""

    def __init__(self, steps: int) -> None:
        if steps > 10**6:
            raise ValueError("Too long; use less.")
        self.step, self.steps, self.stopped = 0, steps, False

    def take_turn(self) -> bool:
        self.step += 1
        return self.step < self.steps

    def stop(self) -> None:
        self.stopped = True


class Frame:
    def png(self) -> bytes:
        return b"\x89PNG"


class Counting(LivePanel[Count]):
    """Counts; a move of the slider ends that."""

    by = Setting((0, 1, 2, 3), slider("by", 100, 50), 1, doc="How much.")
    rows, drawn_by, what = (("by",),), list, "count"

    def look(self) -> None:
        if self.by == 3:
            raise BadInput("Not by 3.")
        self.end_race()

    def new_race(self, steps: int | None) -> Count:
        if self.by == 0:
            raise BadInput("Nothing to count.")
        return Count(10**6 if steps is None else steps)

    def draw(self) -> Frame:
        self.figure.append(self.race.step if self.race else None)
        return Frame()

    def headline(self) -> str:
        return f"At {self.race.step}" if self.race else "Nothing"

    def summary(self) -> str:
        return self.headline()


@pytest.fixture
def panel(monkeypatch: pytest.MonkeyPatch) -> Counting:
    monkeypatch.setenv("MPKIT_STRICT", "1")
    return Counting()


def test_it_runs_to_its_end_without_a_front_end(panel: Counting) -> None:
    assert (panel.race, repr(panel), panel.buttons.stop.disabled) == (None, "Nothing", True)
    assert panel.run_to_end(steps=5) is panel
    assert (panel.runner.state, repr(panel), panel.buttons.count.value) == ("done", "At 5", "5 of 5 steps")
    assert panel.figure[-1] == 5, "the last picture is that of the end"


def test_the_buttons(panel: Counting) -> None:
    async def check() -> None:
        await started_and_paused(panel)
        step = panel.race.step
        await nothing_goes_on()
        assert panel.race.step == step > 0
        panel.buttons.pause.click()
        await until(lambda: panel.race and panel.race.step > step)
        panel.buttons.stop.click()
        assert (panel.race.stopped, panel.buttons.stop.disabled) == (True, True)
        assert panel.picture.tooltip == f"At {panel.race.step}"

    asyncio.run(check())


def test_a_button_that_does_nothing_now_says_why(panel: Counting) -> None:
    buttons = panel.buttons
    assert (buttons.pause.tooltip, buttons.stop.tooltip) == (IDLE, IDLE)

    async def check() -> None:
        await started_and_paused(panel)
        assert (buttons.pause.tooltip, buttons.stop.tooltip, buttons.pause.disabled) == (None, None, False)
        panel.stop()
        assert buttons.stop.tooltip == IDLE

    asyncio.run(check())


def test_a_press_is_answered_before_the_first_step(panel: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the words beside the bar, then the race that takes long to make, its empty picture, and then its work."""
    told: list[str] = []
    make, turn = panel.new_race, Count.take_turn
    monkeypatch.setattr(panel, "new_race", lambda steps: told.append("made") or make(steps))
    monkeypatch.setattr(Count, "take_turn", lambda race: told.append("step") or turn(race))
    panel.buttons.count.observe(lambda change: told.append(change["new"]), names="value")
    panel.picture.observe(lambda change: told.append("picture"), names="tooltip")

    async def check() -> None:
        panel.start()
        assert told == ["getting ready …", "made", "picture", "0 of 1000000 steps"]
        assert panel.picture.tooltip == "At 0"
        await until(lambda: "step" in told)
        panel.stop()

    asyncio.run(check())


def test_a_press_that_leads_to_nothing_leaves_the_bar_as_it_was(panel: Counting) -> None:
    panel.by = 0
    panel.start()
    assert (panel.buttons.count.value, panel.buttons.progress.value) == ("", 0)
    panel.by = 1
    panel.run_to_end(5)
    panel.controls["by"].unobserve_all()
    panel.by = 0
    panel.start()
    assert (panel.buttons.count.value, panel.buttons.progress.value) == ("5 of 5 steps", 5)


def test_a_move_of_a_control_ends_the_race_and_shows_none(panel: Counting) -> None:
    async def check() -> None:
        panel.start()
        race = panel.race
        await until(lambda: race and race.step)
        panel.by = 2
        assert race is not None
        assert (race.stopped, panel.race, panel.runner.state, repr(panel)) == (True, None, "stopped", "Nothing")
        assert (panel.buttons.count.value, panel.buttons.progress.value) == ("", 0)
        drawn = len(panel.figure)
        await nothing_goes_on()
        assert len(panel.figure) == drawn, "a race that was ended draws no more"

    asyncio.run(check())


def test_a_setting_that_cannot_be_used_leaves_the_race_alone(panel: Counting) -> None:
    async def check() -> None:
        panel.start()
        race = panel.race
        panel.by = 3
        assert "Not by 3." in panel.message.value
        assert (panel.race, panel.runner.state) == (race, "running")
        panel.stop()

    asyncio.run(check())


def test_pictures_are_drawn_only_so_often(panel: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(live_panel.time, "monotonic", lambda: now[0])
    panel._prepare(50)
    panel.figure.clear()
    panel.runner.state = "running"
    for _ in range(10):
        now[0] += live_panel.BETWEEN_PICTURES / 4 + 1e-6
        panel._changed()
    assert len(panel.figure) == 3, "the first, and then each fourth"
    panel.runner.state = "paused"
    panel._changed()
    assert len(panel.figure) == 4, "a change of state at once"
    panel.runner.state = "idle"


def test_a_race_that_cannot_be_made(panel: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    panel.by = 0
    panel.start()
    assert "Nothing to count." in panel.message.value
    assert "not started" not in panel.message.value
    panel.by = 1
    with pytest.raises(BadInput, match=r"Too long; use less\. The count has not started\."):
        panel.run_to_end(10**7)
    assert panel.race is None


def test_an_error_in_the_race_is_shown(panel: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPKIT_STRICT")

    async def check() -> None:
        panel.start()
        monkeypatch.setattr(panel.race, "take_turn", lambda: 1 / 0)
        await until(lambda: not panel.runner.active)
        assert panel.runner.state == "failed"
        assert "ZeroDivisionError: division by zero" in panel.message.value
        assert panel.buttons.stop.disabled

    asyncio.run(check())


def test_began_is_told_of_the_new_race_before_it_is_drawn(panel: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    panel.run_to_end(2)
    old = panel.race
    monkeypatch.setattr(panel, "began", lambda: told.append((panel.race, len(panel.figure))))
    drawn = len(panel.figure)
    panel.run_to_end(3)
    assert told == [(panel.race, drawn)]
    assert panel.race is not old
