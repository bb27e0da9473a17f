"""Scales that never change."""

from dataclasses import dataclass

from torch import Tensor

from mpkit.scaling.gradient_stats import GradientStats
from mpkit.scaling.rule import ScaleRule, ScaleState, as_float32, require_scale


class _ConstantRule(ScaleRule):
    """A scale that never changes."""

    def update(self, state: ScaleState, found_inf: bool, seen: GradientStats | None = None) -> ScaleState:
        """Return `state` unchanged."""
        return state

    @property
    def on_device(self) -> bool:
        """True: there is nothing to do."""
        return True

    def update_tensors(self, scale: Tensor, growth_tracker: Tensor, found_inf: Tensor, *more: Tensor) -> None:
        """Change nothing."""

    @property
    def floor(self) -> float | None:
        """The scale itself."""
        return self.init().scale

    @property
    def ceiling(self) -> float | None:
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
        super().__post_init__()
        require_scale("scale", self.scale)

    def init(self) -> ScaleState:
        """Return the given scale, rounded to float32."""
        return ScaleState(as_float32(self.scale))
