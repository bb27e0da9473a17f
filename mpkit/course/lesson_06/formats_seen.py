"""Which format every tensor of a training step has, seen from outside: by its dtype, or by the values that it holds."""

from collections.abc import Callable, Sequence
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
    model: nn.Module, context: Callable[[], AbstractContextManager[Any]], batches: Sequence[tuple[Tensor, Tensor]],
    loss_fn: Callable[[Tensor, Tensor], Tensor], scale: float = 1024.0,
) -> dict[str, str]:  # fmt: skip
    """Take one SGD step on several batches and name the format of each kind of tensor in it.

    Args:
        model: a module whose `nn.Linear` children are watched. Its weights change.
        context: makes what the whole step runs under, such as `lambda: torch.autocast(...)`.
        batches: (inputs, targets) of each; their gradients add up.
        loss_fn: (output, targets) → loss.
        scale: loss scale, so that gradients are ordinary numbers; divided out before the optimizer steps.

    Returns:
        In the order of the step: output of a layer, loss, gradient of a hidden output, gradient of a weight after one
        batch and after all of them, both scaled, and the weight after the update. "FP16", "FP32", or both where they
        differ. Frozen layers count for their output only.
    """
    outputs: list[Tensor] = []
    signals: list[Tensor] = []
    losses: list[Tensor] = []
    first: list[Tensor] = []

    def watch(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs.append(output.detach())
        if module is not layers[-1] and output.requires_grad:  # what the loss sends back has not been rounded yet
            output.register_hook(lambda gradient: signals.append(gradient.detach()))  # type: ignore[no-untyped-call]

    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    trained = [layer.weight for layer in layers if layer.weight.requires_grad]
    hooks = [layer.register_forward_hook(watch) for layer in layers]
    try:
        with context():
            for inputs, targets in batches:
                losses.append(loss_fn(model(inputs), targets))
                torch.autograd.backward(losses[-1] * scale)
                first = first or [_gradient(weight).clone() for weight in trained]
            total = [_gradient(weight).clone() for weight in trained]
            for weight in trained:
                _gradient(weight).div_(scale)
            torch.optim.SGD(trained, lr=0.1).step()
    finally:
        for hook in hooks:
            hook.remove()
    loss = torch.stack(losses).detach()  # together, for one number alone may happen to be a BF16 number
    kinds = {"output of a layer": outputs, "loss": [loss], "gradient of a hidden output": signals,
             "gradient of a weight, 1 batch": first, f"gradient of a weight, {len(batches)} batches": total,
             "weight after the update": [weight.detach() for weight in trained]}  # fmt: skip
    return {kind: " and ".join(sorted({format_of(x) for x in tensors})) for kind, tensors in kinds.items()}


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad
