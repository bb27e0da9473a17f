"""`python -m mpkit record-ranks`: the two trainings of `examples/`, over NCCL, on one GPU and on all that are here.

What lesson 11 shows to those without two GPUs is what this command wrote on them. It needs the repository: the examples
are no part of the package. `--cpu` tries it out with gloo.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from mpkit.course.ranks.torchrun import ROOT, around, torchrun
from mpkit.course.record.command import shown
from mpkit.course.recorded.machine import FOLDER, header, machine, write
from mpkit.course.recorded.place import add_place, folder

EXAMPLES = ("ddp", "fsdp")
PATIENCE = 300.0  # seconds for one run
HALF, WHOLE = 6, 12  # steps of the runs that are resumed


def run(example: str, ranks: int, cpu: bool, options: Sequence[object]) -> dict[str, Any]:
    """One training in `ranks` fresh processes, and the line that it prints. RuntimeError: it failed; its last words."""
    script = ROOT / "examples" / f"train_{example}.py"
    command, environment = torchrun(ranks, script, "--json", *options), around(1 if cpu else 4, not cpu)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:  # a rank that stumbles on its way out has told all before
        raise RuntimeError(f"{' '.join(command[5:])} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    print(f"{example}, {ranks} ranks {' '.join(map(str, options))}: {lines[-1]}", file=sys.stderr)  # noqa: T201
    return found


def speed(example: str, ranks: int, chosen: argparse.Namespace) -> list[float]:
    """Images a second, of each process."""
    options = [*_model(chosen), "--batch", chosen.batch, "--steps", chosen.steps]
    return [float(run(example, ranks, chosen.cpu, options)["images_per_second"]) for _ in range(chosen.processes)]


def agreement(example: str, ranks: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """An Inf on the last rank, in the data and later after the sum; the run again; and resumed from half way."""
    last = ranks - 1
    plants = {"data": [2, last], "gradient": [4, last]}
    options = [
        *_model(chosen), "--batch", min(chosen.batch, 32), "--deterministic", "--steps", WHOLE,
        "--inf", *plants["data"], "--inf-gradient", *plants["gradient"],
    ]  # fmt: skip
    with TemporaryDirectory(prefix="mpkit-ranks-") as place:
        saved = ["--checkpoint", place, "--every", HALF]
        straight = run(example, ranks, chosen.cpu, [*options, *saved])
        again = straight if chosen.cpu else run(example, ranks, chosen.cpu, options)
        for path in Path(place).glob(f"{WHOLE:08}*"):  # as if the run had died before
            path.unlink() if path.is_file() else shutil.rmtree(path)
        resumed = run(example, ranks, chosen.cpu, [*options, *saved, "--resume"])
    runs = {"straight": straight, "again": again, "resumed": resumed}
    return {
        "planted": plants,
        "skipped": [one["skipped"] for one in straight["ranks"]],
        "scale": [one["scale"] for one in straight["ranks"]],
        "checksum": {name: [_end(one) for one in found["ranks"]] for name, found in runs.items()},
    }


def _end(rank: dict[str, Any]) -> str:
    return f"{rank['checksum']} at scale {rank['scale']:g}"


def _model(chosen: argparse.Namespace) -> list[object]:
    return ["--model", chosen.model, *(["--synthetic", "--size", chosen.size] if chosen.model == "resnet50" else [])]


def _here(cpu: bool) -> dict[str, str]:
    if not cpu:
        nccl: Any = torch.cuda.nccl
        return {**machine(), "nccl": ".".join(map(str, nccl.version()))}
    nothing = dict.fromkeys(("cuda", "cudnn", "triton", "python", "driver", "nccl"), "")
    return {"gpu": "CPU", "torch": torch.__version__, **nothing}


def main(argv: Sequence[str]) -> int:
    """Run everything, one launch after the other, and write the file."""
    parser = argparse.ArgumentParser(prog="python -m mpkit record-ranks", description="record lesson 11's examples")
    add = parser.add_argument
    add("--model", choices=("mlp", "resnet50"), default="resnet50")
    add("--batch", type=int, default=256, help="images a step on each rank; default 256")
    add("--size", type=int, default=224, help="height and width of resnet50's images; default 224")
    add("--steps", type=int, default=60, help="of each timed run; default 60")
    add("--processes", type=int, default=3, help="timed runs for each figure; default 3")
    add("--ranks", type=int, help="the larger number of ranks; default: one for each GPU")
    add("--examples", nargs="+", choices=EXAMPLES, default=list(EXAMPLES), help="default: both")
    add("--cpu", action="store_true", help="over gloo on this machine's cores, to try it out")
    add_place(parser, "file, otherwise named after the GPU")
    chosen = parser.parse_args(argv)
    ranks = chosen.ranks or (2 if chosen.cpu else torch.cuda.device_count())
    if not chosen.cpu and not 2 <= ranks <= torch.cuda.device_count():
        parser.error(f"this needs two GPUs or more, and torch sees {torch.cuda.device_count()}; --cpu tries it out.")
    agreed = {example: agreement(example, ranks, chosen) for example in chosen.examples}
    times = {example: {n: speed(example, n, chosen) for n in (1, ranks)} for example in chosen.examples}
    record = {
        **header("ranks", _here(chosen.cpu), shown(argv), chosen.processes, ranks),
        "model": chosen.model, "batch": chosen.batch, "steps": chosen.steps,
        "images": {name: {n: statistics.median(some) for n, some in row.items()} for name, row in times.items()},
        "range": {"images": {name: {n: [min(s), max(s)] for n, s in row.items()} for name, row in times.items()}},
        "planted": agreed[chosen.examples[0]]["planted"],
        **{what: {name: agreed[name][what] for name in chosen.examples} for what in ("skipped", "scale", "checksum")},
    }  # fmt: skip
    path = write("ranks", record, chosen.out, folder(chosen, FOLDER))
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
