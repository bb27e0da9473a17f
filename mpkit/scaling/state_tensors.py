"""A rule's state on a device, where a fused step and a CUDA graph can read and change it."""

import dataclasses

import torch

from mpkit.scaling.rule import ScaleRule, ScaleState


class StateTensors:
    """`scale`, 0-dim float32, and `counts`, 0-dim int32 by name: the tracker, and what else the rule updates there."""

    def __init__(self, rule: ScaleRule, state: ScaleState, device: torch.device) -> None:
        fields = dataclasses.asdict(state)
        names = list(fields)[1:] if rule.on_device else ["growth_tracker"]  # the host remembers the rest
        self.one = torch.ones((), dtype=torch.float32, device=device)  # to divide by where nothing is to be divided
        self.scale = torch.full((), state.scale, dtype=torch.float32, device=device)
        self.counts = {name: torch.full((), fields[name], dtype=torch.int32, device=device) for name in names}

    def fill(self, state: ScaleState) -> None:
        """Take the numbers of `state`, in place."""
        self.scale.fill_(state.scale)
        for name, count in self.counts.items():
            count.fill_(getattr(state, name))

    def read(self) -> dict[str, float]:
        """The numbers by name; waits for the device."""
        return {"scale": float(self.scale), **{name: int(count) for name, count in self.counts.items()}}
