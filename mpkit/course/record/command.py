"""What the two recording commands share: their options, which GPUs they use, and the file that they write."""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mpkit.course.record.processes import Gathered, Part, Recorder
from mpkit.course.recorded.machine import FOLDER, header, write
from mpkit.course.recorded.place import add_place, folder
from mpkit.processes import gpus


def arguments(kind: str, about: str, seconds: float) -> argparse.ArgumentParser:
    """A parser with the options of both commands."""
    parser = argparse.ArgumentParser(prog=f"python -m mpkit record-{kind}", description=about)
    add = parser.add_argument
    add("--seconds", type=float, default=seconds, help=f"how long a step is repeated; default {seconds:g}")
    add("--processes", type=int, default=3, help="fresh processes for each figure; default 3")
    add("--gpus", type=int, default=1, help="GPUs to spread them over, one process at a time on each; default 1")
    add("--only", default="", help="measure only parts with this in their name, print them and write nothing")
    add("--work", type=Path, help="folder of what is measured so far; a run that was broken off goes on from there")
    add_place(parser, "file, otherwise named after the GPU")
    add("--part", help=argparse.SUPPRESS)  # these two are for the processes that the command starts
    add("--into", type=Path, help=argparse.SUPPRESS)
    return parser


def recorder(parser: argparse.ArgumentParser, chosen: argparse.Namespace, module: str) -> Recorder:
    """What runs the parts of `module`. Ends the program with a message if there are not so many GPUs."""
    if not torch.cuda.is_available():
        parser.error("this needs a CUDA device, and there is none here.")
    try:
        names = gpus(chosen.gpus)
    except ValueError as error:
        parser.error(str(error))
    if chosen.processes < 1:
        parser.error(f"--processes {chosen.processes}: at least 1 is needed, and 3 or more say how far they differ.")
    work = chosen.work or Path(tempfile.mkdtemp(prefix="mpkit-record-"))
    work.mkdir(parents=True, exist_ok=True)
    return Recorder(module, chosen.processes, names, work)


def measure_only(recorder: Recorder, parts: Mapping[str, Part], only: str, options: Sequence[str]) -> int:
    """Print the figures of the parts with `only` in their name. ValueError: there is none."""
    some = {name: part for name, part in parts.items() if only in name}
    if not some:
        raise ValueError(f"no part has {only!r} in its name; use a piece of one of {', '.join(parts)}.")
    found = recorder.gather(some, options)
    print(json.dumps({**found.machine, "figures": found.figures, "range": found.ranges}, indent=1))  # noqa: T201
    return 0


def finish(kind: str, argv: Sequence[str], chosen: argparse.Namespace, found: Gathered) -> int:
    """Write the record."""
    first = header(kind, found.machine, shown(argv), chosen.processes, chosen.gpus)
    path = write(kind, {**first, **found.figures, "range": found.ranges}, chosen.out, folder(chosen, FOLDER))
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB")  # noqa: T201
    return 0


def shown(argv: Sequence[str]) -> list[str]:
    """The options that change figures: those that name a folder or a file of this machine are left out."""
    kept, words = [], iter(argv)
    for word in words:
        if word in ("--work", "--out"):
            next(words, None)
        elif word != "--for-lessons" and not word.startswith(("--work=", "--out=")):
            kept.append(word)
    return kept
