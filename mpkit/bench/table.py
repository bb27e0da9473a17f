"""`python -m mpkit bench`: mpkit timed against named peers, side by side in one run."""

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch

from mpkit import processes
from mpkit.bench import browser as bench_browser
from mpkit.bench import cpu as bench_cpu
from mpkit.bench import diagnosing as bench_diagnosing
from mpkit.bench import gpu as bench_gpu
from mpkit.bench import gpu_steps as bench_gpu_steps
from mpkit.bench import panels as bench_panels
from mpkit.bench import processes as bench_processes
from mpkit.bench import scaled as bench_scaled
from mpkit.bench.measure import Case, Row, line, measure

ELEMENTS = {"cpu": 2**22, "cuda": 2**26}  # more than any cache holds
REPEATS = 9
AnyCase = TypeVar("AnyCase", Case, bench_panels.PanelCase)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every row, print the table, and write it with `--json`. The status is 0 even if a bar is missed."""
    argv = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(argv)
    _check(options)
    torch.set_num_threads(options.threads)
    options.elements = options.elements or ELEMENTS[options.device]
    options.repeats = options.repeats or (bench_browser.PRESSES if options.browser else REPEATS)
    if options.panels:
        return _panels(options, argv)
    alone = options.browser or options.processes == 1
    return _here(options, argv) if alone else _in_processes(options, argv)


def _here(options: argparse.Namespace, argv: list[str]) -> int:
    """Measure in this process. The record is written row by row: what a crash interrupts keeps what it had."""
    with ExitStack() as stack:
        chosen = _chosen(_cases(options, stack), options.only)
        header = _header(options, argv)
        _begin(header, f"{options.repeats} key presses" if options.browser else f"{options.elements:,} values")
        _say(line())
        rows: list[Row] = []
        for case in chosen:
            rows += (measured := measure(case, options.repeats))
            _say("\n".join(map(line, measured)))
            _write(options.json, header, rows)
    _say(_summary(rows))
    return 0


def _in_processes(options: argparse.Namespace, argv: list[str]) -> int:
    """Measure in fresh processes. This one looks at the device only when they have ended."""
    try:
        at: list[str | None] = [None] if options.gpus == 1 else [*processes.gpus(options.gpus)]
    except ValueError as error:
        _parser().error(str(error))
    chosen = _chosen(_cases(options, ExitStack()), options.only)
    ended = bench_processes.run(argv, options.processes, at)
    header = _header(options, argv) | {"processes": options.processes, "gpus": options.gpus}
    _begin(header, f"{options.elements:,} values · median of {options.processes} processes")
    _say(line(spread="range"))
    rows = [bench_processes.merge(case, [one.row(case) for one in ended]) for case in chosen]
    for row in rows:
        _say(line(row))
    _say(_summary(rows))
    _write(options.json, header, rows)
    return 0


def _panels(options: argparse.Namespace, argv: list[str]) -> int:
    try:
        every = bench_panels.cases(options.device)
    except RuntimeError as lack:
        _parser().error(str(lack))
    chosen = _chosen(every, options.only)
    header = _header(options, argv)
    _begin(header, "from a change to the picture")
    _say(bench_panels.line())
    rows = []
    for case in chosen:
        rows.append(row := bench_panels.measure(case, options.device))
        _say(bench_panels.line(row))
    _say(bench_panels.summary(rows))
    _write(options.json, header, rows)
    return 0


def _write(file: Path | None, header: dict[str, Any], rows: Sequence[Any]) -> None:
    if file:
        record = {**header, "rows": [asdict(row) for row in rows]}
        file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mpkit bench",
        description="Time mpkit against named peers. A ratio below 1 means that mpkit is faster; a bar is the largest "
        "ratio that is accepted. Run it on a quiet machine: wide quartiles mean that it was not.",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    where.add_argument(
        "--browser",
        action="store_true",
        help="instead: key press to picture, every control of every panel, in a real Chromium; half an hour",
    )
    parser.add_argument(
        "--panels",
        action="store_true",
        help="instead: from a change in a panel to its picture, every panel, in this process on --device",
    )
    parser.add_argument(
        "--processes",
        type=_positive,
        default=3,
        metavar="N",
        help="measure every row in N fresh processes (default 3); 1: in this one; --browser and --panels always do",
    )
    parser.add_argument("--gpus", type=_positive, default=1, metavar="N", help="so many processes at once, a GPU each")
    parser.add_argument("--threads", type=_positive, default=1, help="CPU threads; default 1, as in the lessons")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record to FILE as well")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the rows whose name contains TEXT")
    parser.add_argument("--elements", type=_positive, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=_positive, help=argparse.SUPPRESS)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} came; use 1 or more")
    return number


def _check(options: argparse.Namespace) -> None:
    """End the command where its options do not go together, or not with this machine."""
    if options.panels and options.browser:
        _parser().error("argument --panels: not allowed with argument --browser")
    if options.device == "cuda" and not torch.cuda.is_available():
        _parser().error("--device cuda needs a CUDA device and there is none; use --device cpu.")
    if options.gpus > 1 and options.device == "cpu":
        _parser().error("--gpus is for --device cuda; leave it out.")


def _cases(options: argparse.Namespace, stack: ExitStack) -> list[Case]:
    if options.browser:
        try:
            return bench_browser.cases(stack)
        except RuntimeError as lack:
            _parser().error(str(lack))
    scaled = bench_scaled.casts(options.device, options.elements)
    if options.device == "cpu":
        return bench_cpu.cases(options.elements) + scaled + bench_diagnosing.cases_on_cpu()
    return bench_gpu.cases(options.elements) + bench_gpu_steps.cases() + scaled + bench_scaled.layers()


def _chosen(every: Sequence[AnyCase], only: str) -> list[AnyCase]:
    """The cases whose name contains `only`; where there are none, the command ends."""
    chosen = [case for case in every if only.lower() in case.name.lower()]
    if not chosen:
        _parser().error(f"--only {only!r} fits no row; leave it out to see all names.")
    return chosen


def _header(options: argparse.Namespace, argv: list[str]) -> dict[str, Any]:
    on_gpu = options.device == "cuda"
    # A record travels, so it names files but no folder of the machine it was made on.
    words = [Path(word).name if "/" in word else word for word in argv]
    header = {
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU {platform.machine()}",
        "command": shlex.join(["python", "-m", "mpkit", "bench", *words]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "mpkit": _version("mpkit") or "run from its source",
        "torch": torch.__version__,
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,  # type: ignore[no-untyped-call]
        "triton": _version("triton"),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    return header if options.panels else header | {"elements": options.elements, "repeats": options.repeats}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _begin(header: dict[str, Any], what: str) -> None:
    _say(f"{header['device']} · torch {header['torch']} · {header['threads']} CPU threads · {what}")


def _summary(rows: Sequence[Row]) -> str:
    asked = [row for row in rows if row.bar is not None]
    met = sum(row.met is True for row in asked)
    silent = sum(row.ratio is None for row in rows)
    return f"{met} of {len(asked)} bars met; {silent} of {len(rows)} rows have no figure."


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
