"""The words of every panel's picture: none is cut at an edge, and no two lie on each other."""

from __future__ import annotations

import panelbench
import pytest
from harness.drawn import PANELS, all_boxes, boxes, cut
from matplotlib.figure import Figure

from mpkit import E4M3
from mpkit.course.lesson_03 import NumberLinePanel
from mpkit.course.lesson_05 import ScalerRacePanel
from mpkit.course.pictures.canvas import Canvas, Frame
from mpkit.course.pictures.still import to_png
from mpkit.course.pictures.words_fit import smeared


def wrong(frame: Frame) -> list[str]:
    """Complaints: words that reach out of the picture, pairs of which one hides a part of the other."""
    found = all_boxes(frame)
    return cut(found, frame._canvas.size) + smeared(found)


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
    panel = ScalerRacePanel(rules=("LogMax", "popart", "article, scaled"))
    for gradients in ("classifier", "autoencoder", "bad start", "falling loss"):
        panel.choose(gradients=gradients, log2_init=40)
        assert wrong(panel.draw()) == [], gradients
    live = ScalerRacePanel("bad start", ("torch", "LogMax", "megatron", "article", "article, scaled"))
    assert wrong(live.run_to_end(steps=40).draw()) == []


def test_that_check_sees_words_on_a_label_and_at_an_edge() -> None:
    canvas = Canvas((300, 200), density=2)
    canvas.figure.add_axes((0.3, 0.3, 0.6, 0.6), xlim=(0, 1), ylim=(0, 1)).set_ylabel("how many")
    canvas.freeze()
    frame = canvas.frame()
    assert wrong(frame) == []
    frame.text((30, 60), "on the axis's name")
    frame.text((20, 180), "beyond", anchor="rt")
    assert [words.split(": ")[1].split(" /")[0] for words in wrong(frame)] == ["beyond", "on the axis's name"]


def test_strict_refuses_words_that_lie_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = Figure(figsize=(3, 2), dpi=100)
    axes = figure.add_axes((0.3, 0.3, 0.6, 0.6))
    axes.set_yticks([0, 0.5, 1, 1.05])
    axes.set_ylim(0, 1)  # the last one is not drawn
    monkeypatch.setenv("MPKIT_STRICT", "1")
    to_png(figure)
    axes.set_yticks([0.50, 0.52, 1], ["0.50", "0.52", "1"])
    with pytest.raises(ValueError, match=r"words lie on each other: still \d+: 0\.50 / still \d+: 0\.52\."):
        to_png(figure)
    monkeypatch.delenv("MPKIT_STRICT")
    to_png(figure)
