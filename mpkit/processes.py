"""Run commands in fresh processes, one at a time on each GPU.

One process is one draw: in each, cuDNN chooses its algorithms anew and memory lies elsewhere. So what is told as a fact
is a median over processes.
"""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryFile

import torch

PLACE = "CUDA_VISIBLE_DEVICES"
LAST_LINES = 12


@dataclass(frozen=True)
class Ended:
    """A process that has ended. `status`: None if it was stopped, since it took too long."""

    place: str | None
    status: int | None
    seconds: float
    last_words: str

    @property
    def trouble(self) -> str:
        """What went wrong, "" if nothing did."""
        if self.status is None:
            return f"not done after {self.seconds:.0f} s" + (self.last_words and f": {self.last_words}")
        return "" if self.status == 0 else self.last_words or f"status {self.status}"


def gpus(count: int) -> list[str]:
    """The first `count` of the GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them.

    ValueError: there are not so many.
    """
    named = [name for name in os.environ.get(PLACE, "").split(",") if name.strip()]
    seen = named or [str(number) for number in range(torch.cuda.device_count())]
    if not 1 <= count <= len(seen):
        what = f"use a number from 1 to {len(seen)}" if seen else "there is none to use"
        raise ValueError(f"--gpus {count}: torch sees {len(seen)} here; {what}.")
    return seen[:count]


def in_turn(
    commands: Sequence[Sequence[str]],
    places: Sequence[str | None],
    cache: Path,
    patience: float,
    told: Callable[[int, Ended], None] = lambda number, ended: None,
) -> list[Ended]:
    """Start each command, in this order, as soon as a place is free, and wait for all of them.

    Args:
        commands: program and arguments. What one prints goes to this process's standard error.
        places: GPUs, by name; each has one process at a time. None: the process sees what this one sees.
        cache: folder for what torch.compile makes, so that only the first process waits for it.
        patience: seconds after which a process is stopped.
        told: called with the command's number when it has ended, from another thread.
    """
    free: SimpleQueue[str | None] = SimpleQueue()
    for place in places:
        free.put(place)

    def run(number: int) -> Ended:
        place = free.get()
        try:
            ended = _run(commands[number], place, _environment(place, cache, len(places)), patience)
        finally:
            free.put(place)
        told(number, ended)
        return ended

    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(run, range(len(commands))))


def _run(command: Sequence[str], place: str | None, environment: dict[str, str], patience: float) -> Ended:
    start = time.perf_counter()
    with TemporaryFile() as said:  # no pipe: what a process started itself could hold it open
        try:
            status: int | None = subprocess.run(
                command, env=environment, stdout=2, stderr=said, timeout=patience, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            status = None
        said.seek(0)
        words = said.read().decode(errors="replace").strip().splitlines()
    return Ended(place, status, time.perf_counter() - start, "\n".join(words[-LAST_LINES:]))


def _environment(place: str | None, cache: Path, beside: int) -> dict[str, str]:
    threads = max(1, min(8, (os.cpu_count() or 1) // beside))  # of the compiler, beside the other processes
    around = {
        **os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache), "TORCHINDUCTOR_COMPILE_THREADS": str(threads),
    }  # fmt: skip
    if torch.__version__ < "2.13":  # its cache of training graphs mixes up autocast's dtypes: see training/compiling
        around["TORCHINDUCTOR_AUTOGRAD_CACHE"] = "0"
    return around if place is None else {**around, PLACE: place}
