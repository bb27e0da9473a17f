"""`start`, the first cell of every lesson."""

import importlib
import importlib.util
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mpkit.course.device import Choice, choose
from mpkit.course.table import Entry, find

EMULATED = "FP16 and friends are emulated: FP32 arithmetic, every operand, result and gradient rounded."
STYLE_SHEET = Path(__file__).parent / "pictures" / "mpkit.mplstyle"


@dataclass(frozen=True)
class Lesson:
    """What `start` hands back. `device` is where the lesson computes: "cuda" or "cpu"."""

    number: str
    title: str
    device: str
    seed: int


def start(number: str, seed: int = 0, device: str | None = None) -> Lesson:
    """Make a lesson repeatable, choose its device and print its plan: three short lines.

    The device is the GPU where there is one that works, else the CPU; `mpkit.course.device.choose` says how. Torch's
    default device stays what it is: a tensor goes to the GPU only where the lesson says `device=lesson.device`.

    Seeds random, numpy and torch; sets one CPU thread; gives matplotlib, where it is installed, the course's look. On
    CUDA it sets `torch.backends.cudnn.deterministic` and clears `.benchmark`, so that a run repeats to the bit, and
    clears `allow_tf32` of cuDNN and of matrix products, because a lesson's FP32 must be FP32.

    Args:
        number: two digits, such as "04".
        seed: 0 to 2^32 - 1 (numpy's range).
        device: "cpu" or "cuda"; None: the environment variable MPKIT_DEVICE decides, and without it what works.

    Raises:
        TypeError: `number` or `device` is not a string, or `seed` is not an int.
        ValueError: no such lesson, a seed outside the range, or another word for the device.
        RuntimeError: "cuda" was asked for, and no GPU can be used.
    """
    entry = find(number)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"seed must be an int, but {seed!r} ({type(seed).__name__}) came.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1, but {seed} came.")
    choice = choose(device)
    if choice.name == "cuda":
        _make_cuda_repeat()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    # Two threads on a busy two-core machine made small matmuls up to a thousand times slower.
    torch.set_num_threads(1)
    _use_the_look()
    sys.stdout.write(plan(entry, seed, choice) + "\n")
    return Lesson(entry.number, entry.title, choice.name, seed)


def plan(entry: Entry, seed: int, choice: Choice) -> str:
    """The text that `start` prints. A CPU where torch finds no GPU needs no reason."""
    if choice.name == "cuda":
        place = f"Device cuda ({choice.gpu.name}). {choice.why}\n{choice.formats()}"
    elif choice.gpu.case == "none":
        place = (
            "Device cpu: FP16 and friends are emulated: arithmetic in FP32,\n"
            "every operand, result and gradient rounded."
        )
    else:
        cured = "FP16 and friends are emulated in FP32 and rounded. How to use the GPU: ask the doctor in lesson 00."
        place = f"Device cpu. {choice.why}\n{cured if choice.gpu.cure else EMULATED}"
    return (
        f"Lesson {entry.number} · {entry.title} · about {entry.minutes} minutes · seed {seed} · one CPU thread\n{place}"
    )


def _make_cuda_repeat() -> None:
    """The settings of CUDA that `start` names."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def _use_the_look() -> None:
    """Give the learner's own plots the course's style sheet. Nothing happens without matplotlib."""
    if importlib.util.find_spec("matplotlib") is not None:
        importlib.import_module("matplotlib.style").use(STYLE_SHEET)
