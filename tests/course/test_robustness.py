"""Knobs turned both ways: what is asked of a sweep, how it is judged, stored and shown."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpkit.__main__ import main
from mpkit.course import table as lessons
from mpkit.course.recorded.machine import FOLDER
from mpkit.course.robustness import Sweep, command
from mpkit.course.robustness.sweep import SEEDS, judge
from mpkit.course.robustness.table import Table

BASE = [90.0, 91.0, 92.0, 93.0, 94.0]


def shifted(value: float) -> dict[str, list[float]]:
    """A way that loses more the larger the knob is, one that is always the reference plus noise, and a plain number."""
    noise = [0.1, -0.1, 0.2, -0.2, 0.0]
    return {
        "FP32": BASE, "loses": [one - 3 * value + wiggle for one, wiggle in zip(BASE, noise, strict=True)],
        "same": [one + wiggle for one, wiggle in zip(BASE, noise, strict=True)], "lost": [value] * 5,
    }  # fmt: skip


SWEEP = Sweep(
    "03.test", "Does it train as FP32 does?", "rate", 1.0, (0.1, 1.0, 3.0), shifted, "FP32", 1.0, "points", "high",
    {"loses": "worse", "same": "equivalent"},
)  # fmt: skip


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(command, "sweeps_of", lambda number: (SWEEP,) if number == "03" else ())
    assert main(["robustness", "03", "--out", str(tmp_path)]) == 0
    return tmp_path


def test_the_same_test_is_made_at_every_value(stored: Path) -> None:
    found = Table.load("03.test", stored)
    outcomes = {value: {way: found.cell(value, way).outcome for way in SWEEP.expected} for value in SWEEP.values}
    assert outcomes == {
        0.1: {"loses": "equivalent", "same": "equivalent"},
        1.0: {"loses": "worse", "same": "equivalent"},
        3.0: {"loses": "worse", "same": "equivalent"},
    }
    assert found.holds_for == [1.0, 3.0]


def test_the_table_names_the_lessons_value_and_shows_what_is_not_tested(stored: Path) -> None:
    text = repr(Table.load("03.test", stored)).splitlines()
    assert text[0] == (
        "Does it train as FP32 does? Difference to FP32 in points, [90 % interval] over 5 seeds; equivalent: within 1."
    )
    assert text[1].split() == ["rate", "FP32", "loses", "same", "lost"]
    assert text[3].split("  ")[0] == "1 (lesson)"
    assert "-3 [-3.2, -2.8] worse" in text[3]
    assert text[3].endswith("  1")
    assert "one process: python -m mpkit robustness 03" in text[-1]
    assert "<td style='text-align:left'>1 (lesson)</td>" in Table.load("03.test", stored)._repr_html_()


@pytest.mark.parametrize(
    ("scores", "better", "outcome"),
    [
        ([one + 5 + wiggle for one, wiggle in zip(BASE, (0.1, 0, 0, 0, -0.1), strict=True)], "high", "better"),
        ([one + 5 + wiggle for one, wiggle in zip(BASE, (0.1, 0, 0, 0, -0.1), strict=True)], "low", "worse"),
        ([90.0, 95.0, 88.0, 97.0, 92.0], "high", "undecided"),
        ([math.nan, *BASE[1:]], "high", "diverged"),
        ([math.inf, *BASE[1:]], "high", "diverged"),
    ],
)
def test_outcomes(scores: list[float], better: str, outcome: str) -> None:
    assert judge(scores, BASE, 1.0, better).outcome == outcome


def test_nothing_is_decided_where_the_reference_diverges() -> None:
    assert judge(BASE, [math.inf, *BASE[1:]], 1.0, "high").outcome == "undecided"


@pytest.mark.parametrize(
    "wrong",
    [{"better": "hihg"}, {"expected": {}}, {"expected": {"same": "equvalent"}}, {"margin": 0.0}, {"chosen": -1.0}],
)
def test_a_sweep_that_could_not_be_judged_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"sweep 03\.test: expected needs at least one way with an outcome of equivalent, w"
    ):
        replace(SWEEP, **wrong)


def test_small_scores_keep_their_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(
        SWEEP, measure=lambda value: {way: [1e-9 * s for s in some] for way, some in shifted(value).items()}
    )
    monkeypatch.setattr(command, "sweeps_of", lambda _: (replace(small, margin=1e-9),))
    command.main(["03", "--out", str(tmp_path / "new")])
    assert Table.load("03.test", tmp_path / "new").holds_for == [1.0, 3.0]


def test_a_way_that_was_not_measured_is_named() -> None:
    with pytest.raises(ValueError, match=r"sweep 03\.test: measure gave no scores of loses, same"):
        command.measured(replace(SWEEP, measure=lambda _: {"FP32": BASE}), "x")


def test_three_times_a_tenth_is_three_tenths() -> None:
    assert replace(SWEEP, chosen=0.1, values=(0.03, 0.1, 0.3)).values[-1] == 0.3


@pytest.mark.parametrize("values", [(0.5, 1.0, 3.0), (0.1, 1.0, 2.0), (0.1, 3.0)])
def test_a_knob_that_is_hardly_turned_is_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"sweep 03.test: rate is 1 in the lesson, so values from 0.333"):
        replace(SWEEP, values=values)


def test_too_few_seeds_are_refused() -> None:
    few = replace(SWEEP, measure=lambda value: {way: some[:3] for way, some in shifted(value).items()})
    with pytest.raises(ValueError, match=r"sweep 03.test: 5 seeds or more, as many for every way, are asked for"):
        command.measured(few, "x")


def test_an_unknown_sweep_says_how_to_make_it(stored: Path) -> None:
    with pytest.raises(ValueError, match=r"no stored sweep '03.other'; known of this lesson: 03.test. To make"):
        Table.load("03.other", stored)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["xx"], "there is no lesson 'xx'"),
        (["03", "--only", "other"], "lesson 03 has no such sweep; known: 03.test"),
        (["00"], "lesson 00 has no such sweep; known: none"),
    ],
)
def test_the_command_says_what_it_knows(
    argv: list[str], said: str, stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(argv)
    assert said in capsys.readouterr().err


def test_one_sweep_made_anew_leaves_the_others(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(SWEEP, key="03.other")
    monkeypatch.setattr(command, "sweeps_of", lambda _: (SWEEP, other))
    command.main(["03", "--only", "other", "--out", str(stored)])
    assert Table.load("03.test", stored).holds_for == Table.load("03.other", stored).holds_for


@pytest.mark.parametrize("number", [entry.number for entry in lessons.LESSONS if command.sweeps_of(entry.number)])
def test_what_is_stored_is_what_the_lesson_asks(number: str) -> None:
    for sweep in command.sweeps_of(number):
        found: Any = Table.load(sweep.key, FOLDER)
        said = {name: getattr(found, name) for name in command.description(sweep)}
        assert said == command.description(sweep), f"{sweep.key}: run python -m mpkit robustness {number}"
        assert tuple(found.scores) == sweep.values
        assert sweep.chosen in found.holds_for, f"{sweep.key}: not even at the lesson's own value"
        assert all(len(scores[way]) >= SEEDS for scores in found.scores.values() for way in sweep.expected)
