"""Run the lessons strictly on a machine with a GPU, and prove that they train there.

python tools/gpulessons.py [NOTEBOOK ...]      all lessons without a name; `make test-gpu-lessons` calls it

nbval compares the outputs. Meanwhile each kernel writes down what its cells do (tools/kernelrecord.py), and in the end
tools/gpuproof.py judges that. The status is 0 only if both are content.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from gpuproof import notes, read, table, violations
from kernelrecord import FOLDER, GIB

ROOT = Path(__file__).resolve().parents[1]
FIRST = "00"  # it shows what the learner has done in the others: it runs by itself, where nothing is done yet
CELL_SECONDS = 300
# In a function of its own: a startup file runs among the lesson's own names, and must leave none there.
STARTUP = f"""
def _record_cells():
    import sys
    sys.path.insert(0, {str(ROOT / "tools")!r})
    import kernelrecord
    sys.path.pop(0)
    kernelrecord.begin(get_ipython())
_record_cells()
del _record_cells
"""
CONFIG = "c.HistoryManager.enabled = False  # several kernels would share its file\n"


def recording(folder: Path) -> dict[str, str]:
    """What the environment of a kernel needs for its record to be written to `folder`, which is made."""
    profile = folder / "ipython" / "profile_default"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup" / "record_cells.py").write_text(STARTUP, encoding="utf-8")
    (profile / "ipython_kernel_config.py").write_text(CONFIG, encoding="utf-8")
    return {
        "IPYTHONDIR": str(folder / "ipython"), FOLDER: str(folder), "KINETO_LOG_LEVEL": "5",
        # What torch.profiler itself sets where it knows of CUDA graphs: a CUPTI that goes and comes breaks them.
        "TEARDOWN_CUPTI": "0", "DISABLE_CUPTI_LAZY_REINIT": "1",
    }  # fmt: skip


def run(notebooks: Sequence[Path], jobs: int, environment: dict[str, str]) -> int:
    """Run these lessons under nbval, `jobs` at a time, in a home of their own; returns pytest's status."""
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env",
               f"--nbval-cell-timeout={CELL_SECONDS}", *(str(path.resolve()) for path in notebooks)]  # fmt: skip
    if jobs > 1 and len(notebooks) > 1:
        command += ["-n", str(min(jobs, len(notebooks))), "--dist", "loadscope"]
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(command, cwd=ROOT, env={**environment, "MPKIT_HOME": home}).returncode


def code_cells(notebook: Path) -> int:
    """How many of a lesson's cells nbval runs."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return sum(cell["cell_type"] == "code" for cell in cells)


def report(folder: Path, notebooks: Sequence[Path]) -> int:
    """Print what the kernels wrote, and what is wrong with it; returns how much is."""
    lessons = read(folder)
    wrong = violations(lessons, {path.name[:2]: code_cells(path) for path in notebooks})
    print("", table(lessons), "", *notes(lessons), sep="\n")
    if wrong:
        print("\nNot proven:", *(f"  {line}" for line in wrong), sep="\n")
    else:
        cells = sum(len(lesson.training) for lesson in lessons)
        print(f"\nProven: {cells} training cells, each with its parameters on the GPU.")
    return len(wrong)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted((ROOT / "notebooks").glob("*.ipynb")))
    parser.add_argument("--jobs", type=int, default=3, help="lessons at once; default 3")
    parser.add_argument("--gib", type=float, help="the most GPU memory that one kernel gets; default: all of it")
    options = parser.parse_args(argv)
    if missing := [path.name for path in options.notebooks if not path.is_file()]:
        parser.error(f"no notebook {missing[0]}; name files such as notebooks/04_scale_the_loss.ipynb.")
    if options.gib is not None and not torch.cuda.is_available():
        parser.error("--gib limits a GPU's memory and there is no GPU here; leave it out.")
    first = [path for path in options.notebooks if path.name.startswith(FIRST)]
    others = [path for path in options.notebooks if path not in first]
    with tempfile.TemporaryDirectory() as name:
        environment = {**os.environ, **recording(Path(name))}
        if options.gib is not None:
            environment[GIB] = str(options.gib)
        failed = [run(group, options.jobs, environment) != 0 for group in (first, others) if group]
        wrong = report(Path(name), options.notebooks)
    print("Outputs:", "NOT as they are stored, see above." if any(failed) else "as they are stored, in every lesson.")
    return int(any(failed) or wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
