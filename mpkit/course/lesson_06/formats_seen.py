"""Which format every tensor of a training step has, seen from outside: by its dtype, or by the values that it holds."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from mpkit import BF16, FP16, cast

REAL = {torch.float16: "FP16", torch.bfloat16: "BF16", torch.float64: "FP64"}


def format_of(x: Tensor) -> str:
    """Name of the format: of a narrow dtype itself; for float32 the first of BF16 and FP16 that fits every value.

    That is how an emulated FP16 tensor, whose dtype is float32, can be told from an FP32 one: FP16, BF16 or FP32.
    """
    if x.dtype in REAL:
        return REAL[x.dtype]
    return next((fmt.name for fmt in (BF16, FP16) if torch.equal(cast(x.detach(), fmt), x.detach())), "FP32")


def dtypes_seen(
    model: nn.Module, context: Callable[[], AbstractContextManager[Any]], inputs: Tensor, targets: Tensor,
    loss_fn: Callable[[Tensor, Tensor], Tensor], scale: float = 1024.0,
) -> dict[str, str]:  # fmt: skip
    """Run one step and name the format of each kind of tensor in it: "FP16", "FP32", or both where they differ.

    Args:
        model: a module whose `nn.Linear` children are watched.
        context: makes what the forward pass and the loss run under, such as `lambda: torch.autocast(...)`.
        inputs, targets, loss_fn: the batch, and (output, targets) → loss.
        scale: loss scale, so that gradients are ordinary numbers.

    Returns:
        In the order of the step: output of a layer, loss, gradient of a hidden output, gradient of a weight (scaled),
        and the weight after an SGD step with learning rate 0.1. Frozen layers count for their output only.
    """
    outputs: list[Tensor] = []
    signals: list[Tensor] = []

    def watch(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs.append(output.detach())
        if module is not layers[-1] and output.requires_grad:  # what the loss sends back has not been rounded yet
            output.register_hook(lambda gradient: signals.append(gradient.detach()))  # type: ignore[no-untyped-call]

    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [layer.register_forward_hook(watch) for layer in layers]
    try:
        with context():
            loss = loss_fn(model(inputs), targets)
            torch.autograd.backward(loss * scale)
    finally:
        for hook in hooks:
            hook.remove()
    trained = [(layer.weight, layer.weight.grad) for layer in layers if layer.weight.grad is not None]
    gradients = [gradient for _, gradient in trained]
    updated = [weight.detach() - 0.1 * gradient / scale for weight, gradient in trained]
    kinds = {"output of a layer": outputs, "loss": [loss], "gradient of a hidden output": signals,
             "gradient of a weight": gradients, "weight after the update": updated}  # fmt: skip
    return {kind: " and ".join(sorted({format_of(x) for x in tensors})) for kind, tensors in kinds.items()}
