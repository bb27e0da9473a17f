"""The patients of the clinic as the lesson shows them: by number, for a name would give the cause away."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from mpkit.course.clinic import PATIENTS, Case, Patient, follow

# Number k is the k-th of these; mixed, so that a neighbour tells nothing.
ORDER = """
poisoned-batch-norm eps-in-norm scheduler-drift attention-scores one-autocast ignored-labels double-unscale
discarded-log no-scaler masked-twice ema-in-bf16 scale-to-zero left-over-memory adam-eps colliding-positions
scaler-not-saved own-softmax other-parameters clipped-inf zero-norm clip-before-unscale where-sqrt adam-in-bf16
probing-scaler sum-before-mean stale-scale zero-grad-after-skip bf16-checkpoint micro-batches-in-bf16
""".split()
NUMBERS = tuple(range(1, len(ORDER) + 1))
SIGNS = {  # what some of the owners' curves are called here
    "right up to 256": "share right up to token 256", "right from 512": "share right from token 512",
    "weight": "mean weight", "gradient": "largest gradient", "share at 448": "share of weights at 448",
}  # fmt: skip
Curves = dict[str, list[float]]


def patient(number: int) -> Patient:
    """The patient with this number, from 1."""
    return PATIENTS[ORDER[number - 1]]


@contextmanager
def apart() -> Iterator[None]:
    """What a patient's script draws and warns of is its own; a lesson's random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def admitted(number: int, seed: int = 0, device: str = "cpu") -> Case:
    """The patient's script, sick, at a moment when one more step shows the fault."""
    chosen = patient(number)
    case = chosen.build(True, seed, device)
    follow(case, chosen.after)
    return case


def logged(case: Case, steps: int) -> Curves:
    """What the owner of a case logs in so many steps, by name."""
    with apart():
        found = follow(case, steps)
    return {SIGNS.get(name, name): values for name, values in found.items()}


@cache
def curves(number: int, sick: bool, device: str = "cpu") -> Curves:
    """What the owner sees: a training of the script, sick or cured. It runs once."""
    chosen = patient(number)
    with apart():
        case = chosen.build(sick, 0, device)
    return logged(case, chosen.steps)
