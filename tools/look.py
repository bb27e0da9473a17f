"""Look at a lesson as a learner sees it: run it in JupyterLab and save a picture of each windowful.

python tools/look.py 04 --out pictures [--dark] [--width 1400] [--stored]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from labdriver import running_lab
from labserver import LabError

from notebooks import LESSONS, lessons


def look(number: str, out: Path, *, dark: bool, width: int, stored: bool) -> list[str]:
    """Save the pictures of one lesson under `out`; returns the errors that page and kernel reported.

    With `stored` nothing is run: the pictures show the lesson as it lies in the repository.
    """
    name = lessons([number])[0].name
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(LESSONS, Path(folder) / "notebooks"))
        with running_lab(copy) as lab:
            page = lab.open(name, dark=dark, width=width)
            if not stored:
                lab.run_all(page)
            for path in lab.screenshots(page, out):
                print(path)
            return lab.errors


def main() -> int:
    """Entry point; the exit status is 0 only if nothing went wrong on the page or in the kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", metavar="NN", help="the lesson's number, for example 04")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder for the pictures")
    parser.add_argument("--dark", action="store_true", help="JupyterLab's dark theme")
    parser.add_argument("--width", type=int, default=1400, help="of the window, in pixels")
    parser.add_argument("--stored", action="store_true", help="show the stored lesson, run nothing")
    args = parser.parse_args()
    try:
        errors = look(args.number, args.out, dark=args.dark, width=args.width, stored=args.stored)
    except (LabError, ValueError) as error:
        parser.error(str(error))
    for text in errors:
        print(text, file=sys.stderr)
    return min(1, len(errors))


if __name__ == "__main__":
    sys.exit(main())
