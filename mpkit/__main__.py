"""`python -m mpkit <command>`: the commands besides the lessons."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence


def doctor(argv: Sequence[str]) -> int:
    """Print the doctor's report. Exit status 1 if something needs a cure."""
    from mpkit.course.doctor.report import examine

    parser = argparse.ArgumentParser(prog="python -m mpkit doctor", description=SUMMARY["doctor"])
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: where the lessons compute")
    arguments = parser.parse_args(argv)
    try:
        report = examine(arguments.device)
    except ValueError as error:
        parser.error(str(error))
    print(report.text())
    return 0 if report.healthy else 1


def bench(argv: Sequence[str]) -> int:
    """Run the benchmarks; mpkit.bench.table knows its own options."""
    return int(importlib.import_module("mpkit.bench.table").main(list(argv)) or 0)


def record(argv: Sequence[str]) -> int:
    """Record the gradient traces of lesson 05; mpkit.course.record.gradients knows its own options."""
    return int(importlib.import_module("mpkit.course.record.gradients").main(list(argv)))


def record_speed(argv: Sequence[str]) -> int:
    """Record the GPU figures of lesson 07; mpkit.course.record.speed knows its own options."""
    return int(importlib.import_module("mpkit.course.record.speed").main(list(argv)))


def record_transformer(argv: Sequence[str]) -> int:
    """Record the GPU figures of lesson 08; mpkit.course.record.transformer knows its own options."""
    return int(importlib.import_module("mpkit.course.record.transformer").main(list(argv)))


def record_ranks(argv: Sequence[str]) -> int:
    """Record lesson 11's examples on several GPUs; mpkit.course.record.ranks knows its own options."""
    return int(importlib.import_module("mpkit.course.record.ranks").main(list(argv)))


def robustness(argv: Sequence[str]) -> int:
    """Turn the knobs of a lesson; mpkit.course.robustness.command knows its own options."""
    return int(importlib.import_module("mpkit.course.robustness.command").main(list(argv)))


def clinic(argv: Sequence[str]) -> int:
    """List the patients of the clinic, or show one: its complaint and its script, not what is wrong with it."""
    from mpkit.course.clinic import PATIENTS, sheet

    parser = argparse.ArgumentParser(prog="python -m mpkit clinic", description=SUMMARY["clinic"])
    parser.add_argument("name", nargs="?", help="a patient; without it, all are listed")
    name = parser.parse_args(argv).name
    if name is not None and name not in PATIENTS:
        parser.error(f"no patient is called {name!r}. They are {', '.join(PATIENTS)}.")
    print(sheet.listing() if name is None else sheet.sheet(PATIENTS[name]))
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "doctor": doctor, "bench": bench, "record": record, "record-speed": record_speed,
    "record-transformer": record_transformer, "record-ranks": record_ranks, "robustness": robustness, "clinic": clinic,
}  # fmt: skip
SUMMARY = {
    "doctor": "what this machine can do, and what is missing",
    "bench": "time mpkit against the named peers",
    "record": "record the gradients of real runs for the scaler race",
    "record-speed": "record the speed, memory and energy of training on this GPU",
    "record-transformer": "record transformers on this GPU: speed, memory, energy, final losses",
    "record-ranks": "record two trainings on one GPU and on all of this machine: images a second, skips, resume",
    "robustness": "turn a lesson's knobs three times up and down, and see what its verdicts do",
    "clinic": "the patients of the clinic: training scripts with a fault to find",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: the first word is the command, the rest belongs to it."""
    listing = "\n".join(f"  {name:18} {SUMMARY[name]}" for name in COMMANDS)
    parser = argparse.ArgumentParser(
        prog="python -m mpkit",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"commands:\n{listing}",
    )
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="command", help="one of those below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="options of the command")
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    return COMMANDS[arguments.command](arguments.rest)


if __name__ == "__main__":
    sys.exit(main())
