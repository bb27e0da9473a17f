"""Start a script in several processes, as `torchrun` does, and get one answer from each, or one sentence.

From a notebook this has to be a command of its own: processes that are forked or spawned from a kernel break there.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mpkit.course.lesson_11.failures import LEFT, first_failure
from mpkit.course.ranks.rank import FOLDER, WAITS
from mpkit.course.ranks.torchrun import around, torchrun

GRACE = 5.0  # seconds for the launcher to end its processes; then they are killed
STILL = "after {:g} s {} of {} ranks had not answered, and all were ended. Does one wait for another?"
START = """
import __future__
from pathlib import Path

import torch
import torch.distributed as dist

import mpkit
from mpkit.course.ranks.rank import answer

path, name = {path!r}, {name!r}
flags = __future__.annotations.compiler_flag
exec(compile(Path(path).read_text(encoding="utf-8"), path, "exec", flags))
answer(globals()[name])
"""


class RankFailed(RuntimeError):
    """What happened first, in one sentence. `rank`: whose failure it is; None: nobody's, time was up."""

    def __init__(self, sentence: str, rank: int | None = None) -> None:
        super().__init__(sentence)
        self.rank = rank


def launch(
    script: str | Path | Callable[..., Any],
    *arguments: object,
    ranks: int = 2,
    patience: float = 120.0,
    waits: float = 60.0,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Run `script` in `ranks` processes of this machine; returns what each handed to `rank.answer`, in their order.

    The command is `python -m torch.distributed.run --standalone --nproc-per-node RANKS …`; it takes about five seconds.
    When this returns or raises, also after an interrupt, none of its processes is left, nor of those that the ranks
    started: on Linux they are found by the environment that they inherit.

    Args:
        script: a module ("mpkit.course.ranks.agreement"), a file (a `Path`), or a function `f(rank)` whose
            source stands alone: it may use `torch`, `dist` and `mpkit`, takes a `mpkit.course.ranks.rank.Rank`,
            and returns a dict of numbers, strings and lists.
        arguments: the script's own, as text.
        ranks: processes; they share this machine's cores, one thread each.
        patience: seconds after which all are ended.
        waits: seconds after which a rank that waits for another one gives up; less than `patience`.
        device: "cpu", with gloo; "cuda", with NCCL and one GPU for each rank.

    Raises:
        RankFailed: a rank raised, was killed, or did not answer in time. It tells the first failure: the ranks that
            waited for that one fail too, and say only that a connection was closed.
    """
    with TemporaryDirectory(prefix="mpkit-ranks-") as name:
        folder = Path(name)
        target = _target(script, folder)
        command = torchrun(ranks, "--log-dir", folder / "logs", *target, *arguments)
        # By LOGLEVEL the launcher says whom it ended itself.
        found = {WAITS: str(waits), "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "2", "LOGLEVEL": "WARNING"}
        status, said = _run(command, around(1, device == "cuda", **found), folder, patience)
        answers = {n: path for n in range(ranks) if (path := folder / f"rank{n}.json").exists()}
        silent = [n for n in range(ranks) if n not in answers]
        if silent and status is None:
            raise RankFailed(STILL.format(patience, len(silent), ranks))
        if silent and status == 0:
            raise RankFailed(LEFT.format(silent[0], ""), silent[0])
        if silent:
            raise RankFailed(*first_failure(said, folder / "logs", silent))
        return [json.loads(path.read_text(encoding="utf-8")) for path in answers.values()]  # however they left then


def _target(script: str | Path | Callable[..., Any], folder: Path) -> list[str]:
    if isinstance(script, str):
        return ["-m", script]
    if callable(script):  # a file of its own, so that an error names the function's own lines
        name, source = script.__name__, textwrap.dedent(inspect.getsource(script))
        path, script = folder / f"{name}.py", folder / "start.py"
        path.write_text(source, encoding="utf-8")
        script.write_text(START.format(path=str(path), name=name), encoding="utf-8")
    return [str(script)]


def _run(command: list[str], environment: dict[str, str], folder: Path, patience: float) -> tuple[int | None, str]:
    """Status, None if time was up, and what was said. A file and no pipe: whoever is left over could hold that open."""
    path, found = folder / "said.txt", {**environment, FOLDER: str(folder)}
    with path.open("wb") as said:
        process = subprocess.Popen(command, env=found, stdout=said, stderr=said, start_new_session=True)
        try:
            status: int | None = process.wait(patience)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process, folder)
    return status, path.read_text(encoding="utf-8", errors="replace")


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """End the launcher, its ranks, and what they started: many lead sessions of their own, so no signal reaches all."""
    if process.poll() is None:
        process.terminate()  # it passes this on to its ranks
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    until = time.monotonic() + GRACE
    while (left := _left(folder)) and time.monotonic() < until:  # again: one may start another meanwhile
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # it ended just now
                continue
        time.sleep(0.01)


def _left(folder: Path) -> list[int]:
    """This user's processes that were started with this folder in their environment, where /proc tells (Linux)."""
    mark, found = f"{FOLDER}={folder}".encode(), []
    for one in Path("/proc").glob("[0-9]*"):
        try:
            if one.stat().st_uid == os.getuid() and mark in (one / "environ").read_bytes().split(b"\0"):
                found.append(int(one.name))
        except OSError:  # it ended just now, or is another user's
            continue
    return found
