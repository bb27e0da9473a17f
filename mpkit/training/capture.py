"""A whole training step in one CUDA graph: recorded once, then replayed without Python between its kernels.

A small model's step is launches, not arithmetic: hundreds of kernels of a few microseconds, each started by Python.
A graph starts them all at once (CUDA Graphs in PyTorch, docs "CUDA semantics"). Skips stay inside: the fused optimizer
reads found_inf on the device.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mpkit.scaling.divider import skips_by_itself
from mpkit.scaling.rule import ScaleRule
from mpkit.training.step import TrainStep
from mpkit.trees import tensors_in

# Steps before the capture, undone afterwards: cuBLAS takes its workspace, cuDNN tries its algorithms and the optimizer
# makes its state, none of which a graph may record.
WARM_UP = 3


class CapturedStep:
    """`step(inputs, targets)` replays the graph on this batch and returns `numbers`, on the device.

    `numbers`: see `StepTensors.numbers`. It is one tensor: the next step overwrites it.

    Args:
        work: the step; its optimizer must be fused. Adam is set to "capturable", which changes no number.
        inputs, targets: the first batch; all others must have its shapes and dtypes. It is not trained on here. A
            loader that writes into `.inputs` and `.targets` and passes those saves two copies.

    Raises:
        ValueError: the model is not on a CUDA device, the optimizer or the rule needs the host in the middle of a step,
            or (at a call) the batch has another shape or a learning rate changed that is no tensor.
    """

    def __init__(self, work: TrainStep, inputs: Tensor, targets: Tensor) -> None:
        if why := why_not(work.optimizer, work.scaler.rule):
            raise ValueError(why)
        for group in work.optimizer.param_groups:
            if "capturable" in group:  # fused, it counts its steps on the device already
                group["capturable"] = True
        self.work, self.inputs, self.targets = work, inputs.clone(), targets.clone()
        self._rates = _rates(work.optimizer)
        with _undone(work):
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    work(self.inputs, self.targets)
            torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        for generator in _generators(work.optimizer):
            self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            self.numbers = work(self.inputs, self.targets).numbers

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Train on this batch; returns `numbers`. No wait for the device, if the batch is there already."""
        for name, fixed, given in (("inputs", self.inputs, inputs), ("targets", self.targets, targets)):
            if given.shape != fixed.shape or given.dtype != fixed.dtype:
                raise ValueError(
                    f"the graph was captured for {name} of shape {tuple(fixed.shape)}, {fixed.dtype}, but "
                    f"{tuple(given.shape)}, {given.dtype} came; leave the last, smaller batch out, or capture again."
                )
        if _rates(self.work.optimizer) != self._rates:
            raise ValueError(
                "a learning rate changed, but the graph has the old number in it; make it a tensor, which a graph "
                "reads at every replay: lr=torch.tensor(0.1, device='cuda')."
            )
        for fixed, given in ((self.inputs, inputs), (self.targets, targets)):
            if given is not fixed:
                fixed.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.numbers


@contextmanager
def _undone(work: TrainStep) -> Iterator[None]:
    """Whatever the block trains is undone: weights, buffers, optimizer state, scaler, random numbers.

    In place, because the graph will use the same memory. State that the block made becomes zero, which is where the
    optimizers that can be captured begin.
    """
    rng, scaler = torch.cuda.get_rng_state(), work.scaler.state_dict()
    draws = [(generator, generator.get_state()) for generator in _generators(work.optimizer)]
    held: list[Tensor] = getattr(work.optimizer, "held", list)()
    tensors = [(t, t.detach().clone()) for t in itertools.chain(work.model.parameters(), work.model.buffers(), held)]
    before = {id(t): t.clone() for t in _state(work.optimizer)}
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, kept in tensors:
                tensor.copy_(kept)
            for tensor in _state(work.optimizer):
                tensor.zero_() if id(tensor) not in before else tensor.copy_(before[id(tensor)])
        work.scaler.load_state_dict(scaler)
        torch.cuda.set_rng_state(rng)
        for generator, state in draws:
            generator.set_state(state)


def _state(optimizer: Any) -> list[Tensor]:
    return list(tensors_in(dict(optimizer.state)))


def _rates(optimizer: Any) -> list[float | None]:
    """Every group's learning rate, None for a tensor."""
    return [None if isinstance(group["lr"], Tensor) else group["lr"] for group in optimizer.param_groups]


def _generators(optimizer: Any) -> list[torch.Generator]:
    """Those that a wrapper of mpkit.optim draws from; torch's own generator is looked after by torch."""
    return getattr(optimizer, "generators", list)()


def why_not(optimizer: Any, rule: ScaleRule) -> str | None:
    """Why a step of these cannot be captured, and what to do, in a sentence; None if it can."""
    groups, inner = optimizer.param_groups, getattr(optimizer, "optimizer", optimizer)  # a wrapper's own
    device = next((p.device.type for group in groups for p in group["params"]), "cpu")
    name = type(inner).__name__
    if device != "cuda":
        return f"a CUDA graph needs a CUDA device, and this model is on the {device}; leave capture away."
    if not skips_by_itself(inner):
        return f"{name} asks the host whether to skip; use a fused one, such as SGD(…, fused=True)."
    if any(group.get("dampening") for group in groups):
        return "dampening treats the first step differently, which a graph cannot; use dampening=0."
    if not rule.on_device:
        return f"{type(rule).__name__} decides on the host; use NoScaling, StaticScale or DynamicScale."
    return None
