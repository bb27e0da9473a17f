"""The share of gradients that a policy flushes to zero, measured beside a step that cannot count it.

Hardware does not tell what it rounded away, and a CUDA graph does not stop to count. So the same batch is run once more
through the same weights, emulated: there each FP32 gradient is seen beside its rounded value, at the loss scale of the
step. What the step itself does is not touched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from mpkit.policy.meter import Meter
from mpkit.training.step import TrainStep


def flushed_counts(work: TrainStep, inputs: Tensor, targets: Tensor) -> Tensor:
    """Non-zero gradient values of the step that `work` would take on this batch, and how many of them rounding keeps.

    Returns (2,) int64 on the model's device; nothing is read on the host. Buffers, gradients, optimizer, scaler and
    torch's random numbers are as before; parameters are as the step finds them, rounded if the policy stores them so.
    What else a forward pass changes, such as a counter of its own, it changes once more. It takes the time and the
    memory of an emulated step.
    """
    meter, model = Meter(), work.model
    with _unchanged(model), work.policy.apply(model, meter=meter):
        replace(work, compile=False).backward(inputs, targets)
    return meter.counts(inputs.device)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Gradients, buffers and random numbers after the block are those from before it."""
    grads = [(p, p.grad) for p in model.parameters()]
    buffers = [(b, b.clone()) for b in model.buffers()]
    named = [(module, dict(module._buffers)) for module in model.modules()]  # some are replaced, not written to
    devices = sorted({p.device.index or 0 for p, _ in grads if p.is_cuda})
    for p, _ in grads:
        p.grad = None
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for p, grad in grads:
            p.grad = grad
        for module, own in named:
            module._buffers.update(own)
        with torch.no_grad():
            for buffer, kept in buffers:
                buffer.copy_(kept)
