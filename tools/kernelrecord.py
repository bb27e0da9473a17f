"""Runs inside a lesson's kernel: one JSON line for every cell, about the optimizer steps in it and the GPU.

tools/gpulessons.py starts the kernels with it, tools/gpuproof.py reads the lines. Nothing in here may break a cell:
what goes wrong is written down as `trouble`, and the cell goes on.
"""

from __future__ import annotations

import functools
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.profiler import ProfilerActivity, profile

FOLDER, GIB = "MPKIT_RECORD_CELLS", "MPKIT_GPU_GIB"  # environment variables: where to write, what the kernel may use
STEPS = 2  # a cell may take thousands; these and what lies between them are a forward and a backward pass, too
NO_COUNT = "the profiler counts no kernel here, not even one that is known to run"


def begin(shell: Any) -> None:
    """Record every cell that this IPython shell runs, in a file of its own in the folder that FOLDER names."""
    if gib := os.environ.get(GIB):
        limit(gib)
    recorder = Recorder(Path(os.environ[FOLDER]) / f"{os.getpid()}.jsonl")
    register_optimizer_step_pre_hook(recorder.before_step)
    register_optimizer_step_post_hook(recorder.after_step)
    shell.events.register("pre_run_cell", recorder.before_cell)
    shell.events.register("post_run_cell", recorder.after_cell)


def limit(gib: str) -> None:
    """Give this process so much of the GPU's memory, in GiB, and no more: what asks for it is out of memory."""
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, float(gib) * 2**30 / whole))


def _apart(method: Callable[..., None]) -> Callable[..., None]:
    """An error becomes the cell's `trouble`. The seconds that the method takes are the recorder's, not the cell's."""

    @functools.wraps(method)
    def run(self: Recorder, *args: Any) -> None:
        began = time.perf_counter()
        try:
            method(self, *args)
        except Exception as error:
            self.trouble = f"{type(error).__name__}: {error}"
        self.own += time.perf_counter() - began

    return run


class Recorder:
    """What the running cell has done so far. `kernels`: CUDA kernels in its first STEPS steps, None if not counted."""

    def __init__(self, file: Path) -> None:
        self.file, self.started, self.recording = file, time.time(), 0.0
        self.allocated = self.reserved = 0
        self._clear()
        self.running = False

    def _clear(self) -> None:
        self.steps, self.devices, self.trouble = 0, set[str](), ""
        self.kernels: int | None = None if torch.cuda.is_available() else 0
        self.window: Any = None
        self.until, self.before = 0, _allocations()
        self.running, self.own, self.clock = True, 0.0, time.perf_counter()

    @_apart
    def before_cell(self, _info: Any) -> None:
        """A cell begins."""
        self._clear()

    @_apart
    def before_step(self, *_: Any) -> None:
        """The profiler runs from the cell's first step that no graph records: most cells never pay for it."""
        if self.running and self.until == 0 and torch.cuda.is_available() and not _capturing():
            self.until = self.steps + STEPS
            self.window = _start()

    @_apart
    def after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Where the parameters were that were stepped. (Cheap: it runs thousands of times.)"""
        self.steps += 1
        self.devices.update(p.device.type for group in optimizer.param_groups for p in group["params"])
        # A profiler that ends waits for the device, which a capture does not allow; a later step ends it, or the cell.
        if self.window is not None and self.steps >= self.until and not _capturing():
            self._count()

    def _count(self) -> None:
        window, self.window = self.window, None
        self.kernels = _kernels(window)
        if self.kernels == 0 and not _can_count():
            self.kernels, self.trouble = None, NO_COUNT

    @_apart
    def after_cell(self, result: Any) -> None:
        """A cell is over: write its line."""
        if not self.running:  # the first call is for what started the recorder
            return
        self.running, used = False, torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        if used:
            torch.cuda.synchronize()
        over = time.perf_counter()
        seconds = over - self.clock - self.own
        if self.window is not None:
            self._count()
        if used:  # a lesson may reset the device's own peaks
            self.allocated = max(self.allocated, torch.cuda.max_memory_allocated())
            self.reserved = max(self.reserved, torch.cuda.max_memory_reserved())
        self.recording += self.own + time.perf_counter() - over
        line = {
            "source": result.info.raw_cell, "steps": self.steps,
            "devices": sorted(self.devices), "kernels": self.kernels, "trouble": self.trouble,
            "allocations": _allocations() - self.before, "seconds": seconds, "started": self.started,
            "ended": time.time(), "recording": self.recording, "allocated": self.allocated, "reserved": self.reserved,
            "gpu": torch.cuda.get_device_name() if used else "", "torch": torch.__version__,
        }  # fmt: skip
        with self.file.open("a", encoding="utf-8") as file:  # at once: nbval kills its kernels
            file.write(json.dumps(line) + "\n")


def _capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _allocations() -> int:
    """How often this process has asked for GPU memory; 0 before it uses the device."""
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return int(torch.cuda.memory_stats().get("allocation.all.allocated", 0)) if used else 0


def _start() -> Any:
    with _unheard():
        window = profile(activities=[ProfilerActivity.CUDA])
        window.start()
    return window


def _kernels(window: Any) -> int:
    """End the profiler; kernels that ran on a GPU, copies and fills left out."""
    with _unheard():
        window.stop()
    return sum(
        event.device_type() == DeviceType.CUDA
        and not event.is_user_annotation()
        and not event.name().startswith(("Memcpy", "Memset"))
        for event in window.profiler.kineto_results.events()
    )


@functools.cache
def _can_count() -> bool:
    """Does the profiler see a kernel that surely runs? A machine may forbid it: then it sees none, and says nothing."""
    window = _start()
    torch.zeros(8, device="cuda").add_(1)
    return _kernels(window) > 0


@contextmanager
def _unheard() -> Iterator[None]:
    """No warning reaches the cell's output. (A filter would also make warnings that the cell has shown come again.)"""
    show, warnings.showwarning = warnings.showwarning, lambda *_, **__: None
    try:
        yield
    finally:
        warnings.showwarning = show
