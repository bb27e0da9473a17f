"""The rows of `--panels`: how soon a panel has its new picture, in this process, and what GPU memory it leaves behind.

The panels themselves lie in tools/ of a checkout, which may import every lesson. They are imported when rows are asked
for.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from mpkit.bench.browser import ROOT, tool

BAR = 50.0  # ms, of the 95th percentile: what still feels immediate under a slider that is dragged
MIB = 2**20
Changes = Iterable[tuple[str, Callable[[], object]]]


@dataclass(frozen=True)
class PanelCase:
    """One panel to be measured.

    `make` returns it, `changes` gives, one after the other, what is done to it: a name, and a call after which its new
    picture is there. `drop` closes the widgets that the process still knows.
    """

    name: str
    make: Callable[[], Any]
    changes: Callable[[Any], Changes]
    drop: Callable[[], object]


@dataclass(frozen=True)
class PanelRow:
    """Milliseconds from a change to the picture's bytes, over all changes; `slowest` names the one that took longest.

    `held_MiB`: GPU memory that is still taken when nobody has the panel any more but its widgets are open, as a kernel
    keeps them; `left_MiB`: when they are closed, too. None without a GPU. `note` says why there are no figures.
    """

    name: str
    changes: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    slowest_ms: float | None = None
    slowest: str = ""
    bar: float = BAR
    met: bool | None = None
    held_MiB: float | None = None
    left_MiB: float | None = None
    note: str = ""


def missing() -> str:
    """What `--panels` lacks here, and the cure, in a sentence; "" if nothing."""
    if (ROOT / "tools" / "panelbench.py").is_file():
        return ""
    return "--panels opens the lessons' panels, which need a checkout; run it from one."


def cases(device: str) -> list[PanelCase]:
    """Every panel, computing on `device` where it can be told to.

    Raises:
        RuntimeError: something is `missing`.
    """
    if lack := missing():
        raise RuntimeError(lack)
    return list(tool("panelbench").cases(device))


def measure(case: PanelCase, device: str) -> PanelRow:
    """Walk through a panel's changes twice: for the times, then for the memory, when all that is shared is there."""
    try:
        times = _walk(case)
        case.drop()
        if not times:
            raise ValueError("nothing of it can be changed")
        kept = _kept(case) if device == "cuda" else (None, None)
    except Exception as error:
        case.drop()
        return PanelRow(case.name, note=f"{type(error).__name__}: {error}".split("\n")[0])
    finally:
        gc.collect()
    ordered = sorted(ms for _, ms in times)
    late, (slowest, longest) = ordered[int(0.95 * len(ordered))], max(times, key=lambda one: one[1])
    middle = statistics.median(ordered)
    return PanelRow(case.name, len(times), middle, late, longest, slowest, BAR, late <= BAR, *kept)


def _walk(case: PanelCase) -> list[tuple[str, float]]:
    """Make the panel, change it, and forget it; each change with its milliseconds."""
    panel, times = case.make(), []
    for name, change in case.changes(panel):
        began = time.perf_counter()
        change()
        times.append((name, 1e3 * (time.perf_counter() - began)))
    return times


def _kept(case: PanelCase) -> tuple[float, float]:
    before = _taken()
    _walk(case)
    held = _taken()
    case.drop()
    return (held - before) / MIB, (_taken() - before) / MIB


def _taken() -> int:
    gc.collect()
    return torch.cuda.memory_allocated()


HEADER = ("panel", "changes", "p50 ms", "p95 ms", "bar", "met", "longest ms", "held MiB", "left MiB")
WIDTHS = (36, 7, 7, 7, 4, 3, 10, 8, 8)


def line(row: PanelRow | None = None) -> str:
    """One line of the printed table; the header without a row."""
    if row is not None and row.note:
        return f"{row.name:<{WIDTHS[0]}} no figure: {row.note}"
    if row is None:
        cells, after = HEADER, "which"
    else:
        memory = ["" if mib is None else f"{mib:.2f}" for mib in (row.held_MiB, row.left_MiB)]
        cells = (row.name, str(row.changes), f"{row.p50_ms:.1f}", f"{row.p95_ms:.1f}", f"{row.bar:g}",
                 "yes" if row.met else "NO", f"{row.slowest_ms:.1f}", *memory)  # type: ignore[assignment]  # fmt: skip
        after = row.slowest
    first, *others = zip(cells, WIDTHS, strict=True)
    return " ".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)]) + f"  {after}"


def summary(rows: list[PanelRow]) -> str:
    """How many panels are soon enough, and which leave memory behind."""
    known = [row for row in rows if not row.note]
    said = (
        f"{sum(row.met is True for row in known)} of {len(rows)} panels have 95 % of their pictures within {BAR:g} ms"
    )
    if any(row.left_MiB is not None for row in known):
        leaks = [row.name for row in known if row.left_MiB]
        said += f"; GPU memory is left behind by {', '.join(leaks) or 'none'}"
    return said + "."
