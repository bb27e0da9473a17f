"""Three ways to keep 16-bit weights trainable, each a wrapper around any torch optimizer.

    optimizer = mpkit.optim.MasterWeights(torch.optim.Adam(model.parameters(), lr=1e-4), mpkit.BF16)

`MasterWeights` keeps an FP32 copy (Micikevicius et al. 2018, arXiv 1710.03740, section 3.1), `Kahan` a second 16-bit
number for each weight, `Rounded` nothing but the 16-bit weight, rounded to nearest or at random (Zamirai et al. 2020,
arXiv 2010.06192, section 4). In all of them the wrapped optimizer computes its step, and keeps its state, in FP32.
"""

from typing import Any, get_args

import torch
from torch import Tensor

from mpkit.casting import cast
from mpkit.formats import FloatFormat
from mpkit.optim.keeper import WeightKeeper
from mpkit.optim.slot import Slot
from mpkit.rounding import Rounding


class MasterWeights(WeightKeeper):
    """FP32 weights inside the optimizer; the model's parameters hold a copy of them, rounded to `fmt`.

    Costs four bytes a weight besides the 16-bit copy. Float32 parameters give their full value to the master copy.
    Where the model's weight was changed by other hands, that value counts (a checkpoint that was loaded, clamping).
    """

    def _extra(self, param: Tensor) -> Tensor:
        return param.detach().to(torch.float32, copy=True)

    def _read(self, slot: Slot) -> Tensor:
        stored, master = super()._read(slot), _kept(slot)
        return master.where(cast(master, self.format) == stored, stored)

    def _write(self, slot: Slot, weight: Tensor) -> None:
        _kept(slot).copy_(weight)
        super()._write(slot, weight)


class Rounded(WeightKeeper):
    """Nothing but the weight in `fmt` between steps: each step is rounded into it.

    Args:
        optimizer, fmt: as for `WeightKeeper`.
        rounding: of `mpkit.cast`. Under "nearest" an update below half a spacing is lost every time. Under
            "stochastic" it moves the weight by a whole spacing now and then, so that the mean is right, down to
            updates of 2^-16 of a spacing, which is the finest chance that `mpkit.cast` draws.
        seed: of the random numbers of "stochastic"; their state is saved with the rest.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, fmt: FloatFormat, rounding: Rounding = "nearest", seed: int = 0
    ) -> None:
        if rounding not in get_args(Rounding):
            raise ValueError(f"rounding={rounding!r} is unknown; use one of {', '.join(get_args(Rounding))}.")
        self.rounding, self.seed = rounding, seed
        self._random: dict[str, torch.Generator] = {}  # one for each device
        super().__init__(optimizer, fmt)

    def __repr__(self) -> str:
        return f"Rounded({type(self.optimizer).__name__}, {self.format}, {self.rounding!r})"

    def __getstate__(self) -> dict[str, Any]:
        """As in the base; not every torch can copy a generator, so their states are copied."""
        return {**super().__getstate__(), "_random": self._random_states()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What copy.deepcopy and pickle call."""
        self.__dict__.update(state)
        self._set_random(state["_random"])

    def state_dict(self) -> dict[str, Any]:
        """As in the base, with the state of the random numbers."""
        return {**super().state_dict(), "random": self._random_states()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in the base; the random numbers go on where they were."""
        super().load_state_dict(state_dict)
        self._set_random(state_dict["random"])

    def generators(self) -> list[torch.Generator]:
        """One for each device of the parameters, if rounding is by chance."""
        if self.rounding != "stochastic":
            return []
        return [self._generator(device) for device in sorted({str(slot.param.device) for slot in self._current()})]

    def _random_states(self) -> dict[str, Tensor]:
        return {device: generator.get_state() for device, generator in self._random.items()}

    def _set_random(self, states: dict[str, Tensor]) -> None:
        self._random = {}
        for device, state in states.items():
            self._generator(device).set_state(state.cpu())

    def _generator(self, device: str) -> torch.Generator:
        if device not in self._random:
            self._random[device] = torch.Generator(device).manual_seed(self.seed)
        return self._random[device]

    def _write(self, slot: Slot, weight: Tensor) -> None:
        generator = self._generator(str(weight.device)) if self.rounding == "stochastic" else None
        slot.stored.copy_(cast(weight, self.format, self.rounding, generator=generator))


class Kahan(WeightKeeper):
    """The weight in `fmt`, and in a second number of `fmt` what rounding cut off, to be added at the next step.

    The compensation of Kahan 1965 (doi 10.1145/363707.363723) carried from step to step; the sum of both numbers is
    stepped in FP32 and split again. Two bytes a weight besides the weight. An update is lost where it is below half
    a spacing of the second number, which is never finer than 2^-24 in FP16, or of the sum in FP32.
    """

    def _extra(self, param: Tensor) -> Tensor:
        return torch.zeros_like(param.detach())

    def _read(self, slot: Slot) -> Tensor:
        stored, rest = super()._read(slot), _kept(slot).float()
        # A rest is at most half a spacing of its own weight, so that a quarter of it never moves the rounding. Where it
        # does, it belongs to a weight that other hands have changed since, and is dropped.
        return stored + rest.where(cast(stored + rest / 4, self.format) == stored, 0.0)

    def _write(self, slot: Slot, weight: Tensor) -> None:
        super()._write(slot, weight)
        stored = super()._read(slot)
        _kept(slot).copy_(cast((weight - stored).where(stored.isfinite(), 0.0), self.format))


def _kept(slot: Slot) -> Tensor:
    assert slot.extra is not None
    return slot.extra
