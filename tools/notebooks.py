"""Execute, store and check the lessons.

python tools/notebooks.py run [NN ...]     execute the lessons (all, or those numbers) and store them canonically
python tools/notebooks.py check [NN ...]   read the stored lessons and report what breaks a rule
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import v4
from nblint import lint
from nbstore import canonical, machine_paths

LESSONS = Path(__file__).resolve().parent.parent / "notebooks"
CELL_SECONDS = 120


def lessons(numbers: list[str], folder: Path = LESSONS) -> list[Path]:
    """The lessons' files in reading order; all of them when no number is asked for.

    Raises ValueError for a number that no lesson has.
    """
    paths = sorted(path for path in folder.glob("*.ipynb"))
    for number in numbers:
        if not any(path.name.startswith(f"{number}_") for path in paths):
            have = ", ".join(path.name[:2] for path in paths) or "none"
            raise ValueError(f"no lesson {number!r} in {folder.name}/; there are: {have}")
    return [p for p in paths if not numbers or any(p.name.startswith(f"{n}_") for n in numbers)]


def execute(path: Path) -> None:
    """Run one lesson from top to bottom in a fresh kernel and home, and store it if nothing went wrong.

    Raises nbclient's CellExecutionError or CellTimeoutError, or ValueError if a machine path would be stored;
    the file is then as it was.
    """
    nb = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as home:
        client = NotebookClient(
            nb,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            store_widget_state=False,
            coalesce_streams=True,
            record_timing=False,
        )
        client.execute(env={**os.environ, "MPKIT_HOME": home})
    canonical(nb)
    if paths := machine_paths(nb):
        raise ValueError(f"{path.name} shows a path of this machine: {'; '.join(paths)}")
    nbformat.write(nb, path)


def run(paths: list[Path]) -> int:
    """Execute and store each lesson; returns how many could not be."""
    failed = 0
    for path in paths:
        start = time.monotonic()
        try:
            execute(path)
        except (CellExecutionError, CellTimeoutError, ValueError) as error:
            failed += 1
            print(f"{path.name}: not stored\n{error}", file=sys.stderr)
        else:
            print(f"{path.name}: stored after {time.monotonic() - start:.1f} s")
    return failed


def check(paths: list[Path]) -> int:
    """Print every broken rule; returns how many there are."""
    # As it lies there: nbformat.read would silently repair some of what the rules look for.
    stored = [(path.name, v4.reads(path.read_text(encoding="utf-8"))) for path in paths]
    complaints = [f"{name}: {text}" for name, nb in stored for text in lint(nb)]
    for line in complaints:
        print(line)
    print(f"{len(paths)} lessons read, {len(complaints)} complaints")
    return len(complaints)


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit status is 0 only if every lesson is in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "check"])
    parser.add_argument("numbers", nargs="*", metavar="NN", help="lesson numbers, for example 00 04")
    args = parser.parse_args(argv)
    try:
        paths = lessons(args.numbers)
    except ValueError as error:
        parser.error(str(error))
    return min(1, {"run": run, "check": check}[args.action](paths))


if __name__ == "__main__":
    sys.exit(main())
