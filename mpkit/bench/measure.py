"""Time two things side by side: what one row of the benchmark is, and how it is measured.

Both sides run in turn, so that a busy machine slows both. Each pair gives a ratio; a row keeps their median and their
quartiles. When the quartiles lie far apart, the machine was not quiet and the row says little.
"""

import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

from mpkit.timer import WARM_UP, calls_in, seconds_of

Sampler = Callable[[], float]  # runs something and returns its seconds

SHORTEST_SAMPLE = 0.005  # seconds; shorter calls are repeated, so that the clock and a sync count little


@dataclass(frozen=True)
class Case:
    """One row to be measured.

    `build` prepares the data and returns the samplers of our side and of the peer's. `bar` is the largest ratio of
    our time to the peer's that the design accepts, or None where it asks for none. With `late` there are two rows, the
    medians and the 95th percentiles, and the bar is for the latter; so is `within_ms`, the most that ours may take.
    """

    name: str
    peer: str
    build: Callable[[], tuple[Sampler, Sampler]]
    bar: float | None = None
    note: str = ""
    late: bool = False
    within_ms: float | None = None


@dataclass(frozen=True)
class Row:
    """One measured row: median times in milliseconds, and the median of the paired ratios, which is not their quotient.

    A row of 95th percentiles has their quotient, and no quartiles. None where there is no measurement; `note` says why.
    """

    name: str
    ours_ms: float | None
    peer: str
    peer_ms: float | None
    ratio: float | None
    ratio_quartiles: tuple[float, float] | None
    bar: float | None
    met: bool | None
    note: str = ""

    @property
    def spread(self) -> tuple[float, float] | None:
        """What the table shows of how far the ratios lie apart."""
        return self.ratio_quartiles


def timed(call: Callable[[], object]) -> Sampler:
    """Return a sampler that gives the mean seconds of one call.

    `call` runs three times as a warm-up. A sample is as many calls as fill SHORTEST_SAMPLE, from an idle device to an
    idle device.
    """
    calls = calls_in(SHORTEST_SAMPLE, min(seconds_of(call) for _ in range(WARM_UP)))
    return lambda: seconds_of(call, calls)


def measure(case: Case, repeats: int) -> list[Row]:
    """Measure one case; an error becomes a row that says why there is no number."""
    try:
        ours, peer = case.build()
        pairs = [(ours(), peer()) for _ in range(repeats + 1)][1:]
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        note = f"{type(error).__name__}: {reason[0]}"
        return [Row(case.name, None, case.peer, None, None, None, case.bar, None, note)]
    finally:
        gc.collect()
    paired = sorted(a / b for a, b in pairs)
    quartiles = (paired[len(paired) // 4], paired[(3 * len(paired)) // 4])
    our, their = (statistics.median(side) for side in zip(*pairs, strict=True))
    if not case.late:
        return [_row(case, our, their, statistics.median(paired), quartiles)]
    middle = _row(replace(case, name=f"{case.name}, p50", bar=None), our, their, statistics.median(paired), quartiles)
    our, their = (sorted(side)[int(0.95 * len(side))] for side in zip(*pairs, strict=True))
    last = _row(replace(case, name=f"{case.name}, p95"), our, their, our / their, None)
    if case.within_ms is not None:
        last = replace(last, met=bool(last.met) and our * 1e3 <= case.within_ms, note=f"within {case.within_ms:g} ms")
    return [middle, last]


def _row(case: Case, our: float, their: float, ratio: float, quartiles: tuple[float, float] | None) -> Row:
    met = None if case.bar is None else ratio <= case.bar
    return Row(case.name, our * 1e3, case.peer, their * 1e3, ratio, quartiles, case.bar, met, case.note)


HEADER = ("what", "mpkit ms", "peer", "peer ms", "ratio", "quartiles", "bar", "met")
WIDTHS = (52, 9, 34, 9, 7, 11, 6, 3)


def line(row: Row | None = None, spread: str = "quartiles") -> str:
    """One line of the printed table; the header without a row, where `spread` says what stands beside the ratios."""
    if row is None:
        return _columns([spread if name == "quartiles" else name for name in HEADER])
    if row.ratio is None:
        return f"{row.name:<{WIDTHS[0]}} no figure: {row.note}"
    beside = "" if row.spread is None else "-".join(map(_short, row.spread))
    met = "" if row.met is None else "yes" if row.met else "NO"
    bar = "" if row.bar is None else f"{row.bar:.3g}"
    ours, peer = f"{row.ours_ms:.3f}", f"{row.peer_ms:.3f}"
    return f"{_columns([row.name, ours, row.peer, peer, _short(row.ratio), beside, bar, met])}  {row.note}".rstrip()


def _short(ratio: float) -> str:
    return f"{ratio:.{2 if ratio >= 0.1 else 3}f}"


def _columns(cells: list[str]) -> str:
    left = (0, 2, 7)
    return " ".join(
        f"{c:<{w}}" if i in left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(cells, WIDTHS, strict=True))
    )
