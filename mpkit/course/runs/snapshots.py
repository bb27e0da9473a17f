"""Record the gradients of a real training run, then ask what any format and loss scale would do to them."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from mpkit import FloatFormat, Policy, RangeReport, fit, tally
from mpkit.course.nets.models import SeedsNet
from mpkit.formats import require_format
from mpkit.training import StepData


@dataclass(frozen=True)
class LayerGradients:
    """Every gradient value of one linear layer in one backward pass, unscaled, flat.

    `signal`: of the loss with respect to the layer's output, (batch × features); it travels on to the layer before.
    `weight`: with respect to its weights and biases, summed over the batch; the optimizer uses it.
    """

    signal: Tensor
    weight: Tensor

    @property
    def all(self) -> Tensor:
        """Both together."""
        return torch.cat([self.signal, self.weight])


@dataclass(frozen=True)
class WhatIf:
    """What a format and a loss scale of 2^log2_scale do to the recorded gradients of one step.

    `layers`, `total`: where the scaled gradient values land in the format.
    `cosines`, `cosine`: between the weight gradient of a backward pass that really runs in the format, and FP32's.
    A cosine is None where no direction is left: every value became zero, or one became Inf or NaN.
    """

    step: int
    format: FloatFormat
    log2_scale: int
    layers: tuple[RangeReport, ...]
    cosines: tuple[float | None, ...]
    total: RangeReport
    cosine: float | None


@dataclass(frozen=True)
class Snapshot:
    """A model and a batch at one step, and their FP32 gradients."""

    model: SeedsNet
    inputs: Tensor
    targets: Tensor
    layers: tuple[LayerGradients, ...]


@dataclass(frozen=True)
class GradientSnapshots:
    """Snapshots of a training run, and what other formats and loss scales would have made of its gradients."""

    names: tuple[str, ...]
    snapshots: Mapping[int, Snapshot]

    @property
    def steps(self) -> list[int]:
        """The recorded steps, ascending."""
        return sorted(self.snapshots)

    def at(self, step: int) -> Snapshot:
        """One snapshot. Raises ValueError, with the recorded steps, for any other step."""
        if step not in self.snapshots:
            raise ValueError(f"step {step} was not recorded; use one of {', '.join(map(str, self.steps))}.")
        return self.snapshots[step]

    def what_if(self, step: int, fmt: FloatFormat, log2_scale: int) -> WhatIf:
        """Scale the gradients of `step` by 2^log2_scale, count where they land, and run the backward pass in `fmt`."""
        snapshot, scale = self.at(step), 2.0**log2_scale
        policy = Policy(forward=require_format(fmt), backward=fmt)
        lower = layer_gradients(snapshot.model, snapshot.inputs, snapshot.targets, policy, scale)
        layers = tuple(tally(layer.all * scale, fmt) for layer in snapshot.layers)
        exact = [layer.weight for layer in snapshot.layers]
        found = [layer.weight for layer in lower]
        return WhatIf(
            step=step,
            format=fmt,
            log2_scale=log2_scale,
            layers=layers,
            cosines=tuple(cosine(a, b) for a, b in zip(exact, found, strict=True)),
            total=reduce(add, layers),
            cosine=cosine(torch.cat(exact), torch.cat(found)),
        )


def layer_gradients(
    model: SeedsNet, inputs: Tensor, targets: Tensor, policy: Policy, scale: float = 1.0
) -> tuple[LayerGradients, ...]:
    """Run one forward and backward pass under `policy` and return each layer's gradients, divided by `scale` again.

    The pass runs where the model is, natively if it can; the gradients come back on the CPU, in float32.
    """
    outputs: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Tensor) -> None:
        outputs.append(output)

    layers = model.linear_layers()
    parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        with policy.apply(model, engine="auto"):
            loss = model.loss(model(inputs), targets).sum()
            grads = torch.autograd.grad(loss * scale, [*outputs, *parameters])
    finally:
        for hook in hooks:
            hook.remove()
    flat = [grad.flatten().float().cpu() / scale for grad in grads]
    signals, weights, biases = flat[: len(layers)], flat[len(layers) :: 2], flat[len(layers) + 1 :: 2]
    return tuple(LayerGradients(s, torch.cat([w, b])) for s, w, b in zip(signals, weights, biases, strict=True))


def cosine(a: Tensor, b: Tensor) -> float | None:
    """Cosine of the angle between two flat tensors, computed in float64; None if either has no direction."""
    a, b = a.double(), b.double()
    product = float(a.norm() * b.norm())
    if product == 0 or not torch.isfinite(b).all():
        return None
    return min(float(a @ b) / product, 1.0)


def record_gradients(
    model: SeedsNet, data: StepData, optimizer: torch.optim.Optimizer, at: Sequence[int]
) -> GradientSnapshots:
    """Train `model` in FP32 up to the last step of `at` and keep a snapshot before each of those steps.

    Args:
        model: one of `mpkit.course.nets.models` with one seed; it is trained, so pass a fresh one.
        data, optimizer: as for `mpkit.fit`; data on the model's device.
        at: steps to keep, counted from 0.

    Raises:
        ValueError: the model holds several seeds, or `at` is empty.
    """
    if len(model.seeds) != 1 or not at:
        raise ValueError(f"one seed and at least one step are asked for; {len(model.seeds)} seeds and {len(at)} came.")
    run = fit(model, data, optimizer=optimizer, steps=max(at), measure_flushed=False, engine="auto", capture="auto")
    snapshots = {}
    for step in range(max(at) + 1):
        if step in at:
            inputs, targets = data.batch(step)
            frozen = copy.deepcopy(model)
            snapshots[step] = Snapshot(frozen, inputs, targets, layer_gradients(frozen, inputs, targets, Policy()))
        next(run, None)
    count = len(model.linear_layers())
    ends = {1: " (input)", count: " (output)"}
    return GradientSnapshots(tuple(f"layer {n}{ends.get(n, '')}" for n in range(1, count + 1)), snapshots)
