"""Measure every row in several fresh processes, and merge what they found: medians, and how far they lie apart."""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mpkit import processes
from mpkit.bench.measure import Case, Row

COMMAND = (sys.executable, "-m", "mpkit", "bench")
FIGURES = ("ours_ms", "peer_ms", "ratio", "ratio_quartiles", "note")
PATIENCE = 3600  # seconds that a process may take for all of its rows; some minutes are usual


@dataclass(frozen=True)
class MergedRow(Row):
    """Medians over the processes, and the smallest and the largest of their ratios.

    `processes` has what each of them found. The bar is for the median ratio; a row that has no figure in some process
    has not met it, and `note` says what happened there.
    """

    ratio_range: tuple[float, float] | None = None
    processes: tuple[dict[str, Any], ...] = ()

    @property
    def spread(self) -> tuple[float, float] | None:
        """What the table shows of how far the ratios lie apart."""
        return self.ratio_range


@dataclass(frozen=True)
class Ended:
    """A process that has ended: the rows it wrote, by name and peer, and its last words for those it did not."""

    rows: dict[tuple[str, str], Row]
    last_words: str

    def row(self, case: Case) -> Row:
        """What it found for `case`."""
        nothing = Row(case.name, None, case.peer, None, None, None, case.bar, None, self.last_words)
        return self.rows.get((case.name, case.peer), nothing)


def merge(case: Case, found: Sequence[Row]) -> MergedRow:
    """One row of what the processes found for `case`."""
    each = tuple({name: asdict(row)[name] for name in FIGURES} for row in found)
    note = "; ".join(filter(None, [case.note, *_failures(found)]))
    good = [row for row in each if row["ratio"] is not None]
    if not good:
        return MergedRow(case.name, None, case.peer, None, None, None, case.bar, None, note, None, each)
    ours, peer, ratio = (statistics.median(row[name] for row in good) for name in ("ours_ms", "peer_ms", "ratio"))
    met = None if case.bar is None else ratio <= case.bar and len(good) == len(found)
    ratios = sorted(row["ratio"] for row in good)
    ends = (ratios[0], ratios[-1])
    return MergedRow(case.name, ours, case.peer, peer, ratio, None, case.bar, met, note, ends, each)


def _failures(found: Sequence[Row]) -> list[str]:
    failed = {number: row.note for number, row in enumerate(found, 1) if row.ratio is None}
    if len(failed) == len(found) and len(set(failed.values())) == 1:
        return [f"{found[0].note} (in every process)"]
    return [f"process {number} of {len(found)}: {note}" for number, note in failed.items()]


def run(options: Sequence[str], count: int, at: Sequence[str | None]) -> list[Ended]:
    """Start `python -m mpkit bench` with these options so often, never two at one place, and wait for all of them."""
    with TemporaryDirectory(prefix="mpkit-bench-") as name:
        folder = Path(name)
        files = [folder / f"{number}.json" for number in range(count)]
        alone = ("--processes", "1", "--gpus", "1", "--json")
        commands = [[*COMMAND, *options, *alone, str(file)] for file in files]
        ended = processes.in_turn(commands, at, folder / "compiled", PATIENCE)
        return [_rows(*pair) for pair in zip(files, ended, strict=True)]


def _rows(file: Path, ended: processes.Ended) -> Ended:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    except (OSError, json.JSONDecodeError):  # it ended before it had a row, or while it wrote one
        rows = []
    said = ended.last_words.splitlines() or ["it said nothing"]
    how = f"was stopped after {ended.seconds:.0f} s" if ended.status is None else f"ended with status {ended.status}"
    return Ended(
        {(row["name"], row["peer"]): Row(**row) for row in rows},
        f"the process {how} before it had this row: {said[-1]}",
    )
