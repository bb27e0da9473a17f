"""`fit`: one legible training loop."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from mpkit.policy.meter import Meter
from mpkit.policy.policy import Policy
from mpkit.scaling import NoScaling
from mpkit.scaling.loss_scaler import LossScaler
from mpkit.training.batches import StepData
from mpkit.training.capture import why_not
from mpkit.training.run import Run
from mpkit.training.step import LossFunction, TrainStep


def fit(
    model: nn.Module,
    data: StepData,
    *,
    optimizer: torch.optim.Optimizer,
    steps: int,
    policy: Policy | None = None,
    scaler: LossScaler | None = None,
    loss_fn: LossFunction | None = None,
    measure_flushed: bool | None = None,
    measure_every: int = 20,
    engine: str = "emulated",
    capture: bool | Literal["auto"] = False,
    read_every: int = 1,
    compile: bool = False,
    max_norm: float | None = None,
    micro_batches: int = 1,
) -> Run:
    """Train `model` and yield a `StepRecord` for every step.

    Args:
        model: float32 parameters. If its output has one slice a seed and `loss_fn` returns one loss a seed, as the
            models in `mpkit.course.nets.models` do, all seeds train at once; they share the scaler and its skips.
        data: anything with `batch(step) -> (inputs, targets)`, such as `mpkit.Batches`.
        optimizer: any torch optimizer over the model's parameters.
        steps: total number of steps, skipped ones included.
        policy: which stage uses which format; None is FP32.
        scaler: None scales by 1. It skips a step with a non-finite gradient in every case.
        loss_fn: (output, targets) → loss of shape () or (seeds,). Default: `model.loss` if there is one, else
            cross-entropy.
        measure_flushed: count flushed gradients. Emulation, uncaptured, does so in every step (about a fifth of its
            time on a CPU). Elsewhere a second backward pass, emulated, counts in step 0 and then in every
            `measure_every`-th; the records between have None. It needs the memory of an emulated step, counts in that
            step's `seconds`, and leaves parameters, buffers and torch's random numbers alone. A forward pass that
            changes anything else (a counter, a generator of its own, hooks that step) does so twice. None: only where
            emulation counts anyway.
        measure_every: steps from one such measured step to the next.
        engine: "emulated", "native" or "auto", as for `Policy.apply`.
        capture: record the whole step (forward, backward, check, update, scale) in a CUDA graph at the first step and
            replay it: no Python between its kernels. Batches must keep their shape; see `mpkit.training.capture`.
            "auto" does so where device, optimizer and rule allow it, and goes on without if the model turns out not to,
            or a setting such as the learning rate changes; `Run.uncaptured_because` says why not.
        read_every: with `capture`, train so many steps before their records are read, so that the host waits once for
            all of them. A setting that is changed after a record acts from the next such block on.
            The model is then up to so many steps ahead of the record in hand, and a state that is saved is
            the model's: a run that resumes from it goes on behind the records that were still to be read.
        compile: forward pass, loss and backward pass are compiled by torch.compile at the first step, which takes from
            seconds to minutes. With `capture` the compiled step is what the graph replays: the fastest way to train
            here. For engine="native", and for FP32. Results differ in the last bits, as torch.compile's do.
        max_norm: clip the unscaled gradient of all parameters together (all seeds, too) to this Euclidean norm.
            Records have the norm from before.
        micro_batches: divide each batch into so many equal parts along its first dimension, add up their gradients,
            and step once with the mean: the memory of a part, the step of the whole (except what looks across samples,
            such as batch norm). The batch's size must be a multiple.

    Returns:
        A `Run`: an iterator with `stop()`, `state_dict()` and `load_state_dict()`.

    Raises:
        TypeError: `data` has no `batch` method, or policy, scaler or optimizer is of another kind.
        ValueError: unknown engine; `steps` is negative or no whole number; `measure_every` is below 1; or `read_every`
            is below 1, or above 1 without capture; `compile` with emulation or the policy "article"; a `max_norm` that
            is not above 0; `micro_batches` below 1, or (at a step) no divisor of the batch.
    """
    _require_data(data)
    if not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps={steps!r}; use 0 or more, and a whole number.")
    _require_kind("policy", policy, Policy, 'mpkit.Policy.preset("fp16-mixed")')
    _require_kind("scaler", scaler, LossScaler, "mpkit.LossScaler(mpkit.DynamicScale())")
    _require_optimizer(optimizer)
    policy = policy or Policy()
    engine = policy.engine_for(model, engine)
    if read_every < 1 or (read_every > 1 and not capture):
        raise ValueError(f"read_every={read_every} needs capture=True and a number of 1 or more.")
    if not isinstance(measure_every, int) or measure_every < 1:
        raise ValueError(f"measure_every={measure_every!r}; use a whole number from 1 on, such as 20.")
    scaler = scaler or LossScaler(NoScaling())
    auto = capture == "auto"
    because = why_not(optimizer, scaler.rule) or "" if auto else ""
    capture = not because if auto else capture
    in_every_step = engine == "emulated" and not capture
    measure = in_every_step if measure_flushed is None else measure_flushed
    loss_fn = loss_fn or getattr(model, "loss", None) or F.cross_entropy
    meter = Meter() if measure and in_every_step else None
    work = TrainStep(
        model, optimizer, policy, scaler, loss_fn, engine, meter, compile, max_norm, micro_batches
    )  # fmt: skip
    apart = measure_every if measure and not in_every_step else 0
    return Run(work, data, steps, read_every if capture else 0, apart, because, auto)


def _require_data(data: Any) -> None:
    if not callable(getattr(data, "batch", None)):
        raise TypeError(
            f"data is asked to have batch(step) -> (inputs, targets), but a {type(data).__name__} came; "
            "wrap tensors as mpkit.Batches(inputs, targets, batch_size)."
        )


def _require_kind(name: str, value: Any, kind: type, example: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} is asked to be a {kind.__name__}, but a {type(value).__name__} came; write {example}.")


def _require_optimizer(optimizer: Any) -> None:
    if not hasattr(optimizer, "param_groups"):
        came = f"optimizer is asked to have param_groups, but a {type(optimizer).__name__} came"
        raise TypeError(f"{came}; write torch.optim.Adam(model.parameters()).")
    if isinstance(getattr(optimizer, "optimizer", optimizer), torch.optim.LBFGS):  # a wrapper's own, too
        raise TypeError(
            "LBFGS needs a closure, which fit does not make; use an optimizer that steps once, such as SGD."
        )
