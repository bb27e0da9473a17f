"""Measure every row in several fresh processes, and merge what they found.

One process is one draw: in each, cuDNN chooses its algorithms anew and memory lies elsewhere. So what is told as a fact
is a median over processes, and the row says how far they lie apart.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

import torch

from mpkit.bench.measure import Case, Row

COMMAND = (sys.executable, "-m", "mpkit", "bench")
FIGURES = ("ours_ms", "peer_ms", "ratio", "ratio_quartiles", "note")
Place = dict[str, str]  # what a process finds in its environment


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


def places(gpus: int) -> list[Place]:
    """Where processes may run at the same time: with one GPU, one after the other where this process would.

    Raises:
        ValueError: there are not so many GPUs.
    """
    if gpus == 1:
        return [{}]
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = seen.split(",") if seen else [str(number) for number in range(torch.cuda.device_count())]
    if gpus > len(names):
        raise ValueError(f"--gpus {gpus} asks for more GPUs than there are ({len(names)}).")
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names[:gpus]]


def run(options: Sequence[str], processes: int, at: Sequence[Place]) -> list[Ended]:
    """Start `python -m mpkit bench` with these options so often, never two at one place, and wait for all of them."""
    free: SimpleQueue[Place] = SimpleQueue()
    for place in at:
        free.put(place)
    with TemporaryDirectory(prefix="mpkit-bench-") as folder, ThreadPoolExecutor(len(at)) as pool:
        return list(pool.map(lambda number: _child(options, number, Path(folder), free), range(processes)))


def _child(options: Sequence[str], number: int, folder: Path, free: "SimpleQueue[Place]") -> Ended:
    file = folder / f"{number}.json"
    command = [*COMMAND, *options, "--processes", "1", "--gpus", "1", "--json", str(file)]
    place = free.get()
    try:
        # What torch.compile has made is shared, so that only the first process waits for it. The child's table is
        # progress: it goes to this one's standard error (2), and its own errors are kept for its last words.
        around = {**os.environ, **place, "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
        done = subprocess.run(command, env=around, stdout=2, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        free.put(place)
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    said = done.stderr.strip().splitlines() or ["it said nothing"]
    last_words = f"the process ended with status {done.returncode} before it had this row: {said[-1]}"
    return Ended({(row["name"], row["peer"]): Row(**row) for row in rows}, last_words)
