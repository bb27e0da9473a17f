"""A panel's picture depends on its settings alone: not on what it showed before, and not on which panel draws it."""

from __future__ import annotations

import panelbench
import pytest

from mpkit.course.panels.live_panel import LivePanel
from mpkit.course.panels.picture_panel import PicturePanel

EVERY = 10  # a new panel takes several times as long as a move
CASES = panelbench.cases("cpu")
TRAINING = [case for case in CASES if "training" in case.name]
# Not the panels without a picture of this kind, nor the race that draws only when it trains.
OTHERS = ("lesson 00, first look", "lesson 01, bit explorer", "lesson 06, precision race")
PANELS = [case for case in CASES if case not in TRAINING and case.name not in OTHERS]


def settings(panel: PicturePanel) -> dict[str, object]:
    return {name: getattr(panel, name) for name in panel.controls}


@pytest.mark.parametrize("case", PANELS, ids=lambda case: case.name)
def test_the_same_settings_are_the_same_picture(case: panelbench.PanelCase, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = case.make()
    seen = {str(settings(panel)): panel.png()}
    for number, (name, move) in enumerate(case.changes(panel)):
        move()
        assert seen.setdefault(str(settings(panel)), panel.png()) == panel.png(), f"{name}: another way led here before"
        if number % EVERY == 0:
            with monkeypatch.context() as patch:
                patch.setattr(PicturePanel, "show", lambda _: None)  # so that its first picture is this one
                fresh = case.make()
            fresh.choose(**settings(panel))
            assert fresh.png() == panel.png(), f"{name}: a new panel draws it otherwise"
            assert (fresh.alt(), fresh.words.value) == (panel.alt(), panel.words.value)
    assert len(set(seen.values())) > 1


@pytest.mark.parametrize("case", TRAINING, ids=lambda case: case.name)
def test_a_race_is_drawn_as_by_a_new_panel(case: panelbench.PanelCase, monkeypatch: pytest.MonkeyPatch) -> None:
    panel: LivePanel = case.make().run_to_end(steps=12)
    with monkeypatch.context() as patch:
        patch.setattr(PicturePanel, "show", lambda _: None)
        fresh = case.make()
    fresh.race = panel.race
    fresh.began()
    fresh.show()
    assert fresh.png() == panel.png()
