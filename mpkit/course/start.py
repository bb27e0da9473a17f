"""`start`, the first cell of every lesson."""

import importlib
import importlib.util
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mpkit.course.table import Entry, find

STYLE_SHEET = Path(__file__).parent / "pictures" / "mpkit.mplstyle"
DEVICE = "cpu"  # where every lesson computes: the small formats are emulated on CPU tensors


@dataclass(frozen=True)
class Lesson:
    """What `start` hands back. `device` is where the lesson computes: "cpu", also on a machine with a GPU."""

    number: str
    title: str
    device: str
    seed: int


def start(number: str, seed: int = 0) -> Lesson:
    """Make a lesson repeatable and print its plan: three short lines, the same on every machine.

    The lessons emulate the small formats on CPU tensors, with or without a GPU.

    Seeds random, numpy and torch; sets one CPU thread; gives matplotlib, where it is installed, the course's look.

    Args:
        number: two digits, such as "04".
        seed: 0 to 2^32 - 1 (numpy's range).

    Raises:
        TypeError: `number` is not a string, or `seed` is not an int.
        ValueError: no such lesson, or a seed outside the range.
    """
    entry = find(number)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"seed must be an int, but {seed!r} ({type(seed).__name__}) came.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1, but {seed} came.")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    # Two threads on a busy two-core machine made small matmuls up to a thousand times slower.
    torch.set_num_threads(1)
    _use_the_look()
    sys.stdout.write(plan(entry, seed) + "\n")
    return Lesson(entry.number, entry.title, DEVICE, seed)


def plan(entry: Entry, seed: int) -> str:
    """The text that `start` prints."""
    return (
        f"Lesson {entry.number} · {entry.title} · about {entry.minutes} minutes · seed {seed} · one CPU thread\n"
        f"Device {DEVICE}: FP16 and friends are emulated: arithmetic in FP32,\n"
        "every operand, result and gradient rounded."
    )


def _use_the_look() -> None:
    """Give the learner's own plots the course's style sheet. Nothing happens without matplotlib."""
    if importlib.util.find_spec("matplotlib") is not None:
        importlib.import_module("matplotlib.style").use(STYLE_SHEET)
