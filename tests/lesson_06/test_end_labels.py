"""Names at the ends of a race's curves: in the groups of its title, in free space, or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mpkit.course.lesson_06.end_labels import CLEAR, SIZE, Label, groups, labels
from mpkit.course.lesson_06.live_race import COMPETITORS, REFERENCE, TASKS, LiveRace, standings
from mpkit.course.lesson_06.precision_race_picture import RaceFigure
from mpkit.course.pictures.canvas import font

ROOM = (0.0, 150.0)


def curve(*heights: float) -> np.ndarray:
    """Pixels from 0 to 500 through these heights."""
    x = np.linspace(0, 500, 101)
    return np.column_stack([x, np.interp(x, np.linspace(0, 500, len(heights)), heights)])


def box(label: Label) -> tuple[float, float, float, float]:
    """Left, top, right, bottom."""
    (right, y), width = label.place, font(SIZE, bold=True).getlength(label.words)
    return right - width, y - SIZE / 2, right, y + SIZE / 2


def free(label: Label, curves: dict[str, np.ndarray]) -> bool:
    """No curve comes within four pixels of the words."""
    left, top, right, bottom = box(label)
    x = np.linspace(left, right, 300)
    heights = [np.interp(x, one[:, 0], one[:, 1]) for one in curves.values()]
    return all(((y < top - CLEAR + 1) | (y > bottom + CLEAR - 1)).all() for y in heights)


def test_only_neighbours_of_one_kind_stand_together() -> None:
    ends = {"a": 100.0, "b": 104.0, "c": 101.0, "d": 140.0}
    assert groups(ends, dict.fromkeys(ends, "level")) == [["a", "b", "c"], ["d"]]
    assert groups(ends, {**dict.fromkeys(ends, "level"), "a": "behind"}) == [["a"], ["b", "c"], ["d"]]


def test_a_name_does_not_lie_on_a_curve() -> None:
    """Names above a falling curve were printed across it."""
    curves = {"falls": curve(10, 20, 130), "stays": curve(10, 12, 10)}
    found = list(labels(curves, [(["stays"], "stays"), (["falls"], "a name as long as half a curve")], ROOM))
    assert [label.words for label in found] == ["stays", "a name as long as half a curve"]
    assert all(free(label, curves) for label in found)


def test_two_that_end_close_stand_on_two_sides() -> None:
    curves = {"up": curve(60, 70, 70), "down": curve(60, 70, 80)}
    found = list(labels(curves, [(["up"], "up"), (["down"], "down")], ROOM))
    assert [label.words for label in found] == ["up", "down"]
    assert found[0].place[1] < 70
    assert found[1].place[1] > 80
    assert all(free(label, curves) for label in found)


def test_without_room_there_is_no_name() -> None:
    curves = {str(y): curve(y, y) for y in range(10, 150, 14)}
    assert list(labels(curves, [(["66"], "66")], ROOM)) == []


def over(task: str, falls: dict[str, float], scores: dict[str, float]) -> LiveRace:
    """A race of 100 steps that is over: losses that fall from 1 in 50, scores that are the same for every seed."""
    race = LiveRace([COMPETITORS[name] for name in falls], TASKS[task], steps=1)
    race.advance()
    record = race.outcomes[REFERENCE].records[0]
    race.steps, race._turn = 100, 100 * len(falls)
    for name, outcome in race.outcomes.items():
        losses = [1 - (1 - falls[name]) * min(step / 50, 1) for step in range(100)]
        outcome.records[:] = [replace(record, loss=loss) for loss in losses]
        outcome.scores = (scores[name],) * 5
    assert race.over
    return race


FALLS = {REFERENCE: 0.30, "FP16, no scaling": 0.36, "FP16, dynamic": 0.30, "BF16": 0.301}


@pytest.mark.parametrize(
    ("scores", "names"),
    [
        ((0.064, 0.074, 0.064, 0.064), ["FP16 without scaling", "FP32, FP16 dynamic, BF16"]),
        ((0.064, 0.064, 0.064, 0.064), []),  # the title says that all are level
    ],
)
def test_the_groups_are_those_of_the_title(scores: tuple[float, ...], names: list[str]) -> None:
    race = over("autoencoder", FALLS, dict(zip(FALLS, scores, strict=True)))
    assert ("behind" in standings(race).values()) == bool(names)
    figure = RaceFigure()
    words = figure.show(race)._words
    assert [one for _, one, _, size, bold, _ in words if bold and size == SIZE] == names
    curves = {name: figure._dots(race, outcome) for name, outcome in race.outcomes.items()}
    for place, one, _, size, bold, _ in words:
        assert not (bold and size == SIZE) or free(Label(one, place), curves)
