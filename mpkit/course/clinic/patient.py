"""A patient of the clinic: a small training script after a real thread, in two versions, sick and cured."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from mpkit.diagnosis import KINDS

Batch = tuple[Tensor, Tensor]
Form = Literal["pass", "iteration", "checkpoint"]


def _no_signs() -> dict[str, float]:
    return {}


@dataclass
class Case:
    """What the owner's script has at hand.

    Args:
        step: one call of it is what `Patient.form` says; it returns the loss as the owner logs it.
        model: what is trained.
        optimizer, scaler, scheduler, ema: those of the script, or None.
        batch: what the owner gives to `step` when asked to show the fault; None: step takes nothing.
        signs: further curves beside the loss, read after each step.
        update: for form "pass": what the owner does with the gradients between two calls. None: nothing.
        stream: the batch of the k-th step, where batches differ; None: it is `batch` every time.
        around: the context that the owner's loop runs in. Enter it once, around all steps.
        state: for form "checkpoint": what `torch.load` gave.
    """

    step: Callable[..., Any]
    model: nn.Module
    optimizer: torch.optim.Optimizer | None = None
    scaler: Any = None
    scheduler: Any = None
    ema: nn.Module | None = None
    batch: Any = None
    signs: Callable[[], dict[str, float]] = _no_signs
    update: Callable[[], Any] | None = None
    stream: Callable[[int], Any] | None = None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    state: dict[str, Any] | None = None


class Build(Protocol):
    """Makes a case; the same seed makes the same case. It seeds torch's generator, as scripts do.

    `device` is "cpu" or "cuda".
    """

    def __call__(self, sick: bool, seed: int, device: str = "cpu") -> Case:
        """Build it, sick or cured."""


@dataclass(frozen=True)
class Patient:
    """One patient.

    Args:
        name: how it is called for.
        complaint: what the owner says.
        thread: where someone complained of it, owner/repository#number on GitHub.
        form: what one call of `Case.step` is: "pass", forward and backward; "iteration", the whole step with its
            verbs; "checkpoint", a forward of a model that was loaded, or the first iteration after it.
        silent: the logged loss never is NaN or Inf.
        kind: one of `mpkit.diagnosis.KINDS`.
        where: what must be named: a part of a module's or parameter's name, or the verb.
        because: the explanation, with numbers.
        cure: one sentence, then code.
        build: makes the case.
        steps: how many of them show it.
        after: how many have to be run before one more shows it.
    """

    name: str
    complaint: str
    thread: str
    form: Form
    silent: bool
    kind: str
    where: str
    because: str
    cure: str
    build: Build
    steps: int = 40
    after: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, but {self.kind!r} came.")
