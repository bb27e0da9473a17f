"""A whole training step in one CUDA graph: recorded once, then replayed without Python between its kernels.

A small model's step is launches, not arithmetic: hundreds of kernels of a few microseconds, each started by Python.
A graph starts them all at once (CUDA Graphs in PyTorch, docs "CUDA semantics"). Skips stay inside: the fused optimizer
reads found_inf on the device.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
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


def outdated(changed: str) -> str:
    """What to say, and to do, where a graph has another number in it than the program."""
    cure = "capture again: CapturedStep(work, inputs, targets)."
    if changed == "lr":
        cure = f"make it a tensor, which a graph reads at every replay: lr=torch.tensor(0.1, device='cuda'); or {cure}"
    return f"{changed} changed, but the graph has the old number in it; {cure}"


class CapturedStep:
    """`step(inputs, targets)` replays the graph on this batch and returns `numbers`, on the device.

    `numbers`: see `StepTensors.numbers`. It is one tensor: the next step overwrites it.

    Args:
        work: the step; its optimizer must be fused.
        inputs, targets: the first batch; all others must have its shapes and dtypes. It is not trained on here. A
            loader that writes into `.inputs` and `.targets` and passes those saves two copies.

    Raises:
        ValueError: the model is not on a CUDA device, the optimizer or the rule needs the host in the middle of a step,
            or (at a call) the batch has another shape, or what the graph has in it changed: a setting of the optimizer,
            such as a learning rate that is no tensor, or the scaler's rule.
    """

    def __init__(self, work: TrainStep, inputs: Tensor, targets: Tensor) -> None:
        if why := why_not(work.optimizer, work.scaler.rule):
            raise ValueError(why)
        self.work, self.inputs, self.targets = work, inputs.clone(), targets.clone()
        self._settings, self._rule = _settings(work.optimizer), work.scaler.rule
        with _capturable(work.optimizer):
            side = _side_stream(torch.cuda.current_device())
            with _undone(work):
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(WARM_UP):
                        work(self.inputs, self.targets)
                torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            for generator in _generators(work.optimizer):
                self.graph.register_generator_state(generator)
            with _intact_generator(), _own_workspace(), torch.cuda.graph(self.graph, stream=side):
                self.numbers = work(self.inputs, self.targets).numbers

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Train on this batch; returns `numbers`. No wait for the device, if the batch is there already."""
        for name, fixed, given in (("inputs", self.inputs, inputs), ("targets", self.targets, targets)):
            if given.shape != fixed.shape or given.dtype != fixed.dtype:
                raise ValueError(
                    f"the graph was captured for {name} of shape {tuple(fixed.shape)}, {fixed.dtype}, but "
                    f"{tuple(given.shape)}, {given.dtype} came; leave the last, smaller batch out, or capture again."
                )
        if (changed := self.changed) is not None:
            raise ValueError(outdated(changed))
        for fixed, given in ((self.inputs, inputs), (self.targets, targets)):
            if given is not fixed:
                fixed.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.numbers

    @property
    def changed(self) -> str | None:
        """The name of a setting that is not what the graph has in it, such as "lr"; None: all are."""
        if self.work.scaler.rule != self._rule:
            return "the scaler's rule"
        now = _settings(self.work.optimizer)
        return next((key[1] for key, value in self._settings.items() if now.get(key) != value), None)


@lru_cache
def _side_stream(_device: int) -> torch.cuda.Stream:
    """One for all captures: cuBLAS keeps a workspace for each stream that it has worked in, 32 MiB on a large GPU."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


@contextmanager
def _own_workspace() -> Iterator[None]:
    """Inside, cuBLAS takes a workspace out of the graph's own memory, which lives as long as the graph.

    One that it had before could be freed by others under a graph that writes to it: torch.compile's own graphs free all
    of them before and after each recording, in this way too (torch/_inductor/cudagraph_trees.py, clear_cublas_manager).
    """
    torch._C._cuda_clearCublasWorkspaces()
    try:
        yield
    finally:
        torch._C._cuda_clearCublasWorkspaces()


@contextmanager
def _intact_generator() -> Iterator[None]:
    """A capture that fails leaves torch's generator in the belief that it goes on; it gets a copy of its state then."""
    try:
        yield
    except BaseException:
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        generator.graphsafe_set_state(generator.clone_state())
        raise


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


def _settings(optimizer: Any) -> dict[tuple[int, str], Any]:
    """Every group's settings that are no tensors, by group and name: a graph has them in it as numbers.

    Of "params" their number, and under -1 that of the groups.
    """
    settings: dict[tuple[int, str], Any] = {(-1, "the number of groups"): len(optimizer.param_groups)}
    for place, group in enumerate(optimizer.param_groups):
        for name, value in group.items():
            if name != "capturable" and not isinstance(value, Tensor):
                settings[place, name] = len(value) if name == "params" else value
    return settings


@contextmanager
def _capturable(optimizer: Any) -> Iterator[None]:
    """Inside, the optimizer decides on the device: in the warm-up too, where a skipped step must make its state.

    Torch asks for the flag "capturable" before a graph may record a fused Adam, which counts on the device anyway.
    """
    groups = [group for group in optimizer.param_groups if "capturable" in group]
    before, asked = [group["capturable"] for group in groups], getattr(optimizer, "asks_host", None)
    for group in groups:
        group["capturable"] = True
    if asked is not None:
        optimizer.asks_host = False
    try:
        yield
    finally:
        for group, kept in zip(groups, before, strict=True):
            group["capturable"] = kept
        if asked is not None:
            optimizer.asks_host = asked


def _generators(optimizer: Any) -> list[torch.Generator]:
    """Those that a wrapper of mpkit.optim draws from; torch's own generator is looked after by torch."""
    return getattr(optimizer, "generators", list)()


def why_not(optimizer: Any, rule: ScaleRule) -> str | None:
    """Why a step of these cannot be captured, and what to do, in a sentence; None if it can."""
    groups, inner = optimizer.param_groups, getattr(optimizer, "optimizer", optimizer)  # a wrapper's own
    device = next((p.device for group in groups for p in group["params"]), torch.device("cpu"))
    name = type(inner).__name__
    if device.type != "cuda":
        return f"a CUDA graph needs a CUDA device, and this model is on the {device.type}; leave capture away."
    if device.index != torch.cuda.current_device():
        return f"a CUDA graph records the current device, and this model is on {device}; call torch.cuda.set_device."
    if not skips_by_itself(inner):
        return f"{name} asks the host whether to skip; use a fused one, such as SGD(…, fused=True)."
    if any(group.get("dampening") for group in groups):
        return "dampening treats the first step differently, which a graph cannot; use dampening=0."
    if not rule.on_device:
        return f"{type(rule).__name__} decides on the host; use NoScaling, StaticScale or DynamicScale."
    return None
