"""The group of threads: calls that meet, calls that wait for ever, and calls that do not fit; none needs a clock."""

from __future__ import annotations

import math

import pytest

from mpkit.course.lesson_11 import thread_group
from mpkit.course.lesson_11.thread_group import Group, Hang, Mixed, run_in_threads


def test_all_ranks_get_the_same() -> None:
    found: dict[int, list[object]] = {}

    def work(group: Group, values: list[float]) -> None:
        found[group.rank] = [group.mean(values[0]), group.any(values[1] > 5), group.any(False), group.mean(values[1])]
        group.step(values[0])

    outcome = run_in_threads(work, [[1.0, 4.0], [2.0, 6.0], [6.0, 8.0]])
    assert outcome.error is None
    assert not outcome.endless
    assert found == {rank: [3.0, True, False, 6.0] for rank in range(3)}
    assert outcome.steps == [[1.0], [2.0], [6.0]]


def test_many_rounds_keep_their_order() -> None:
    def work(group: Group, values: list[float]) -> None:
        for value in values:
            group.step(group.mean(value))

    outcome = run_in_threads(work, [list(map(float, range(300)))] * 5)
    assert outcome.steps == [list(map(float, range(300)))] * 5


def test_who_stays_away_is_noticed() -> None:
    def work(group: Group, values: list[float]) -> None:
        for value in values:
            if math.isfinite(value):
                group.mean(value)

    error = run_in_threads(work, [[1.0, 2.0], [1.0, math.inf], [1.0, 2.0]]).error
    assert isinstance(error, Hang)
    assert str(error) == "ranks 0 and 2 wait in mean() for rank 1, which will not come"


def test_even_without_a_single_call_of_one_rank() -> None:
    def work(group: Group, values: list[float]) -> None:
        if group.rank:
            group.any(True)

    assert str(run_in_threads(work, [[], []]).error) == "rank 1 waits in any() for rank 0, which will not come"


def test_an_own_error_comes_before_what_follows() -> None:
    def work(group: Group, values: list[float]) -> None:
        if group.rank == 2:
            raise ValueError("mine")
        group.mean(1.0)

    error = run_in_threads(work, [[], [], []]).error
    assert isinstance(error, ValueError)


def test_different_calls_do_not_fit() -> None:
    def work(group: Group, values: list[float]) -> None:
        try:
            group.mean(1.0) if group.rank else group.any(True)
        except Exception:
            pytest.fail("a learner's own except must not catch it")

    error = run_in_threads(work, [[], []]).error
    assert isinstance(error, Mixed)
    assert str(error) == "rank 0 in any(), rank 1 in mean()"


def test_a_loop_without_an_end_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_group, "TOO_LONG", 0.01)
    over = False

    def work(group: Group, values: list[float]) -> None:
        while not over:
            pass

    assert run_in_threads(work, [[]]).endless
    over = True
