"""`python -m mpkit robustness NN`: turn the knobs of a lesson's experiments, and store what happens to its verdicts."""

import argparse
import importlib
import json
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

import torch

from mpkit.course import table
from mpkit.course.recorded.machine import FOLDER
from mpkit.course.recorded.place import add_place, folder
from mpkit.course.robustness.sweep import SEEDS, Sweep
from mpkit.course.robustness.table import Table


def sweeps_of(number: str) -> tuple[Sweep, ...]:
    """The sweeps of a lesson; none if it has no file for them."""
    name = f"mpkit.course.lesson_{number}.robustness"
    return tuple(importlib.import_module(name).SWEEPS) if table.find(number).ready and find_spec(name) else ()


def description(sweep: Sweep) -> dict[str, Any]:
    """What is stored of a sweep besides what it measured."""
    return {
        "question": sweep.question, "knob": sweep.knob, "chosen": sweep.chosen, "reference": sweep.reference,
        "margin": sweep.margin, "unit": sweep.unit, "better": sweep.better, "expected": dict(sweep.expected),
    }  # fmt: skip


def measured(sweep: Sweep, command: str) -> dict[str, Any]:
    """Run a sweep. ValueError: too few seeds, or ways that have not the same number of them."""
    start, scores = time.perf_counter(), {}
    for value in sweep.values:
        found = {way: [float(f"{one:.6g}") for one in some] for way, some in sweep.measure(value).items()}
        if lost := {sweep.reference, *sweep.expected} - found.keys():
            raise ValueError(f"sweep {sweep.key}: measure gave no scores of {', '.join(sorted(lost))}.")
        lengths = {len(found[way]) for way in (sweep.reference, *sweep.expected)}
        if len(lengths) > 1 or min(lengths) < SEEDS:
            raise ValueError(
                f"sweep {sweep.key}: {SEEDS} seeds or more, as many for every way, are asked for; {lengths}."
            )
        scores[str(value)] = found
    source = (
        f"Measured on {'a CPU' if not torch.cuda.is_available() else torch.cuda.get_device_name()}, torch "
        f"{torch.__version__}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}, one process: {command}"
    )
    print(f"{sweep.key}: {time.perf_counter() - start:.0f} s", flush=True)  # noqa: T201
    return {**description(sweep), "source": source, "scores": scores}


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m mpkit robustness", description=__doc__)
    parser.add_argument("lesson", help="its two digits, such as 03")
    parser.add_argument("--only", default="", help="only sweeps with this in their key; the others stay as stored")
    add_place(parser, "folder")
    chosen = parser.parse_args(argv)
    try:
        table.find(chosen.lesson)
    except ValueError as error:
        parser.error(str(error))
    every = sweeps_of(chosen.lesson)
    some = [sweep for sweep in every if chosen.only in sweep.key]
    if not some:
        known = ", ".join(sweep.key for sweep in every) or "none"
        parser.error(f"lesson {chosen.lesson} has no such sweep; known: {known}")
    torch.set_num_threads(1)
    out = chosen.out or folder(chosen, FOLDER)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"robustness_{chosen.lesson}.json"
    stored = json.loads(path.read_text(encoding="utf-8"))["sweeps"] if path.exists() else {}
    for sweep in some:
        stored[sweep.key] = measured(sweep, f"python -m mpkit robustness {chosen.lesson}")
        kept = {one.key: stored[one.key] for one in every if one.key in stored}
        path.write_text(json.dumps({"lesson": chosen.lesson, "sweeps": kept}, indent=1) + "\n", encoding="utf-8")
        print(Table.load(sweep.key, out))  # noqa: T201
    return 0
