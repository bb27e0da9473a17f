"""Each figure in fresh processes: a command starts itself again for every part, several times, spread over the GPUs.

What is recorded is the median of several processes, and their range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpkit.course.recorded.machine import machine
from mpkit.processes import Ended, in_turn

Figures = dict[str, Any]  # nested; the leaves are numbers, lists, or None where there is none
Job = tuple[str, int]  # a part, and which of its processes, from 0 on
PATIENCE = 400  # seconds that a process may take: torch.compile needs up to two minutes the first time


@dataclass(frozen=True)
class Part:
    """What one process measures: a piece of the record, as nested dicts with the record's own names.

    `once`: it is not repeated, for it has seeds of its own. `long`: it starts first, and short ones fill the gaps.
    """

    measure: Callable[[argparse.Namespace], Figures]
    once: bool = False
    long: bool = False


@dataclass(frozen=True)
class Gathered:
    """What all processes of a command found: the record's figures, their ranges, and the one machine of all."""

    figures: Figures
    ranges: Figures
    machine: dict[str, str]


class Recorder:
    """Runs the parts of one command. `module` is started as `python -m module --part NAME --into FILE options`.

    Args:
        module: its `PARTS` maps names to `Part`, and its `main` hands `--part` to `measure_here`.
        processes: how often each part is repeated.
        gpus: values for CUDA_VISIBLE_DEVICES. Each GPU runs one process at a time.
        folder: where the processes leave their figures, and torch.compile its cache. What lies there already
            with the same options is not measured again, so a run that was broken off goes on.
    """

    def __init__(self, module: str, processes: int, gpus: Sequence[str], folder: Path) -> None:
        self.module, self.processes, self.gpus, self.folder = module, processes, gpus, folder
        self.failures: list[str] = []

    def gather(self, parts: Mapping[str, Part], options: Sequence[str]) -> Gathered:
        """Measure all parts, in this order. RuntimeError: a process failed, or they ran on different machines."""
        self.failures.clear()
        turns = {name: 1 if part.once else self.processes for name, part in parts.items()}
        jobs = [(name, turn) for name in parts for turn in range(turns[name])]
        # A part's second process comes after all first ones, so that it finds what torch.compile has stored.
        jobs.sort(key=lambda job: (job[1], not parts[job[0]].long))
        todo = [job for job in jobs if not self._file(job, options).exists()]
        commands = [
            [sys.executable, "-m", self.module, "--part", job[0], "--into", str(self._file(job, options)), *options]
            for job in todo
        ]

        def told(number: int, ended: Ended) -> None:
            name, turn = todo[number]
            trouble = ended.trouble or ("" if self._file(todo[number], options).exists() else "it wrote nothing")
            said = f"{name}, process {turn + 1}: {trouble or f'{ended.seconds:.0f} s'}"
            print(f"GPU {ended.place}: {said}", flush=True)  # noqa: T201
            if trouble:
                self.failures.append(said)

        in_turn(commands, self.gpus, self.folder / "compiled", PATIENCE, told)
        if self.failures:
            raise RuntimeError("\n".join([
                f"{len(self.failures)} of {len(jobs)} processes failed. What the others found is kept: the same "
                f"command with --work {self.folder} measures only the rest.", *self.failures,
            ]))  # fmt: skip
        files = {name: [self._file((name, turn), options) for turn in range(turns[name])] for name in parts}
        found = {name: [json.loads(one.read_text(encoding="utf-8")) for one in own] for name, own in files.items()}
        return joined(found, {name for name, part in parts.items() if part.once})

    def _file(self, job: Job, options: Sequence[str]) -> Path:
        plain = "".join(letter if letter.isalnum() else "_" for letter in job[0])
        asked = zlib.crc32(" ".join(options).encode())  # another option measures something else
        return self.folder / f"{plain}.{asked:08x}.{job[1]}.json"


def measure_here(parts: Mapping[str, Part], chosen: argparse.Namespace) -> int:
    """Measure one part in this process, and leave figures and machine in the file `chosen.into`."""
    figures = parts[chosen.part].measure(chosen)
    found = {"machine": machine(), "figures": figures}
    whole = chosen.into.with_suffix(".new")  # renamed when it is complete: a run that is broken off leaves no half file
    whole.write_text(json.dumps(found), encoding="utf-8")
    whole.rename(chosen.into)
    return 0


def joined(found: Mapping[str, Sequence[Figures]], once: set[str]) -> Gathered:
    """Put the pieces together: medians, and [least, most]. RuntimeError: the processes saw different machines."""
    machines = [one["machine"] for pieces in found.values() for one in pieces]
    if any(other != machines[0] for other in machines):
        kinds = sorted({", ".join(map(str, one.values())) for one in machines})
        raise RuntimeError(f"the processes ran on different machines, so nothing is recorded: {'; '.join(kinds)}.")
    figures: Figures = {}
    ranges: Figures = {}
    for name, pieces in found.items():
        values = [one["figures"] for one in pieces]
        merge(figures, combined(values, statistics.median))
        if name not in once:
            merge(ranges, combined(values, lambda numbers: [min(numbers), max(numbers)]))
    return Gathered(figures, ranges, machines[0])


def combined(values: Sequence[Any], combine: Callable[[list[float]], Any]) -> Any:
    """The same tree, each number combined with those in its place; None where one is missing. One list stays a list."""
    first = values[0]
    if isinstance(first, dict):
        return {key: combined([value[key] for value in values], combine) for key in first}
    if isinstance(first, list):
        return first
    return None if any(value is None for value in values) else combine(list(values))


def merge(into: Figures, piece: Figures) -> None:
    """Hang the branches of `piece` into the tree `into`."""
    for key, value in piece.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
