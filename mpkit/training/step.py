"""The body of a training step: forward, scaled backward, check, unscale, update; no wait for the device of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

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

    @property
    def numbers(self) -> Tensor:
        """All of it in one tensor, which one wait reads: losses, loss scale, found_inf, gradient norm.

        float32, or float64 if one of them is.
        """
        losses = self.losses.detach().reshape(-1)
        losses = losses if losses.dtype == torch.float64 else losses.float()
        others = (self.result.outcome, self.grad_norm.reshape(1))  # perhaps elsewhere, if the model is on two devices
        return torch.cat([losses, *(other.to(losses.device) for other in others)])


@dataclass(frozen=True)
class TrainStep:
    """The description of a run, and its step: call it with a batch. The parts are those of `mpkit.fit`."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    policy: Policy
    scaler: LossScaler
    loss_fn: LossFunction
    engine: str = "emulated"
    meter: Meter | None = None

    def __call__(self, inputs: Tensor, targets: Tensor) -> StepTensors:
        """Train on one batch."""
        self.model.zero_grad()  # also what this optimizer does not step
        self.optimizer.zero_grad()  # also what is not the model's
        with self.policy.apply(self.model, engine=self.engine, meter=self.meter):
            losses = self.loss_fn(self.model(inputs), targets)  # () or (seeds,)
            # Seeds share no weights, so the gradient of the sum is each seed's own gradient.
            self.scaler.scale(losses.sum()).backward()
        self.scaler.unscale_(self.optimizer)
        grad_norm = total_norm(self.optimizer)
        result = self.scaler.step(self.optimizer)
        self.scaler.update()
        self.policy.store_(self.model.parameters())  # the optimizer stepped behind the block, where apply does it
        return StepTensors(losses, grad_norm, result)


def total_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """Euclidean norm of all gradients that the optimizer uses, on the device: a 0-dim tensor; 0 if there are none."""
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm: Tensor = get_total_norm(grads)
    return norm
