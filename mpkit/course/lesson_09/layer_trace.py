"""A real training, and what an FP8 layer would have to cast at every step of it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP

STEPS = 96


def record_layer(steps: int = STEPS, seed: int = 0, device: str = "cpu") -> Mapping[str, Sequence[Tensor]]:
    """Train the digits' classifier in FP32 and keep the three tensors of its second layer, one a step.

    SGD with a learning rate of 0.1 and batches of 64. Inputs are (64, 128), weights (128, 64), and gradients (64, 64)
    those of the loss by the layer's outputs: what an FP8 layer casts. It trains on `device` in about a second;
    the tensors are on the CPU.
    """
    model, data = MLP(seeds=[seed]).to(device), digits(device).classification(seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    layer = model.linear_layers()[1]
    kept: dict[str, list[Tensor]] = {"gradients": [], "inputs": [], "weights": []}
    outputs: list[Tensor] = []

    def keep(_module: object, given: tuple[Tensor, ...], output: Tensor) -> None:
        kept["inputs"].append(given[0].detach().clone()[0])
        kept["weights"].append(layer.weight.detach().clone()[0])
        outputs.append(output)

    hook = layer.register_forward_hook(keep)
    try:
        for step in range(steps):
            images, labels = data.batch(step)
            loss = model.loss(model(images), labels).sum()
            grad, *grads = torch.autograd.grad(loss, [outputs.pop(), *model.parameters()])
            kept["gradients"].append(grad[0])
            for parameter, grad in zip(model.parameters(), grads, strict=True):
                parameter.grad = grad
            optimizer.step()
    finally:
        hook.remove()
    return {name: [tensor.cpu() for tensor in tensors] for name, tensors in kept.items()}
