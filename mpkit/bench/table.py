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

from mpkit.bench import browser as bench_browser
from mpkit.bench import cpu as bench_cpu
from mpkit.bench import gpu as bench_gpu
from mpkit.bench import gpu_steps as bench_gpu_steps
from mpkit.bench import panels as bench_panels
from mpkit.bench.measure import Case, Row, line, measure

ELEMENTS = {"cpu": 2**22, "cuda": 2**26}  # more than any cache holds
REPEATS = 9
AnyCase = TypeVar("AnyCase", Case, bench_panels.PanelCase)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every row, print the table, and write it with `--json`. The status is 0 even if a bar is missed."""
    argv = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        _parser().error("--device cuda needs a CUDA device and there is none; use --device cpu.")
    torch.set_num_threads(options.threads)
    if options.panels:
        return _panels(options, argv)
    elements = options.elements or ELEMENTS[options.device]
    repeats = options.repeats or (bench_browser.PRESSES if options.browser else REPEATS)
    with ExitStack() as stack:
        chosen = _chosen(_cases("browser" if options.browser else options.device, elements, stack), options.only)
        header = _header(options.device, argv) | {"elements": elements, "repeats": repeats}
        what = f"{repeats} key presses" if options.browser else f"{elements:,} values"
        _say(f"{header['device']} · torch {header['torch']} · {header['threads']} CPU threads · {what}")
        _say(line())
        rows = []
        for case in chosen:
            rows += (measured := measure(case, repeats))
            _say("\n".join(map(line, measured)))
    _say(_summary(rows))
    _write(options.json, header, rows)
    return 0


def _panels(options: argparse.Namespace, argv: list[str]) -> int:
    if options.browser:
        _parser().error("argument --panels: not allowed with argument --browser")
    try:
        every = bench_panels.cases(options.device)
    except RuntimeError as lack:
        _parser().error(str(lack))
    chosen = _chosen(every, options.only)
    header = _header(options.device, argv)
    _say(
        f"{header['device']} · torch {header['torch']} · {header['threads']} CPU threads · from a change to the picture"
    )
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


def _cases(where: str, elements: int, stack: ExitStack) -> list[Case]:
    if where == "browser":
        try:
            return bench_browser.cases(stack)
        except RuntimeError as lack:
            _parser().error(str(lack))
    return bench_cpu.cases(elements) if where == "cpu" else bench_gpu.cases(elements) + bench_gpu_steps.cases()


def _chosen(every: Sequence[AnyCase], only: str) -> list[AnyCase]:
    """The cases whose name contains `only`; where there are none, the command ends."""
    chosen = [case for case in every if only.lower() in case.name.lower()]
    if not chosen:
        _parser().error(f"--only {only!r} fits no row; leave it out to see all names.")
    return chosen


def _header(device: str, argv: list[str]) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU {platform.machine()}"
    try:
        own = version("mpkit")
    except PackageNotFoundError:
        own = "run from its source"
    # A record travels, so it names files but no folder of the machine it was made on.
    words = [Path(word).name if "/" in word else word for word in argv]
    return {
        "device": name,
        "command": shlex.join(["python", "-m", "mpkit", "bench", *words]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "mpkit": own,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }


def _summary(rows: list[Row]) -> str:
    asked = [row for row in rows if row.bar is not None]
    met = sum(row.met is True for row in asked)
    silent = sum(row.ratio is None for row in rows)
    return f"{met} of {len(asked)} bars met; {silent} of {len(rows)} rows have no figure."


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
