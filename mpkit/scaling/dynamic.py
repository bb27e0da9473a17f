"""Shrink on overflow, grow after enough clean steps: the rule of nearly every framework, and what differs in each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mpkit.scaling.gradient_stats import GradientStats
from mpkit.scaling.rule import (
    ScaleExhausted,
    ScaleRule,
    ScaleState,
    as_float32,
    require_count,
    require_number,
    require_scale,
)

Refill = Literal["growth", "clean step", "shrink"]
AtFloor = Literal["stay", "stop", "stop before"]


@dataclass(frozen=True)
class PatientState(ScaleState):
    """`ScaleState`, and how many overflows the rule will still take before the scale shrinks (1: at the next)."""

    hysteresis_tracker: int = 1


@dataclass(frozen=True)
class DynamicScale(ScaleRule):
    """Shrink on overflow, grow after `growth_interval` clean steps in a row, as `torch.amp.GradScaler` does.

    As in torch (ATen, AmpGradScalerKernels.cpp), products are taken in float64 and rounded to float32, and growth
    past float32's range is refused. The remaining fields model where libraries differ; `mpkit.scaling.preset` sets
    them, and its sources are named in presets.py.

    `min_scale`, `max_scale`: limits; None means none.
    `hysteresis`: overflows that it takes to shrink. `refill` says when that patience is full again: after a
    "growth" (Megatron-LM: overflows add up, whatever lies between), at every "clean step" (Apex: only overflows in a
    row count, and once exhausted each further one shrinks), or at a clean step and after every "shrink" (Paddle).
    `late_growth`: extra clean steps before the first growth, at the start and after an overflow (DeepSpeed: 1).
    `exact_interval`: grow only when the count of clean steps *equals* the interval (torch, Apex, Megatron-LM,
    Keras, Paddle). A state whose count is already beyond it, for example after the interval was lowered, then grows
    nothing until the next overflow.
    `grow_to_inf`: growth past float32's range gives Inf, which no backoff brings back (Keras, Megatron-LM, Paddle).
    `at_floor`: at min_scale, "stay"; or raise ScaleExhausted, when asked to shrink from it ("stop", DeepSpeed) or
    when a shrink would reach it ("stop before", fairseq).

    ValueError: a limit, factor or interval that makes no sense.
    """

    init_scale: float = 2.0**16
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    min_scale: float | None = 1.0
    max_scale: float | None = None
    hysteresis: int = 1
    refill: Refill = "growth"
    late_growth: int = 0
    exact_interval: bool = False
    grow_to_inf: bool = False
    at_floor: AtFloor = "stay"

    def __post_init__(self) -> None:
        require_scale("init_scale", self.init_scale)
        for name in ("min_scale", "max_scale"):
            if getattr(self, name) is not None:
                require_scale(name, getattr(self, name), example="None for no limit")
        require_number("growth_factor", self.growth_factor, 1.0, math.inf, "a finite number above 1", "2.0")
        require_number("backoff_factor", self.backoff_factor, 0.0, 1.0, "above 0 and below 1", "0.5")
        require_count("growth_interval", self.growth_interval, "2000")
        require_count("hysteresis", self.hysteresis, "1, which shrinks at every overflow")
        if not isinstance(self.late_growth, int) or self.late_growth not in (0, 1):
            raise ValueError(f"late_growth must be 0 or 1, got {self.late_growth!r}. Try 0.")
        _require_choice("refill", self.refill, ("growth", "clean step", "shrink"))
        _require_choice("at_floor", self.at_floor, ("stay", "stop", "stop before"))
        if not (self.min_scale or 0.0) <= self.init_scale <= (self.max_scale or math.inf):
            got = f"{self.min_scale!r}, {self.init_scale!r} and {self.max_scale!r}"
            wanted = "DynamicScale needs min_scale <= init_scale <= max_scale"
            raise ValueError(f"{wanted}, got {got}. Move one of them, or pass None to remove a limit.")
        if self.at_floor != "stay" and self.min_scale is None:
            raise ValueError(f"at_floor={self.at_floor!r} needs a floor, got min_scale=None. Pass min_scale=1.0.")

    @property
    def floor(self) -> float | None:
        """The smallest scale that this rule can reach: `min_scale`."""
        return self.min_scale

    @property
    def on_device(self) -> bool:
        """True for what torch's kernel can do: no hysteresis, no late growth, no Inf, no error at the floor."""
        plain = self.hysteresis == 1 and not self.late_growth and not self.grow_to_inf
        return plain and self.at_floor == "stay"

    def init(self) -> ScaleState:
        """Return `init_scale`, rounded to float32, and counts as at the start."""
        return self._state(as_float32(self.init_scale), -self.late_growth, self.hysteresis)

    def update(self, state: ScaleState, found_inf: bool, seen: GradientStats | None = None) -> ScaleState:
        """Return the state after one step. ScaleExhausted: see `at_floor`."""
        left = state.hysteresis_tracker if isinstance(state, PatientState) else 1
        if found_inf:
            if left > 1:
                return self._state(state.scale, -self.late_growth, left - 1)
            patience = self.hysteresis if self.refill == "shrink" else 1
            return self._state(self._shrunk(state.scale), -self.late_growth, patience)
        tracker = state.growth_tracker + 1
        if self.refill != "growth":
            left = self.hysteresis
        if tracker == self.growth_interval or (tracker > self.growth_interval and not self.exact_interval):
            return self._state(self._grown(state.scale), 0, self.hysteresis)
        return self._state(self._limited(state.scale), tracker, left)

    def update_tensors(self, scale: Tensor, growth_tracker: Tensor, found_inf: Tensor) -> None:
        """Do `update` in place on the device, in a few small kernels: no wait for the host if `on_device`."""
        if not self.on_device:
            super().update_tensors(scale, growth_tracker, found_inf)
            return
        if not self.exact_interval:  # torch's kernel compares with ==
            growth_tracker.clamp_(max=self.growth_interval - 1)
        factors = (self.growth_factor, self.backoff_factor, self.growth_interval)
        torch._amp_update_scale_(scale, growth_tracker, found_inf, *factors)
        if self.min_scale is not None or self.max_scale is not None:
            scale.clamp_(self.min_scale, self.max_scale)

    def _state(self, scale: float, tracker: int, left: int) -> ScaleState:
        return ScaleState(scale, tracker) if self.hysteresis == 1 else PatientState(scale, tracker, left)

    def _shrunk(self, scale: float) -> float:
        smaller = as_float32(scale * self.backoff_factor)
        floor = self.min_scale or 0.0
        at_end = scale <= floor if self.at_floor == "stop" else smaller <= floor
        if self.at_floor != "stay" and at_end:
            raise ScaleExhausted(
                f"the scale is {scale:g}, its floor is {floor:g}, and the gradients still overflow. Either the loss "
                "or an activation is Inf or NaN in the forward pass, which no loss scale can repair, or the training "
                "diverges. Look for the first one with mpkit.trace(model)."
            )
        return self._limited(smaller)

    def _grown(self, scale: float) -> float:
        larger = as_float32(scale * self.growth_factor)
        return self._limited(larger if math.isfinite(larger) or self.grow_to_inf else scale)

    def _limited(self, scale: float) -> float:
        low, high = as_float32(self.min_scale or 0.0), as_float32(self.max_scale or math.inf)
        return min(max(scale, low), high)


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")
