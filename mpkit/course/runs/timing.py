"""What a machine with a GPU is measured by: square products, an addition, small models and ResNet-50."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mpkit import CapturedStep
from mpkit.course.nets.workloads import ours, peers_step, resnet
from mpkit.course.runs.energy import joules
from mpkit.policy.tf32 import tf32
from mpkit.timer import median_seconds, seconds_of
from mpkit.trees import tensors_in

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
    times, energy = repeated(lambda: step(images, targets), seconds)
    low, middle, high = statistics.quantiles(times, n=4)
    row = {
        "ms": 1000 * middle, "quartiles_ms": [1000 * low, 1000 * high], "images_per_s": batch / middle,
        "steps": len(times), "joules_per_image": None if energy is None else energy / (len(times) * batch),
        "watts": None if energy is None else energy / sum(times),
        "weights_MiB": weights / MIB, "activations_MiB": activations / MIB,
        "optimizer_MiB": sum(t.nbytes for t in tensors_in(dict(step.optimizer.state))) / MIB,
        "gradients_MiB": sum(t.nbytes for t in tensors_in([p.grad for p in model.parameters()])) / MIB,
        "peak_MiB": torch.cuda.max_memory_allocated() / MIB,
    }  # fmt: skip
    print(f"{policy}: {row['ms']:.1f} ms, {row['images_per_s']:.0f} images/s", flush=True)  # noqa: T201
    return row


def repeated(step: Callable[[], object], seconds: float) -> tuple[list[float], float | None]:
    """Times of a step again and again for so many seconds, and the joules of all together, where they are counted."""
    times: list[float] = []
    before, start = joules(), time.perf_counter()
    while time.perf_counter() - start < seconds:
        times.append(seconds_of(step))
    after = joules()
    return times, None if before is None or after is None else after - before


def matmuls() -> dict[str, dict[str, float]]:
    """TFLOP/s of square products, by format and size."""
    found: dict[str, dict[str, float]] = {}
    for name, dtype in DTYPES.items():
        with tf32(name == "TF32"):
            for n in sorted((*SIZES, *ODD)):
                a, b = torch.randn(2, n, n, device="cuda").to(dtype).unbind(0)
                seconds = median_seconds(lambda a=a, b=b: a @ b)  # type: ignore[misc]
                found.setdefault(name, {})[str(n)] = 2 * n**3 / seconds / 1e12
    return found


def bandwidth(n: int) -> dict[str, float]:
    """GB/s of x + x for n values (read once, written once), by format: it only moves memory."""
    found = {}
    for name in ("FP32", "FP16"):
        x = torch.randn(n, device="cuda").to(DTYPES[name])
        found[name] = 2 * n * x.element_size() / median_seconds(lambda x=x: x + x) / 1e9  # type: ignore[misc]
    return found


def small(make: Callable[[], tuple[nn.Module, Tensor, Tensor]]) -> dict[str, float]:
    """Milliseconds of a small model's step: eager, with a wait in every step, and captured."""
    found = {}
    for policy in ("fp32", "fp16-mixed"):
        model, inputs, targets = make()
        step = ours(model, policy)
        found[f"{policy} eager"] = 1000 * median_seconds(lambda s=step, i=inputs, t=targets: s(i, t))  # type: ignore[misc]
        captured = CapturedStep(step, inputs, targets)
        found[f"{policy} captured"] = 1000 * median_seconds(lambda c=captured, i=inputs, t=targets: c(i, t))  # type: ignore[misc]
        if policy == "fp16-mixed":
            waiting = lambda s=step, i=inputs, t=targets: s(i, t).losses.sum().item()  # noqa: E731
            found[f"{policy} eager, loss.item() every step"] = 1000 * median_seconds(waiting)
    found["torch.amp eager"] = 1000 * median_seconds(peers_step(*make()))
    return found
