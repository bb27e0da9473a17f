"""What a machine with a GPU is measured by: square products, an addition, and steps of small models."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from mpkit import CapturedStep
from mpkit.course.nets.workloads import DEVICE, Model, ours, peers_step
from mpkit.course.runs.energy import joules
from mpkit.policy.tf32 import tf32
from mpkit.timer import median_seconds, seconds_of
from mpkit.training import TrainStep

SIZES = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
ODD = (1023, 2047, 4095)  # not a multiple of 8
DTYPES = {"FP32": torch.float32, "TF32": torch.float32, "FP16": torch.float16, "BF16": torch.bfloat16}


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
                a, b = torch.randn(2, n, n, device=DEVICE).to(dtype).unbind(0)
                seconds = median_seconds(lambda a=a, b=b: a @ b)  # type: ignore[misc]
                found.setdefault(name, {})[str(n)] = 2 * n**3 / seconds / 1e12
    return found


def bandwidth(n: int) -> dict[str, float]:
    """GB/s of x + x for n values (read once, written once), by format: it only moves memory."""
    found = {}
    for name in ("FP32", "FP16"):
        x = torch.randn(n, device=DEVICE).to(DTYPES[name])
        found[name] = 2 * n * x.element_size() / median_seconds(lambda x=x: x + x) / 1e9  # type: ignore[misc]
    return found


def fp8_products() -> dict[str, dict[str, float]]:
    """TFLOP/s of square products of E4M3 matrices, scaled by 1, into BF16; {} where the GPU has no FP8.

    `torch._scaled_mm` wants the second matrix by columns, and sizes that are multiples of 16. "FP8, fast" leaves sums
    in the tensor cores' own short accumulators; "FP8" adds them up in FP32 now and then (PyTorch's default).
    """
    if torch.cuda.get_device_capability() < (8, 9):
        return {}
    found: dict[str, dict[str, float]] = {}
    one = torch.ones((), device=DEVICE)
    for name, fast in (("FP8", False), ("FP8, fast", True)):
        for n in SIZES:
            a, b = torch.randn(2, n, n, device=DEVICE).to(torch.float8_e4m3fn).unbind(0)
            product = lambda a=a, b=b, fast=fast: torch._scaled_mm(  # noqa: E731
                a, b.t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=fast
            )
            found.setdefault(name, {})[str(n)] = 2 * n**3 / median_seconds(product) / 1e12
    return found


def small(make: Model) -> dict[str, float]:
    """Milliseconds of a small model's step: plain PyTorch, torch.amp, and this kit: eager, waiting, captured."""
    found = {"PyTorch FP32 eager": _ms(peers_step(*make(), dtype=None)), "torch.amp eager": _ms(peers_step(*make()))}
    for policy in ("fp32", "fp16-mixed"):
        model, inputs, targets = make()
        step = ours(model, policy)
        found[f"{policy} eager"] = _ms(lambda s=step, i=inputs, t=targets: s(i, t))  # type: ignore[misc]
        if policy == "fp16-mixed":
            waiting = lambda s=step, i=inputs, t=targets: s(i, t).losses.sum().item()  # noqa: E731
            found[f"{policy} eager, loss.item() every step"] = _ms(waiting)
        found[f"{policy} captured"] = _ms(captured(step, inputs, targets))
    return found


def small_compiled(make: Model) -> dict[str, float]:
    """The same with torch.compile: torch.amp in two of its modes, and this kit's compiled step in a CUDA graph."""
    found = {
        "torch.amp compiled": _ms(peers_step(*make(), compiled="default")),
        "torch.amp compiled, reduce-overhead": _ms(peers_step(*make(), compiled="reduce-overhead")),
    }
    model, inputs, targets = make()
    found["fp16-mixed compiled, captured"] = _ms(captured(ours(model, compile=True), inputs, targets))
    return found


def captured(step: TrainStep, inputs: Tensor, targets: Tensor) -> Callable[[], Tensor]:
    """Replays the step on this batch from a CUDA graph, without the copies of a batch from elsewhere."""
    graph = CapturedStep(step, inputs, targets)
    return lambda: graph(graph.inputs, graph.targets)


def _ms(call: Callable[[], object]) -> float:
    return 1000 * median_seconds(call)
