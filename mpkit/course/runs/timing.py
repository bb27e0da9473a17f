"""What a machine with a GPU is measured by: square products, an addition, small models and ResNet-50."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mpkit.course.nets.workloads import ours, peers_step, resnet
from mpkit.course.runs.energy import joules
from mpkit.training.capture import CapturedStep

SIZES = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
ODD = (1023, 2047, 4095)  # not a multiple of 8
DTYPES = {"FP32": torch.float32, "TF32": torch.float32, "FP16": torch.float16, "BF16": torch.bfloat16}
MIB = 2**20


def resnet_row(policy: str, batch: int, seconds: float) -> dict[str, Any]:
    """Median and quartiles of a step in ms, images a second, joules an image, and memory by kind in MiB."""
    torch.cuda.empty_cache()
    empty = torch.cuda.memory_allocated()
    model, images, targets = resnet(batch)
    images_bytes = images.numel() * images.element_size() + targets.numel() * targets.element_size()
    weights = torch.cuda.memory_allocated() - empty - images_bytes
    step = ours(model, policy)
    for _ in range(5):  # cuDNN tries its algorithms
        step(images, targets)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step.optimizer.zero_grad()
    before = torch.cuda.memory_allocated()
    with step.policy.apply(model, engine="native"):
        loss = step.loss_fn(model(images), targets)
    activations = torch.cuda.memory_allocated() - before
    del loss
    times, energy, start = [], joules(), time.perf_counter()
    while time.perf_counter() - start < seconds:
        times.append(seconds_of(lambda: step(images, targets)))
    used, took = joules(), time.perf_counter() - start
    steps = len(times)
    low, middle, high = statistics.quantiles(times, n=4)
    row = {
        "ms": 1000 * middle, "quartiles_ms": [1000 * low, 1000 * high], "images_per_s": batch / middle, "steps": steps,
        "joules_per_image": None if energy is None or used is None else (used - energy) / (steps * batch),
        "watts": None if energy is None or used is None else (used - energy) / took,
        "weights_MiB": weights / MIB, "activations_MiB": activations / MIB,
        "optimizer_MiB": sum(_bytes(v) for s in step.optimizer.state.values() for v in s.values()) / MIB,
        "gradients_MiB": sum(_bytes(p.grad) for p in model.parameters()) / MIB,
        "peak_MiB": torch.cuda.max_memory_allocated() / MIB,
    }  # fmt: skip
    print(f"{policy}: {row['ms']:.1f} ms, {row['images_per_s']:.0f} images/s", flush=True)  # noqa: T201
    return row


def matmuls() -> dict[str, dict[str, float]]:
    """TFLOP/s of square products, by format and size."""
    found: dict[str, dict[str, float]] = {}
    for name, dtype in DTYPES.items():
        torch.backends.cuda.matmul.allow_tf32 = name == "TF32"
        for n in sorted((*SIZES, *ODD)):
            a, b = torch.randn(2, n, n, device="cuda").to(dtype).unbind(0)
            found.setdefault(name, {})[str(n)] = 2 * n**3 / many(lambda a=a, b=b: a @ b) / 1e12  # type: ignore[misc]
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def bandwidth(n: int) -> dict[str, float]:
    """GB/s of x + x for n values (read once, written once), by format: it only moves memory."""
    found = {}
    for name in ("FP32", "FP16"):
        x = torch.randn(n, device="cuda").to(DTYPES[name])
        found[name] = 2 * n * x.element_size() / many(lambda x=x: x + x) / 1e9  # type: ignore[misc]
    return found


def small(make: Callable[[], tuple[nn.Module, Tensor, Tensor]]) -> dict[str, float]:
    """Milliseconds of a small model's step: eager, with a wait in every step, and captured."""
    found = {}
    for policy in ("fp32", "fp16-mixed"):
        model, inputs, targets = make()
        step = ours(model, policy)
        found[f"{policy} eager"] = 1000 * many(lambda s=step, i=inputs, t=targets: s(i, t))  # type: ignore[misc]
        captured = CapturedStep(step, inputs, targets)
        found[f"{policy} captured"] = 1000 * many(lambda c=captured, i=inputs, t=targets: c(i, t))  # type: ignore[misc]
        if policy == "fp16-mixed":
            waiting = lambda s=step, i=inputs, t=targets: s(i, t).losses.sum().item()  # noqa: E731
            found[f"{policy} eager, loss.item() every step"] = 1000 * many(waiting)
    found["torch.amp eager"] = 1000 * many(peers_step(*make()))
    return found


def seconds_of(call: Callable[[], object]) -> float:
    """Seconds of one call, by the device's own clock."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def many(call: Callable[[], object], seconds: float = 0.15) -> float:
    """Median seconds of a call, from five rounds of as many as fill `seconds`."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    once = max(seconds_of(call), 1e-6)
    count, rounds = max(3, min(2000, int(seconds / 5 / once))), []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(count):
            call()
        torch.cuda.synchronize()
        rounds.append((time.perf_counter() - start) / count)
    return statistics.median(rounds)


def _bytes(tensor: Any) -> int:
    return tensor.numel() * tensor.element_size() if isinstance(tensor, Tensor) else 0
