"""`torch.amp.GradScaler`'s names, so that a script that uses it runs with `LossScaler` instead.

scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10, enabled=use_amp)   # before
scaler = mpkit.LossScaler("cuda", init_scale=2.0**10, enabled=use_amp)       # after
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from mpkit.scaling import misuse
from mpkit.scaling.iteration import Iteration, params_of
from mpkit.scaling.memory import ScaleMemory
from mpkit.scaling.rule import ScaleRule


class GradScalerNames:
    """What scripts and frameworks call on a GradScaler besides its verbs, for a class that has these four.

    Of GradScaler's private names these are kept: `_scale` and `_growth_tracker` (tensors, or None before the first
    `scale`), `_get_growth_tracker()`, `_enabled`, `_lazy_init_scale_growth_tracker(device)`, and
    `_found_inf_per_device(optimizer)`, whose tensor may be changed in place after `unscale_`, to agree by hand with
    other ranks. There is no `_per_optimizer_states`: use that last one.
    """

    _enabled: bool
    _memory: ScaleMemory
    _iteration: Iteration

    @property
    def rule(self) -> ScaleRule:
        """How the scale changes."""
        return self._memory.rule

    def is_enabled(self) -> bool:
        """Does it scale, test and skip? If not (enabled=False), its verbs do nothing but call `optimizer.step()`."""
        return self._enabled

    def get_scale(self) -> float:
        """Read the scale; waits for the device. 1.0 if this scaler is not enabled."""
        return self._memory.read_scale() if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """By what the scale is multiplied when it grows. ValueError: the rule has no such number."""
        return float(self._number("growth_factor"))

    def set_growth_factor(self, new_factor: float) -> None:
        """From now on the rule with another growth factor. ValueError: the rule has none, or it makes no sense."""
        self._replace("growth_factor", new_factor)

    def get_backoff_factor(self) -> float:
        """By what the scale is multiplied after an overflow. ValueError: the rule has no such number."""
        return float(self._number("backoff_factor"))

    def set_backoff_factor(self, new_factor: float) -> None:
        """From now on the rule with another backoff factor. ValueError: the rule has none, or it makes no sense."""
        self._replace("backoff_factor", new_factor)

    def get_growth_interval(self) -> int:
        """How many clean steps in a row let the scale grow. ValueError: the rule has no such number."""
        return int(self._number("growth_interval"))

    def set_growth_interval(self, new_interval: int) -> None:
        """From now on the rule with another interval. ValueError: the rule has none, or it makes no sense."""
        self._replace("growth_interval", new_interval)

    def _number(self, name: str) -> Any:
        if not hasattr(self.rule, name):
            raise ValueError(misuse.NO_SUCH_NUMBER.format(name=name, rule=self.rule))
        return getattr(self.rule, name)

    def _replace(self, name: str, number: object) -> None:
        self._number(name)
        self._memory.rule = dataclasses.replace(self.rule, **{name: number})  # type: ignore[arg-type]

    @property
    def _scale(self) -> Tensor | None:
        return None if self._memory.tensors is None else self._memory.tensors.scale

    @property
    def _growth_tracker(self) -> Tensor | None:
        return None if self._memory.tensors is None else self._memory.tensors.counts["growth_tracker"]

    def _get_growth_tracker(self) -> int:
        return int(self._memory.kept.growth_tracker if self._growth_tracker is None else self._growth_tracker)

    def _lazy_init_scale_growth_tracker(self, dev: torch.device) -> None:
        self._memory.on_device(torch.device(dev))

    def _found_inf_per_device(self, optimizer: torch.optim.Optimizer) -> dict[torch.device, Tensor]:
        params = params_of(optimizer)
        return {plan.found_inf.device: plan.found_inf for plan in self._iteration.under_way if plan.is_for(params)}
