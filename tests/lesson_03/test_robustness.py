"""What lesson 03's sweeps count, and that their stored answers say what the lesson says."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import correlation, fmean

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


def ranks(values: Sequence[float]) -> list[float]:
    """The place of each value in the order of all, equal ones in the middle of their places."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]


def test_fourteen_runs_are_few() -> None:
    """The lesson's two rank correlations, and the interval of their difference over draws with replacement."""
    runs = [
        (fmean(ways[COUNT]), fmean(ways[WAY]), points_lost(table, value))
        for table in map(robustness_table, PICTURED.values())
        for value, ways in table.scores.items()
    ]

    def both(some: list[tuple[float, float, float]]) -> tuple[float, float]:
        count, way, lost = (ranks([run[k] for run in some]) for k in range(3))
        return correlation(count, lost), correlation(way, lost)

    assert len(runs) == 14
    near = [lost for count, _, lost in runs if 70 < count <= 90]
    assert (round(min(near), 1), round(max(near))) == (0.2, 16)
    assert [round(found, 2) for found in both(runs)] == [0.85, 0.95]
    chance = random.Random(0)
    draws = [both([chance.choice(runs) for _ in runs]) for _ in range(1000)]
    ahead = sorted(way - count for count, way in draws)
    assert abs(ahead[50]) < 0.02
    assert 0.28 < ahead[950] < 0.38


def test_the_cures_of_adam_hold_on_average_and_not_for_each_seed_of_the_smallest_rate() -> None:
    table = robustness_table("03.adam")
    worst = {
        (rate, cure): max(abs(a - b) for a, b in zip(ways[cure], ways["FP32"], strict=True))
        for rate, ways in table.scores.items()
        for cure in robustness.CURES
    }
    assert all(table.cell(rate, cure).outcome == "equivalent" for rate, cure in worst)
    assert {key: round(off, 1) for key, off in worst.items() if off > 1} == {
        (3e-5, "stochastic"): 1.3, (3e-5, "Kahan"): 1.1,
    }  # fmt: skip
    sgd = robustness_table("03.sgd").cell(0.1, "nearest")
    assert -0.25 < sgd.low < sgd.high < 0, "little, and yet not nothing"


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
