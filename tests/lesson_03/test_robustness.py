"""What lesson 03's sweeps count, and that their stored answers say what the lesson says."""

from __future__ import annotations

import math

import pytest
import torch

from mpkit import BF16, Policy
from mpkit.course.lesson_03 import robustness, robustness_table, way_picture
from mpkit.course.lesson_03.robustness import COUNT, WAY
from mpkit.course.lesson_03.way_picture import points_lost
from mpkit.course.nets.models import MLP
from mpkit.course.runs.experiments import Variant, compare
from mpkit.optim import Rounded

PICTURED = {"Adam": "03.adam", "SGD": "03.sgd", "SGD, momentum 0.9": "03.momentum"}


def adam(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-4)  # type: ignore[arg-type]


def test_the_plain_loop_of_nearest_does_what_the_wrapper_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "SEEDS", range(2))
    found = robustness.nearest(adam, steps=30)
    run = compare(
        [Variant("nearest", Policy(), wrap=lambda optimizer: Rounded(optimizer, BF16))], lambda: MLP(range(2)),
        robustness.images().classification(), lambda net: adam(net.parameters()), 30, robustness.points,
        measure_flushed=False,
    )["nearest"]  # fmt: skip
    assert found["nearest"] == list(run.scores)
    assert math.isclose(sum(found[COUNT]) / 200, run.lost or 0, rel_tol=0.01), "there pooled, here a seed each"
    assert all(0 < way < count for way, count in zip(found[WAY], found[COUNT], strict=True)), (
        "small ones are lost first"
    )


def test_a_master_copy_loses_nothing_and_nearest_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "SEEDS", range(2))
    scores = robustness.keepers(adam, steps=100, cures=["FP32 master"])
    assert all(abs(a - b) < 1 for a, b in zip(scores["FP32"], scores["FP32 master"], strict=True))
    assert all(a - b > 5 for a, b in zip(scores["FP32"], scores["nearest"], strict=True))


def test_the_way_tells_what_the_count_does_not() -> None:
    """At one count little and much is lost; below a third of the way nobody loses a point, above two thirds all ten."""
    tables = [robustness_table(key) for key in PICTURED.values()]
    rows = [
        (sum(ways[COUNT]) / len(ways[COUNT]), sum(ways[WAY]) / len(ways[WAY]), points_lost(table, value))
        for table in tables
        for value, ways in table.scores.items()
    ]
    assert max(count for count, _, lost in rows if lost < 1) > min(count for count, _, lost in rows if lost > 2)
    assert max(lost for _, way, lost in rows if way < 33) < 1
    assert min(lost for _, way, lost in rows if way > 67) > 10


def test_the_picture_says_every_mark_in_words() -> None:
    picture = way_picture({name: robustness_table(key) for name, key in PICTURED.items()}, "A finding")
    assert picture.alt.startswith(
        "A finding. Lost at each learning rate: Adam 3e-05: 97 % of the updates, 97 % of the way"
    )
    assert picture.alt.count("points") == sum(len(robustness_table(key).scores) for key in PICTURED.values())
    for axes in picture.figure.axes:
        marks = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        assert [line.get_label() for line in marks] == list(PICTURED)
        assert len({line.get_marker() for line in marks}) == len({line.get_color() for line in marks}) == 3
    assert picture.png().startswith(b"\x89PNG")
