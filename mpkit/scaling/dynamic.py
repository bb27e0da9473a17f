"""Shrink on overflow, grow after enough clean steps: the rule of nearly every framework."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mpkit.scaling.gradient_stats import GradientStats
from mpkit.scaling.rule import ScaleRule, ScaleState, as_float32, require_count, require_number, require_scale


@dataclass(frozen=True)
class DynamicScale(ScaleRule):
    """Shrink on overflow, grow after `growth_interval` clean steps in a row, as `torch.amp.GradScaler` does.

    As in torch (ATen, AmpGradScalerKernels.cpp), products are taken in float64 and rounded to float32, and growth
    past float32's range is refused. `min_scale`, `max_scale`: limits; None means none. What single libraries do
    differently is in `LibraryScale`.

    ValueError: a limit, factor or interval that makes no sense.
    """

    init_scale: float = 2.0**16
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    min_scale: float | None = 1.0
    max_scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_scale("init_scale", self.init_scale)
        for name in ("min_scale", "max_scale"):
            if getattr(self, name) is not None:
                require_scale(name, getattr(self, name), example="None for no limit")
        require_number("growth_factor", self.growth_factor, 1.0, math.inf, "a finite number above 1", "2.0")
        require_number("backoff_factor", self.backoff_factor, 0.0, 1.0, "above 0 and below 1", "0.5")
        require_count("growth_interval", self.growth_interval, "2000")
        if not (self.min_scale or 0.0) <= self.init_scale <= (self.max_scale or math.inf):
            got = f"{self.min_scale!r}, {self.init_scale!r} and {self.max_scale!r}"
            wanted = "DynamicScale needs min_scale <= init_scale <= max_scale"
            raise ValueError(f"{wanted}, got {got}. Move one of them, or pass None to remove a limit.")

    @property
    def floor(self) -> float | None:
        """The smallest scale that this rule can reach: `min_scale`."""
        return self.min_scale

    @property
    def ceiling(self) -> float | None:
        """The largest scale that this rule can reach: `max_scale`."""
        return self.max_scale

    @property
    def on_device(self) -> bool:
        """True: torch's own kernel does it."""
        return True

    def init(self) -> ScaleState:
        """Return `init_scale`, rounded to float32, and no clean step yet."""
        return ScaleState(as_float32(self.init_scale))

    def update(self, state: ScaleState, found_inf: bool, seen: GradientStats | None = None) -> ScaleState:
        """Return the state after one step."""
        if found_inf:
            return ScaleState(self._shrunk(state.scale))
        clean_steps = state.growth_tracker + 1
        if clean_steps >= self.growth_interval:
            return ScaleState(self._grown(state.scale))
        return ScaleState(self._limited(state.scale), clean_steps)  # a state that was loaded may lie outside the limits

    def update_tensors(self, scale: Tensor, growth_tracker: Tensor, found_inf: Tensor, *more: Tensor) -> None:
        """Do `update` in place on the device, in a few small kernels: no wait for the host."""
        # torch's kernel compares with ==, and a count that is beyond the interval already would never grow again.
        growth_tracker.clamp_(max=self.growth_interval - 1)
        self._update_as_torch(scale, growth_tracker, found_inf)

    def _update_as_torch(self, scale: Tensor, growth_tracker: Tensor, found_inf: Tensor) -> None:
        factors = (self.growth_factor, self.backoff_factor, self.growth_interval)
        torch._amp_update_scale_(scale, growth_tracker, found_inf, *factors)
        if self.min_scale is not None or self.max_scale is not None:
            scale.clamp_(self.min_scale, self.max_scale)

    def _shrunk(self, scale: float) -> float:
        return self._limited(as_float32(scale * self.backoff_factor))

    def _grown(self, scale: float) -> float:
        larger = as_float32(scale * self.growth_factor)
        return self._limited(larger if math.isfinite(larger) else scale)

    def _limited(self, scale: float) -> float:
        low, high = as_float32(self.min_scale or 0.0), as_float32(self.max_scale or math.inf)
        return min(max(scale, low), high)
