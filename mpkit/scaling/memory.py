"""What a scaler remembers between steps: its rule, and the rule's state, on the host and on the device of the loss."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from mpkit.scaling import misuse
from mpkit.scaling.gradient_stats import GradientStats
from mpkit.scaling.rule import ScaleRule
from mpkit.scaling.saved import grad_scaler_state, read_state, settable
from mpkit.scaling.state_tensors import StateTensors


class ScaleMemory:
    """A rule and its state.

    `tensors`: the state on the device, made where the first loss is; None before that.
    `kept`: the start; once there are tensors, what the rules remember that are not updated on the device.
    """

    def __init__(self, rule: ScaleRule) -> None:
        self.rule, self.kept = rule, rule.init()
        self.tensors: StateTensors | None = None

    def on_device(self, device: torch.device) -> Tensor:
        """The scale, 0-dim float32; `device` is where it is made. RuntimeError: that would be inside a capture."""
        if self.tensors is None:
            if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                raise RuntimeError(misuse.IN_CAPTURE)
            self.tensors = StateTensors(self.rule, self.kept, device)
        return self.tensors.scale

    def read_scale(self) -> float:
        """The scale; waits for the device."""
        return self.kept.scale if self.tensors is None else float(self.tensors.scale)

    def set_scale(self, scale: float | Tensor) -> None:
        """Go on with this scale; a tensor is read. ValueError: the rule cannot have it."""
        self.kept = dataclasses.replace(self.kept, scale=settable(scale, self.rule))
        if self.tensors is not None:
            self.tensors.scale.fill_(self.kept.scale)

    def adapt(self, tensors: StateTensors, found_inf: Tensor, seen: GradientStats | None) -> None:
        """Let the rule update its state, on the device if it can. ScaleExhausted: it gave up."""
        if self.rule.on_device:
            tracker, *more = tensors.counts.values()
            self.rule.update_tensors(tensors.scale, tracker, found_inf, *more)
        else:  # Python decides: the host has to read found_inf
            self.kept = self.rule.update(self.kept, bool(found_inf), *((seen,) if self.rule.reads else ()))
            tensors.fill(self.kept)

    def state_dict(self) -> dict[str, Any]:
        """Rule and state as plain values; waits for the device."""
        there = {} if self.tensors is None else self.tensors.read()
        state: dict[str, Any] = {**dataclasses.asdict(self.kept), **there}
        return {**state, "rule": self.rule.state_dict(), **grad_scaler_state(self.rule, state["growth_tracker"])}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state. ValueError: it does not fit."""
        self.rule, self.kept = read_state(state, self.rule)
        if self.tensors is not None:
            self.tensors.fill(self.kept)
