"""What single libraries do differently: patience before the scale shrinks, a late or exact growth, an end at the floor.

`DynamicScale`, and one thing more at a time. `mpkit.scaling.preset` sets the fields; presets.py names the sources.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mpkit.scaling.dynamic import DynamicScale
from mpkit.scaling.gradient_stats import GradientStats
from mpkit.scaling.rule import ScaleExhausted, ScaleRule, ScaleState, as_float32, require_count, require_flag

Refill = Literal["growth", "clean step", "shrink"]
AtFloor = Literal["stay", "stop", "stop before"]


@dataclass(frozen=True)
class PatientState(ScaleState):
    """`ScaleState`, and how many overflows the rule will still take before the scale shrinks (1: at the next)."""

    hysteresis_tracker: int = 1


@dataclass(frozen=True)
class LibraryScale(DynamicScale):
    """`DynamicScale` with the ways of other libraries.

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

    ValueError: as DynamicScale, or a field that makes no sense.
    """

    hysteresis: int = 1
    refill: Refill = "growth"
    late_growth: int = 0
    exact_interval: bool = False
    grow_to_inf: bool = False
    at_floor: AtFloor = "stay"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("hysteresis", self.hysteresis, "1, which shrinks at every overflow")
        if not isinstance(self.late_growth, int) or self.late_growth not in (0, 1):
            raise ValueError(f"late_growth must be 0 or 1, got {self.late_growth!r}. Try 0.")
        for name in ("exact_interval", "grow_to_inf"):
            require_flag(name, getattr(self, name))
        _require_choice("refill", self.refill, get_args(Refill))
        _require_choice("at_floor", self.at_floor, get_args(AtFloor))
        if self.at_floor != "stay" and self.min_scale is None:
            raise ValueError(f"at_floor={self.at_floor!r} needs a floor, got min_scale=None. Pass min_scale=1.0.")

    @property
    def on_device(self) -> bool:
        """True unless it may raise an error at its floor, which takes the host."""
        return self.at_floor == "stay"

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
        clean_steps = state.growth_tracker + 1
        if self.refill != "growth":
            left = self.hysteresis
        due = clean_steps == self.growth_interval if self.exact_interval else clean_steps >= self.growth_interval
        if due:
            return self._state(self._grown(state.scale), 0, self.hysteresis)
        return self._state(self._limited(state.scale), clean_steps, left)

    def update_tensors(self, scale: Tensor, growth_tracker: Tensor, found_inf: Tensor, *more: Tensor) -> None:
        """Do `update` in place: on the device where `on_device`, else as every rule does it, by reading on the host."""
        if not self.on_device:
            ScaleRule.update_tensors(self, scale, growth_tracker, found_inf, *more)
        elif self.hysteresis > 1 or self.late_growth or self.grow_to_inf:
            self._update_in_general(scale, growth_tracker, found_inf > 0, *more)
        elif self.exact_interval:
            self._update_as_torch(scale, growth_tracker, found_inf)
        else:
            super().update_tensors(scale, growth_tracker, found_inf)

    def _update_in_general(self, scale: Tensor, tracker: Tensor, found: Tensor, left: Tensor | None = None) -> None:
        """`update` without a branch: both outcomes are computed, and `found` chooses. `left`: patience, if there is."""
        clean = tracker + 1
        due = ~found & (clean == self.growth_interval if self.exact_interval else clean >= self.growth_interval)
        shrinks = found if left is None else found & (left <= 1)
        grown = (scale.double() * self.growth_factor).float()
        if not self.grow_to_inf:
            grown = grown.where(grown.isfinite(), scale)
        moved = (scale.double() * self.backoff_factor).float().where(shrinks, grown.where(due, scale))
        if self.min_scale is not None or self.max_scale is not None:
            moved = moved.clamp(self.min_scale, self.max_scale)
        if left is not None:
            full = {"growth": due, "clean step": ~found, "shrink": ~found | shrinks}[self.refill]
            left.copy_(torch.where(full, self.hysteresis, torch.where(found, (left - 1).clamp(min=1), left)))
        scale.copy_(moved.where(shrinks | ~found, scale))  # an overflow that is borne changes nothing
        tracker.copy_(torch.where(found, -self.late_growth, clean.masked_fill(due, 0)))

    def _state(self, scale: float, tracker: int, left: int) -> ScaleState:
        return ScaleState(scale, tracker) if self.hysteresis == 1 else PatientState(scale, tracker, left)

    def _shrunk(self, scale: float) -> float:
        floor = as_float32(self.min_scale or 0.0)  # what the scale itself is rounded to
        end = scale if self.at_floor == "stop" else as_float32(scale * self.backoff_factor)
        if self.at_floor != "stay" and end <= floor:
            raise ScaleExhausted(
                f"the scale is {scale:g}, its floor is {floor:g}, and the gradients still overflow. Either the loss "
                "or an activation is Inf or NaN in the forward pass, which no loss scale can repair, or the training "
                "diverges. Look for the first one with mpkit.trace(model)."
            )
        return super()._shrunk(scale)

    def _grown(self, scale: float) -> float:
        return self._limited(as_float32(scale * self.growth_factor)) if self.grow_to_inf else super()._grown(scale)


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")
