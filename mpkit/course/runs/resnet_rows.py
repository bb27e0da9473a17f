"""ResNet-50's training step in every way that is compared: plain PyTorch, torch.amp, torch.compile, and this kit."""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mpkit.course.nets.workloads import ours, peers_step, resnet
from mpkit.course.runs.timing import captured, repeated
from mpkit.training import TrainStep
from mpkit.trees import tensors_in

MIB = 2**20
WARM_UP = 5  # steps: cuDNN tries its algorithms, torch.compile compiles and records its graphs

Build = Callable[[nn.Module, Tensor, Tensor], Callable[[], object]]


def _kit(policy: str) -> Build:
    return lambda model, images, targets: _Bound(ours(model, policy), images, targets)


def _peer(dtype: torch.dtype | None, compiled: str | None = None) -> Build:
    return lambda model, images, targets: peers_step(model, images, targets, dtype, compiled)


def _captured(model: nn.Module, images: Tensor, targets: Tensor) -> Callable[[], object]:
    return captured(ours(model, "fp16-mixed", compile=True), images, targets)


class _Bound:
    """A step of this kit on one batch."""

    def __init__(self, step: TrainStep, images: Tensor, targets: Tensor) -> None:
        self.step, self.images, self.targets = step, images, targets

    def __call__(self) -> object:
        return self.step(self.images, self.targets)


# Nothing is set: cuDNN may use TF32 and chooses its algorithms without trying them, images lie as torch makes them.
DEFAULTS = "PyTorch's defaults"
NCHW = "fp32, NCHW"
WAYS: dict[str, Build] = {
    DEFAULTS: _peer(None),
    NCHW: _kit("fp32"),
    **{policy: _kit(policy) for policy in ("fp32", "tf32", "article", "fp16-mixed", "bf16-mixed")},
    "torch.amp": _peer(torch.float16),
    "torch.amp compiled": _peer(torch.float16, "default"),
    "torch.amp compiled, reduce-overhead": _peer(torch.float16, "reduce-overhead"),
    "fp16-mixed compiled, captured": _captured,
}  # fmt: skip


def resnet_row(way: str, batch: int, seconds: float) -> dict[str, Any]:
    """Median time of a step in ms, images a second, joules an image, watts; of this kit's eager ways memory by kind.

    All ways but the two NCHW ones have channels last, and all but the defaults let cuDNN try its algorithms; SGD is
    fused everywhere. Memory is in MiB. Joules are None where the driver does not count them.

    ValueError: there is no such way.
    """
    if way not in WAYS:
        raise ValueError(f"there is no way {way!r} to train; use one of {', '.join(WAYS)}.")
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, way != DEFAULTS
    try:
        torch.cuda.empty_cache()
        empty = torch.cuda.memory_allocated()
        model, images, targets = resnet(batch, channels_last=way not in (DEFAULTS, NCHW))
        weights = torch.cuda.memory_allocated() - empty - images.nbytes - targets.nbytes
        step = WAYS[way](model, images, targets)
        for _ in range(WARM_UP):
            step()
        memory = _memory(step, weights) if isinstance(step, _Bound) else {}
        times, energy = repeated(step, seconds)
    finally:
        torch.backends.cudnn.benchmark = before
    middle = statistics.median(times)
    row = {
        "ms": 1000 * middle, "images_per_s": batch / middle,
        "joules_per_image": None if energy is None else energy / (len(times) * batch),
        "watts": None if energy is None else energy / sum(times), **memory,
    }  # fmt: skip
    if memory:
        row["peak_MiB"] = torch.cuda.max_memory_allocated() / MIB
    print(f"{way}: {row['ms']:.1f} ms, {row['images_per_s']:.0f} images/s", flush=True)  # noqa: T201
    return row


def _memory(bound: _Bound, weights: int) -> dict[str, float]:
    """MiB by kind; the peak is counted from here on."""
    step = bound.step
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    gradients = sum(p.grad.nbytes for p in step.model.parameters() if p.grad is not None)
    step.optimizer.zero_grad()
    before = torch.cuda.memory_allocated()
    with step.policy.apply(step.model, engine="native"):
        loss = step.loss_fn(step.model(bound.images), bound.targets)
    activations = torch.cuda.memory_allocated() - before
    del loss
    return {
        "weights_MiB": weights / MIB, "activations_MiB": activations / MIB, "gradients_MiB": gradients / MIB,
        "optimizer_MiB": sum(t.nbytes for t in tensors_in(dict(step.optimizer.state))) / MIB,
    }  # fmt: skip
