"""The body of a training step: forward, scaled backward, check, unscale, update; no wait for the device of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mpkit.policy.meter import Meter
from mpkit.policy.policy import Policy
from mpkit.scaling.loss_scaler import LossScaler
from mpkit.scaling.step_result import StepResult

LossFunction = Callable[[Any, Tensor], Tensor]


class StepTensors(NamedTuple):
    """What a step leaves behind, on the device: losses () or (seeds,), the gradient's norm (), and the outcome."""

    losses: Tensor
    grad_norm: Tensor
    result: StepResult


@dataclass(frozen=True)
class TrainStep:
    """Call it with a batch; the parts are those of `mpkit.fit`."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    policy: Policy
    scaler: LossScaler
    loss_fn: LossFunction
    engine: str = "emulated"
    meter: Meter | None = None

    def __call__(self, inputs: Tensor, targets: Tensor) -> StepTensors:
        """Train on one batch."""
        self.model.zero_grad()
        self.optimizer.zero_grad()
        with self.policy.apply(self.model, engine=self.engine, meter=self.meter):
            losses = self.loss_fn(self.model(inputs), targets)  # () or (seeds,)
            # Seeds share no weights, so the gradient of the sum is each seed's own gradient.
            self.scaler.scale(losses.sum()).backward()
        self.scaler.unscale_(self.optimizer)
        grad_norm = total_norm(self.optimizer)
        result = self.scaler.step(self.optimizer)
        self.scaler.update()
        self.policy.store_(self.model.parameters())
        return StepTensors(losses, grad_norm, result)


def total_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """Euclidean norm of all gradients that the optimizer uses, on the device: a 0-dim tensor."""
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norms: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    return norms
