"""The body of a training step: forward, scaled backward, check, unscale, update; no wait for the device of its own."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mpkit.policy.meter import Meter
from mpkit.policy.policy import Policy
from mpkit.scaling.loss_scaler import LossScaler
from mpkit.scaling.step_result import StepResult
from mpkit.training.compiling import compiled, why_not

LossFunction = Callable[[Any, Tensor], Tensor]


class StepTensors(NamedTuple):
    """What a step leaves behind, on the device: losses () or (seeds,), the gradient's norm (), and the outcome."""

    losses: Tensor
    grad_norm: Tensor | None  # from before clipping; None: not measured
    result: StepResult

    @property
    def numbers(self) -> Tensor:
        """All of it in one tensor, which one wait reads: losses, loss scale, found_inf, gradient norm.

        float32, or float64 if one of them is. A norm that was not measured is NaN.
        """
        with torch._C.DisableTorchFunction():  # a policy around it rounds none of this
            losses = self.losses.detach().reshape(-1)
            losses = losses if losses.dtype == torch.float64 else losses.float()
            norm = losses.new_full((), math.nan) if self.grad_norm is None else self.grad_norm
            others = (self.result.outcome, norm.reshape(1))  # perhaps elsewhere, if the model is on two devices
            return torch.cat([losses, *(other.to(losses.device) for other in others)])


@dataclass(frozen=True)
class TrainStep:
    """The description of a run, and its step: call it with a batch. The parts are those of `mpkit.fit`.

    What the model is made of is looked at once, at the first step: layers that join later are not.

    `micro_batches`: the batch is cut into so many equal parts, whose losses count equally. That is the whole batch's
    gradient if the loss is a mean over its examples. Where it is a sum, or leaves targets out (`ignore_index`), it is
    not; have the loss divide by what the whole batch counts.
    `measure_norm`: False leaves the gradient's norm out. If nothing is clipped either, a fused optimizer divides by the
    scale inside its step, and `.grad` stays scaled.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    policy: Policy
    scaler: LossScaler
    loss_fn: LossFunction
    engine: str = "emulated"
    meter: Meter | None = None
    compile: bool = False
    max_norm: float | None = None
    micro_batches: int = 1
    measure_norm: bool = True

    def __post_init__(self) -> None:
        if self.compile and (why := why_not(self.policy, self._engine)):
            raise ValueError(why)
        norm = self.max_norm
        if norm is not None and (type(norm) not in (int, float) or not 0 < norm < math.inf):
            raise ValueError(f"max_norm={self.max_norm!r}; use a finite number above 0, or None for no clipping.")
        if type(self.micro_batches) is not int or self.micro_batches < 1:  # True is an int too
            raise ValueError(f"micro_batches={self.micro_batches!r}; use a whole number from 1 on.")

    def __getstate__(self) -> dict[str, Any]:
        """For a copy or a pickle: the description, without what was found and compiled at the first step.

        A copied step trains the copied model, if `loss_fn` does not hold on to the first one (`model.loss` is copied
        with it, a lambda that reads the model's weights is not).
        """
        return {field.name: self.__dict__[field.name] for field in fields(self)}

    def __call__(self, inputs: Tensor, targets: Tensor) -> StepTensors:
        """Train on one batch. A step that ends in an error has not begun, for the scaler."""
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        for p in (*params, *self._others):
            p.grad = None
        try:
            with self.policy.running(self.model, self._engine, self.meter):
                losses = self.backward(inputs, targets)
            with torch._C.DisableTorchFunction():  # a policy around this step has no say in what follows
                norm, result = self._update(params)
        except BaseException as error:
            self.scaler.abandon()
            if isinstance(error, RuntimeError):  # perhaps because the model is no longer what the first step found
                self.policy.require(self.model, self._engine, self.meter)
            raise
        return StepTensors(losses, norm, result)

    def _update(self, params: list[Tensor]) -> tuple[Tensor | None, StepResult]:
        """Check, unscale, clip, step, adapt the scale."""
        norm = None
        if self.measure_norm or self.max_norm is not None:
            self.scaler.unscale_(self.optimizer)
            norm = get_total_norm([p.grad for p in params if p.grad is not None])
            if self.max_norm is not None:
                clip_grads_with_norm_(params, self.max_norm, norm)
        result = self.scaler.step(self.optimizer)
        self.scaler.update()
        self.policy.store_(self.model.parameters())  # the optimizer stepped behind the block, where apply does it
        return norm, result

    def backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Add the gradient of the scaled loss to every `.grad`, and return the losses: () or (seeds,).

        Over several micro-batches it is the mean of their losses.

        ValueError: the batch cannot be divided into so many equal parts.
        """
        if self.micro_batches == 1:
            return self._part(inputs, targets)
        if len(inputs) % self.micro_batches:
            raise ValueError(
                f"a batch of {len(inputs)} cannot be divided into {self.micro_batches} equal micro-batches; use a "
                "number that divides it."
            )
        parts = zip(inputs.chunk(self.micro_batches), targets.chunk(self.micro_batches), strict=True)
        return torch.stack([self._part(*part).detach() for part in parts]).mean(0)

    def _part(self, inputs: Tensor, targets: Tensor) -> Tensor:
        losses = self._losses(inputs, targets)
        _require_loss(losses)
        # Seeds share no weights, so the gradient of the sum is each seed's own gradient.
        loss = losses.sum() if losses.ndim else losses
        if self.micro_batches > 1:
            with torch._C.DisableTorchFunction():  # the mean over the parts is FP32, as the loss is
                loss = loss / self.micro_batches
        loss = self.scaler.scale(loss)
        with torch.autocast(loss.device.type, enabled=False):  # which would cast in the backward pass as well
            loss.backward()
        return losses

    @cached_property
    def _engine(self) -> str:
        """Either "emulated" or "native". Asked once: to see that the model fits takes a walk through it."""
        return self.policy.require(self.model, self.engine, self.meter)

    @cached_property
    def _losses(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Forward pass and loss."""
        model, loss_fn = self.model, self.loss_fn

        def losses(inputs: Tensor, targets: Tensor) -> Tensor:
            return loss_fn(model(inputs), targets)

        return compiled(losses) if self.compile else losses

    @cached_property
    def _others(self) -> list[Tensor]:
        """The model's parameters that the optimizer does not step. Looked for once: that walk takes a while."""
        own = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        return [p for p in self.model.parameters() if id(p) not in own]


def _require_loss(losses: Any) -> None:
    """TypeError: a loss from which no gradient comes."""
    if isinstance(losses, Tensor) and losses.requires_grad:
        return
    came = "a tensor without a gradient" if isinstance(losses, Tensor) else f"a {type(losses).__name__}"
    raise TypeError(
        f"loss_fn is asked for a tensor of shape () or (seeds,) that depends on the model's parameters, but {came} "
        "came; leave out .item() and .detach(), and train parameters that require a gradient."
    )
