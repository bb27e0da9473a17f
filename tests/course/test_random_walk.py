"""Two hundred random actions on every panel, junk included: no bare exception, and nothing that grows."""

from __future__ import annotations

import asyncio
import random

import ipywidgets as widgets
import panelbench
import pytest
from harness.walk import act, controls
from ipywidgets.widgets import widget

from mpkit.course.lesson_02 import CastExplorerPanel, StallingSumPanel
from mpkit.course.panels.runner import stop_all
from mpkit.course.pictures import canvas

ACTIONS = 200
FIRST = 60  # actions after which every kind of picture was there
PANELS = [case for case in panelbench.cases("cpu") if "training" not in case.name]


async def walk(case: panelbench.PanelCase, actions: int) -> tuple[list[str], list[int]]:
    """What was done, and the process's widgets after FIRST actions and at the end. The loop turns."""
    panel, draw = case.make(), random.Random(case.name)
    done, held = [], []
    for number in range(1, actions + 1):
        try:
            done.append(act(draw.choice(list(controls(panel.box))), draw))
        except Exception as error:
            raise AssertionError(f"{case.name}: after {done[-5:]} came {error!r}") from error
        await asyncio.sleep(0)
        if number in (FIRST, actions):
            held.append(len(widget._instances))
    stop_all()
    return done, held


@pytest.mark.parametrize("case", PANELS, ids=lambda case: case.name)
def test_a_walk_at_random_meets_no_bare_exception_and_leaves_nothing(
    case: panelbench.PanelCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In strict mode an error that is not the learner's is raised again, where it would only be shown in a lesson."""
    monkeypatch.setenv("MPKIT_STRICT", "1")
    done, [few, many] = asyncio.run(walk(case, ACTIONS))
    widgets.Widget.close_all()
    assert len(set(done)) > 10
    assert many == few


def test_what_panels_keep_of_what_they_showed_has_a_limit() -> None:
    """A cast is 160 kB, and there are 360 of them; numbers that can be typed, and words with numbers, have no end."""
    kept = [CastExplorerPanel()._effect, StallingSumPanel()._totals, canvas._fitting, canvas._stencil]
    assert [one.cache_info().maxsize for one in kept] == [8, 16, 500, 500]
    assert all(one.cache_info().currsize <= one.cache_info().maxsize for one in kept)


def test_the_walk_finds_a_panel_that_breaks_and_one_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panel:
        def __init__(self) -> None:
            self.box = widgets.VBox([widgets.Text(description="number")])
            self.box.children[0].observe(self.typed, names="value")

        def typed(self, change: dict[str, str]) -> None:
            widgets.Label(change["new"])
            if change["new"] == "nan":
                raise KeyError("nan")

    case = panelbench.PanelCase("broken", Panel, lambda _: [], lambda: None)
    with pytest.raises(AssertionError, match=r"after \[.*\] came KeyError\('nan'\)"):
        asyncio.run(walk(case, ACTIONS))
    monkeypatch.setattr("harness.walk.JUNK", ("1", "2"))
    _, [few, many] = asyncio.run(walk(case, ACTIONS))
    assert many > few
    widgets.Widget.close_all()
