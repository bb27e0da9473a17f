"""Trains a classifier of digits on the CPU, whatever else is there: claims C10 and C24 say that it cannot be done."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from mpkit import E4M3, E5M2, Policy
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP

WAYS = ("FP32", "FP16, torch's own", "BF16, torch's own", "FP16, emulated", "E4M3, emulated")
EIGHT_BITS = ("E5M2, emulated", "E4M3 with gradients in E5M2, emulated")  # the lesson asks them why E4M3 fails
_NARROW = {
    "E4M3, emulated": Policy(forward=E4M3, backward=E4M3),
    "E5M2, emulated": Policy(forward=E5M2, backward=E5M2),
    "E4M3 with gradients in E5M2, emulated": Policy(forward=E4M3, backward=E5M2),
}
STEPS, RATE = 210, 0.1


def _under(way: str, model: MLP) -> AbstractContextManager[object]:
    """The context in which the loss is computed; its backward pass follows."""
    if way == "FP32":
        return nullcontext()
    if way.endswith("own"):
        return torch.autocast("cpu", torch.float16 if way.startswith("FP16") else torch.bfloat16)
    return _NARROW.get(way, Policy.preset("fp16-mixed")).apply(model)


def trained_without_gpu(way: str, seeds: Sequence[int] = range(5), rate: float = RATE) -> list[float]:
    """Test accuracy in %, one a seed, after 210 steps of plain SGD; weights and updates in FP32.

    `way` is one of `WAYS` or `EIGHT_BITS`: `torch.autocast` with the CPU's own kernels, or mpkit's emulation. E4M3 is
    there to fail: it has less than half of FP16's powers of two, too few for the gradients.
    The steps are written out, with no optimizer.
    """
    if way not in WAYS + EIGHT_BITS:
        raise ValueError(f"way must be one of {', '.join(WAYS + EIGHT_BITS)}, but {way!r} came.")
    images, model = digits(), MLP(seeds)
    data, parameters = images.classification(), list(model.parameters())
    for step in range(STEPS):
        inputs, labels = data.batch(step)
        with _under(way, model):
            loss = model.loss(model(inputs), labels).sum()
        grads = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.sub_(rate * grad)
    return [100 * float(x) for x in model.accuracy(images.test_images, images.test_labels)]
