"""The timer, on a clock that moves only when a call moves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch

from mpkit import timer
from mpkit.bench.measure import SHORTEST_SAMPLE, timed


class Clock:
    """Stands for `time`; `call` takes the next of `durations`, the last one for ever."""

    def __init__(self, durations: Iterable[float]) -> None:
        self.now, self.calls, self._durations = 0.0, 0, list(durations)

    def perf_counter(self) -> float:
        return self.now

    def call(self) -> None:
        self.now += self._durations[min(self.calls, len(self._durations) - 1)]
        self.calls += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    def make(*durations: float) -> Clock:
        made = Clock(durations)
        monkeypatch.setattr(timer, "time", made)
        return made

    return make


def test_seconds_are_the_mean_of_the_calls(clock: Callable[..., Clock]) -> None:
    fake = clock(1.0, 2.0, 6.0)
    assert timer.seconds_of(fake.call, 3) == 3.0
    assert timer.seconds_of(fake.call) == 6.0


def test_an_outlier_among_the_rounds_does_not_count(clock: Callable[..., Clock]) -> None:
    fake = clock(9.0, 0.5, 0.5, 0.5, 8.0, 0.5, 0.5, 0.5)  # three warm-up calls, then rounds of one call each
    assert timer.median_seconds(fake.call, budget=0.5) == 0.5
    assert fake.calls == timer.WARM_UP + timer.ROUNDS


def test_short_calls_are_repeated(clock: Callable[..., Clock]) -> None:
    fake = clock(2.0**-10)
    assert timer.median_seconds(fake.call, budget=5 * 2.0**-4) == 2.0**-10
    assert fake.calls == timer.WARM_UP + timer.ROUNDS * 64
    assert [timer.calls_in(1.0, once) for once in (2.0, 0.3, 0.0)] == [1, 4, timer.MOST]


def test_a_sample_of_the_benchmark_is_the_time_of_one_call(clock: Callable[..., Clock]) -> None:
    fake = clock(0.001)
    sample = timed(fake.call)
    before = fake.calls
    assert sample() == pytest.approx(0.001)
    assert (fake.calls - before) * 0.001 == pytest.approx(SHORTEST_SAMPLE)


def test_the_device_is_idle_before_and_after(clock: Callable[..., Clock], monkeypatch: pytest.MonkeyPatch) -> None:
    fake, waits = clock(1.0), []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(fake.calls))
    timer.seconds_of(fake.call, 7)
    assert waits == [0, 7]
