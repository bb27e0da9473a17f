"""How long a call takes, with what it started on a GPU: the one clock of the doctor, the records and the benchmark."""

import math
import statistics
import time
from collections.abc import Callable

import torch

WARM_UP = 3  # calls before a measurement: caches fill, cuBLAS and cuDNN choose their algorithms
ROUNDS = 5
MOST = 2000  # calls in a round


def seconds_of(call: Callable[[], object], calls: int = 1) -> float:
    """Mean seconds of `calls` calls in a row, from an idle device to an idle device."""
    _wait()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    _wait()
    return (time.perf_counter() - start) / calls


def median_seconds(call: Callable[[], object], budget: float = 0.15) -> float:
    """Median seconds of a call, from five rounds that together take about `budget` seconds, after a warm-up."""
    once = min(seconds_of(call) for _ in range(WARM_UP))
    return statistics.median(seconds_of(call, calls_in(budget / ROUNDS, once)) for _ in range(ROUNDS))


def calls_in(seconds: float, once: float) -> int:
    """How many calls of `once` seconds fill so many seconds: 1 at least, 2000 at most."""
    return max(1, min(MOST, math.ceil(seconds / max(once, 1e-9))))


def _wait() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
