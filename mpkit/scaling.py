"""How the loss scale changes from step to step: small rules that hold no state of their own.

A rule maps (state, found_inf) to the next state. It never touches a model, so it can be run, plotted and
tested on plain numbers. `mpkit.loss_scaler.LossScaler` drives a rule in a training step.
"""

from __future__ import annotations

import abc
import ctypes
import dataclasses
import math
import numbers
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class ScaleState:
    """What a rule remembers: the scale, and how many clean steps went by since it last changed."""

    scale: float
    growth_tracker: int = 0


def as_float32(value: float) -> float:
    """Round `value` to the nearest float32 (Inf when it is too large), as the scale on the device is."""
    return ctypes.c_float(value).value


@dataclass(frozen=True)
class ScaleRule(abc.ABC):
    """What every rule offers. A new rule needs only `init` and `update`.

    `skips`: a non-finite gradient skips the step. True for every rule here, the constant ones included:
    libraries differ on those, but an Inf in a weight cannot be undone.
    `check_unscaled`: gradients must be finite after the division by the scale too, not only before it.
    """

    skips: ClassVar[bool] = True
    check_unscaled: bool = dataclasses.field(default=True, kw_only=True)

    @abc.abstractmethod
    def init(self) -> ScaleState:
        """Return the state before the first step."""

    @abc.abstractmethod
    def update(self, state: ScaleState, found_inf: bool) -> ScaleState:
        """Return the state after a step. `found_inf`: was any gradient Inf or NaN?"""

    def update_tensors(self, scale: Tensor, growth_tracker: Tensor, found_inf: Tensor) -> None:
        """Do `update` in place on 0-dim tensors: float32 scale, int32 tracker, float32 found_inf (0 or 1).

        This default reads them on the host: it waits for the device, and no CUDA graph can capture it.
        """
        state = self.update(ScaleState(float(scale), int(growth_tracker)), bool(found_inf))
        scale.fill_(state.scale)
        growth_tracker.fill_(state.growth_tracker)

    @property
    def floor(self) -> float | None:
        """The smallest scale that this rule can reach; None when there is no such limit."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the rule's name and fields as plain values; two rules are equal when these are."""
        return {"name": type(self).__name__, **dataclasses.asdict(self)}


class _ConstantRule(ScaleRule):
    """A scale that never changes."""

    def update(self, state: ScaleState, found_inf: bool) -> ScaleState:
        """Return `state` unchanged."""
        return state

    def update_tensors(self, scale: Tensor, growth_tracker: Tensor, found_inf: Tensor) -> None:
        """Change nothing."""

    @property
    def floor(self) -> float | None:
        """The scale itself."""
        return self.init().scale


@dataclass(frozen=True)
class NoScaling(_ConstantRule):
    """The scale stays 1. Gradients are still tested, and a non-finite one still skips the step."""

    def init(self) -> ScaleState:
        """Return a scale of 1."""
        return ScaleState(1.0)


@dataclass(frozen=True)
class StaticScale(_ConstantRule):
    """The scale stays as given (> 0, finite in float32). An overflow skips the step and changes nothing."""

    scale: float

    def __post_init__(self) -> None:
        _require_scale("scale", self.scale)

    def init(self) -> ScaleState:
        """Return the given scale, rounded to float32."""
        return ScaleState(as_float32(self.scale))


@dataclass(frozen=True)
class DynamicScale(ScaleRule):
    """Shrink on overflow, grow after `growth_interval` clean steps in a row: `torch.amp.GradScaler`'s rule.

    Beyond it: the scale never falls below `min_scale` nor rises above `max_scale` (None: no limit).
    Growth past float32's range is refused and the scale kept. As in torch (ATen, AmpGradScalerKernels.cpp),
    products are taken in float64 and rounded to float32, and growth happens when the tracker *equals* the
    interval: a tracker that is already beyond it grows nothing until the next overflow.
    ValueError: a limit, factor or interval that makes no sense.
    """

    init_scale: float = 2.0**16
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    min_scale: float | None = 1.0
    max_scale: float | None = None

    def __post_init__(self) -> None:
        _require_scale("init_scale", self.init_scale)
        for name in ("min_scale", "max_scale"):
            if getattr(self, name) is not None:
                _require_scale(name, getattr(self, name), example="None for no limit")
        _require("growth_factor", self.growth_factor, 1.0, math.inf, "a finite number above 1", "2.0")
        _require("backoff_factor", self.backoff_factor, 0.0, 1.0, "above 0 and below 1", "0.5")
        if not isinstance(self.growth_interval, int):
            raise ValueError(f"growth_interval must be a whole number, got {self.growth_interval!r}. Try 2000.")
        _require("growth_interval", self.growth_interval, 0, 2**31, "from 1 to 2**31 - 1", "2000")
        if not (self.min_scale or 0.0) <= self.init_scale <= (self.max_scale or math.inf):
            got = f"{self.min_scale!r}, {self.init_scale!r} and {self.max_scale!r}"
            wanted = "DynamicScale needs min_scale <= init_scale <= max_scale"
            raise ValueError(f"{wanted}, got {got}. Move one of them, or pass None to remove a limit.")

    @property
    def floor(self) -> float | None:
        """The smallest scale that this rule can reach: `min_scale`."""
        return self.min_scale

    def init(self) -> ScaleState:
        """Return `init_scale`, rounded to float32, and a tracker of 0."""
        return ScaleState(as_float32(self.init_scale))

    def update(self, state: ScaleState, found_inf: bool) -> ScaleState:
        """Return the state after one step."""
        scale, tracker = state.scale, state.growth_tracker + 1
        if found_inf:
            scale, tracker = as_float32(scale * self.backoff_factor), 0
        elif tracker == self.growth_interval:
            grown = as_float32(scale * self.growth_factor)
            scale, tracker = (grown if math.isfinite(grown) else scale), 0
        low, high = as_float32(self.min_scale or 0.0), as_float32(self.max_scale or math.inf)
        return ScaleState(min(max(scale, low), high), tracker)

    def update_tensors(self, scale: Tensor, growth_tracker: Tensor, found_inf: Tensor) -> None:
        """Do `update` in place on the device: at most two small kernels, no wait for the host."""
        factors = (self.growth_factor, self.backoff_factor, self.growth_interval)
        torch._amp_update_scale_(scale, growth_tracker, found_inf, *factors)
        if self.min_scale is not None or self.max_scale is not None:
            scale.clamp_(self.min_scale, self.max_scale)


def _require(name: str, value: object, low: float, high: float, wanted: str, example: str) -> None:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not low < float(value) < high:  # type: ignore[arg-type]
        raise ValueError(f"{name} must be {wanted}, got {value!r}. Try {example}.")


def _require_scale(name: str, value: object, example: str = "2.0**16") -> None:
    # The open interval whose numbers round to a positive, finite float32.
    wanted = "a positive number that float32 can hold (about 1e-45 to 3.4e38)"
    _require(name, value, 2.0**-150, 2.0**128 - 2.0**103, wanted, example)


PRESETS: dict[str, ScaleRule] = {
    "mpkit": DynamicScale(),
    "torch": DynamicScale(min_scale=None, max_scale=None, check_unscaled=False),  # torch/amp/grad_scaler.py
    "none": NoScaling(),
}


def preset(name: str) -> ScaleRule:
    """Return the rule that a library uses by default; an unknown name is a ValueError that lists the known.

    "torch" is `torch.amp.GradScaler`'s exactly: no floor, no cap, and only the scaled gradients tested.
    """
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown. Known presets: {', '.join(sorted(PRESETS))}.")
    return PRESETS[name]
