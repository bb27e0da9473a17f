"""Three ways to keep 16-bit weights trainable, each a wrapper around any torch optimizer.

    optimizer = mpkit.optim.MasterWeights(torch.optim.Adam(model.parameters(), lr=1e-4), mpkit.BF16)

`MasterWeights` keeps an FP32 copy (Micikevicius et al. 2018, arXiv 1710.03740, section 3.1), `Kahan` a second 16-bit
number for each weight, `Rounded` nothing but the 16-bit weight, rounded to nearest or at random (Zamirai et al. 2020,
arXiv 2010.06192, section 4). In all of them the wrapped optimizer computes its step, and keeps its state, in FP32.
"""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from mpkit.casting import cast
from mpkit.formats import FloatFormat
from mpkit.rounding import Rounding
from mpkit.weight_keeper import Slot, WeightKeeper

__all__ = ["Kahan", "MasterWeights", "Rounded"]


class MasterWeights(WeightKeeper):
    """FP32 weights inside the optimizer; the model's parameters hold a copy of them, rounded to `fmt`.

    Costs four bytes a weight besides the 16-bit copy. Float32 parameters give their full value to the master copy.
    """

    def _extra(self, param: Tensor) -> Tensor:
        return param.detach().to(torch.float32, copy=True)

    def _read(self, slot: Slot) -> Tensor:
        return _kept(slot).clone()

    def _write(self, slot: Slot) -> None:
        _kept(slot).copy_(slot.work)
        super()._write(slot)


class Rounded(WeightKeeper):
    """Nothing but the weight in `fmt`: each step is rounded into it.

    Args:
        optimizer, fmt: as for `WeightKeeper`.
        rounding: of `mpkit.cast`. Under "nearest" an update below half a spacing is lost every time. Under
            "stochastic" it moves the weight by a whole spacing now and then, so that the mean is right.
        seed: of the random numbers of "stochastic"; their state is saved with the rest.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, fmt: FloatFormat, rounding: Rounding = "nearest", seed: int = 0
    ) -> None:
        if rounding not in get_args(Rounding):
            raise ValueError(f"rounding={rounding!r} is unknown; use one of {', '.join(get_args(Rounding))}.")
        self.rounding, self.seed = rounding, seed
        self._random: dict[torch.device, torch.Generator] = {}
        super().__init__(optimizer, fmt)

    def __repr__(self) -> str:
        return f"Rounded({type(self.optimizer).__name__}, {self.format}, {self.rounding!r})"

    def state_dict(self) -> dict[str, Any]:
        """As in the base, with the state of the random numbers."""
        return {**super().state_dict(), "random": {str(d): g.get_state() for d, g in self._random.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in the base; the random numbers go on where they were."""
        super().load_state_dict(state_dict)
        self._random.clear()
        for device, state in state_dict["random"].items():
            self._generator(torch.device(device)).set_state(state)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._random:
            self._random[device] = torch.Generator(device).manual_seed(self.seed)
        return self._random[device]

    def _write(self, slot: Slot) -> None:
        generator = self._generator(slot.param.device) if self.rounding == "stochastic" else None
        slot.param.copy_(cast(slot.work.detach(), self.format, self.rounding, generator=generator))


class Kahan(WeightKeeper):
    """The weight in `fmt`, and in a second number of `fmt` what rounding cut off.

    The summation of Kahan 1965 (doi 10.1145/363707.363723) over the steps.
    Two bytes a weight besides the weight. The sum of both is stepped in FP32 and split again, so an update is lost
    only where it is below half a spacing of the second number; in FP16 that is never finer than 2^-25.
    """

    def _extra(self, param: Tensor) -> Tensor:
        return torch.zeros_like(param.detach())

    def _read(self, slot: Slot) -> Tensor:
        return slot.param.detach().float() + _kept(slot).float()

    def _write(self, slot: Slot) -> None:
        super()._write(slot)
        rest = slot.work.detach() - slot.param.detach().float()
        _kept(slot).copy_(cast(rest.where(slot.param.detach().isfinite(), 0.0), self.format))


def _kept(slot: Slot) -> Tensor:
    assert slot.extra is not None
    return slot.extra
