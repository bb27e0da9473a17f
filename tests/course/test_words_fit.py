"""The words of every panel's picture: none is cut at an edge, and no two lie on each other."""

from __future__ import annotations

from itertools import combinations

import panelbench
import pytest
from harness.drawn import PANELS, boxes

from mpkit import E4M3
from mpkit.course.lesson_03 import NumberLinePanel
from mpkit.course.lesson_05 import ScalerRacePanel
from mpkit.course.pictures.canvas import Frame


def wrong(frame: Frame) -> list[str]:
    """Complaints: words that reach out of the picture, pairs of which one hides a part of the other."""
    width, height = frame._canvas.size
    found = boxes(frame)
    out = [words for words, box in found.items() if min(box[:2]) < 0 or box[2] > width or box[3] > height]
    return out + [
        f"{one} / {other}"
        for (one, a), (other, b) in combinations(found.items(), 2)
        if min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1]) + 1
    ]


@pytest.mark.parametrize("case", PANELS, ids=lambda case: case.name)
def test_words_fit_whatever_is_chosen(case: panelbench.PanelCase) -> None:
    panel = case.make()
    assert wrong(panel.draw()) == []
    for name, move in case.changes(panel):
        move()
        assert wrong(panel.draw()) == [], name


def test_a_long_update_is_named_left_of_its_tip() -> None:
    panel = NumberLinePanel()
    panel.choose(format=E4M3, weight=0.001, update=1.25 * 2.0)
    frame = panel.draw()
    number, (_, words, _, size, *_) = next(one for one in enumerate(frame._words) if one[1][1].startswith("update 2.5"))
    assert words == "update 2.5: 1280 spacings"
    assert size == 13, "it did not have to shrink"
    assert boxes(frame)[f"{number}: {words}"][2] < 880, "it ends where the arrow does"


def test_shares_and_scales_stand_side_by_side() -> None:
    panel = ScalerRacePanel(rules=("LogMax", "popart", "article, scaled norm"))
    for gradients in ("classifier", "autoencoder", "bad start", "falling loss"):
        panel.choose(gradients=gradients, log2_init=40)
        assert wrong(panel.draw()) == [], gradients
    live = ScalerRacePanel("bad start", ("torch", "LogMax", "megatron", "article", "article, scaled norm"))
    assert wrong(live.run_to_end(steps=40).draw()) == []
