"""Who divides an optimizer's gradients by the loss scale: decided here, once for each check."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor


class Divider(Enum):
    """Each gradient is divided once, by one of these."""

    SCALER = "the scaler, in place, while it tests them"
    KERNEL = "a fused optimizer, inside its step"
    KEEPER = "a wrapper of mpkit.optim, inside its step and in float32, so that its gradients may be float16"


def skips_by_itself(optimizer: object) -> bool:
    """True for an optimizer that takes found_inf and grad_scale on the device: torch's fused ones, mpkit.optim's."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def divider_of(optimizer: object, quotient_is_needed: bool) -> Divider:
    """Leave the division to the optimizer if it can, unless the scaler has to look at the quotient before the step."""
    if quotient_is_needed or not skips_by_itself(optimizer):
        return Divider.SCALER
    return Divider.KEEPER if getattr(optimizer, "_divides_in_float32", False) else Divider.KERNEL


def step_fused(
    optimizer: Any, grad_scale: Tensor | None, found_inf: Tensor, options: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Step as `torch.amp.GradScaler` does: the kernel reads both tensors. A user's own grad_scale multiplies in.

    `options`: further arguments of `optimizer.step`.

    Fused SGD makes its momentum from uninitialized memory, and a skipped first step does not write it. GradScaler lets
    the second step add what lay there, NaN perhaps; here it becomes 0.
    """
    own = getattr(optimizer, "grad_scale", None)
    without = [p for group in optimizer.param_groups if group.get("momentum") for p in group["params"]]
    without = [p for p in without if optimizer.state.get(p, {}).get("momentum_buffer") is None]
    optimizer.grad_scale = own if grad_scale is None else grad_scale if own is None else grad_scale * own
    optimizer.found_inf = found_inf
    try:
        optimizer.step(**options)
    finally:
        del optimizer.grad_scale, optimizer.found_inf
    for p in without:
        if (buffer := optimizer.state.get(p, {}).get("momentum_buffer")) is not None:
            buffer.masked_fill_(found_inf.to(buffer.device) > 0, 0.0)


def step_if_finite(
    optimizer: Any, grad_scale: Tensor | None, found_inf: Tensor, skips: bool, options: Mapping[str, Any]
) -> bool | None:
    """Step, unless `found_inf` and the rule `skips`. Returns found_inf where the host had to read it to decide."""
    if skips_by_itself(optimizer):
        step_fused(optimizer, grad_scale, found_inf if skips else torch.zeros_like(found_inf), options)
        return None
    found = bool(found_inf) if skips else None
    if not found:
        optimizer.step(**options)
    return found
