"""What every rule for the loss scale offers: a first state, and the state after a step.

A rule holds no state of its own. It maps (state, found_inf) to the next state and never touches a model, so it can be
run, plotted and tested on plain numbers. `mpkit.scaling.loss_scaler.LossScaler` drives a rule in a training step.
"""

import abc
import ctypes
import dataclasses
import numbers
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from mpkit.formats import FP32
from mpkit.scaling.gradient_stats import GradientStats


@dataclass(frozen=True)
class ScaleState:
    """What a rule remembers: the scale, and how many clean steps went by since it last changed.

    Rules that remember more return a subclass with more fields: plain numbers, so that a state can be saved.
    """

    scale: float
    growth_tracker: int = 0


class ScaleExhausted(FloatingPointError):
    """The scale is at its floor, the gradients still overflow, and the rule gives up, as some libraries do."""


def as_float32(value: float) -> float:
    """Round `value` to the nearest float32 (Inf when it is too large), as the scale on the device is."""
    return ctypes.c_float(value).value  # struct.pack would refuse what is too large


@dataclass(frozen=True)
class ScaleRule(abc.ABC):
    """What every rule offers. A new rule needs only `init` and `update`.

    `skips`: a non-finite gradient skips the step. True for nearly every rule here, the constant ones included:
    libraries differ on those, but an Inf in a weight cannot be undone.
    `reads`: what of the gradients `update` looks at, "norm", "amax" or "histogram"; "" for rules that do not.
    `check_unscaled`: gradients must be finite after the division by the scale too, not only before it.
    """

    skips: ClassVar[bool] = True
    reads: ClassVar[str] = ""
    check_unscaled: bool = dataclasses.field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        require_flag("check_unscaled", self.check_unscaled)

    @abc.abstractmethod
    def init(self) -> ScaleState:
        """Return the state before the first step."""

    @abc.abstractmethod
    def update(self, state: ScaleState, found_inf: bool, seen: GradientStats | None = None) -> ScaleState:
        """Return the state after a step.

        `found_inf`: was any gradient Inf or NaN? `seen`: the unscaled gradients in numbers, for rules that read them; a
        rule that reads nothing is called without it, and need not take it.
        """

    @property
    def on_device(self) -> bool:
        """Whether `update_tensors` does all that `update` does, without waiting for the device."""
        return False

    def update_tensors(self, scale: Tensor, growth_tracker: Tensor, found_inf: Tensor, *more: Tensor) -> None:
        """Do `update` in place on 0-dim tensors: float32 scale, int32 tracker, float32 found_inf (0 or 1).

        `more`: the further fields of a state with more than two, in their order, int32 each.
        This default reads them on the host: it waits for the device, and no CUDA graph can capture it.
        TypeError: the rule remembers more than these two.
        """
        if type(self.init()) is not ScaleState:
            raise TypeError(
                f"{type(self).__name__} remembers more than a scale and a count here; use update(state, found_inf)."
            )
        state = self.update(ScaleState(float(scale), int(growth_tracker)), bool(found_inf))
        scale.fill_(state.scale)
        growth_tracker.fill_(state.growth_tracker)

    @property
    def floor(self) -> float | None:
        """The smallest scale that this rule can reach; None when there is no such limit."""
        return None

    @property
    def ceiling(self) -> float | None:
        """The largest scale that this rule can reach; None when there is no such limit."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the rule's name and fields as plain values; two rules are equal when these are."""
        return {"name": type(self).__name__, **dataclasses.asdict(self)}


def require_flag(name: str, value: object) -> None:
    """ValueError unless `value` is True or False: "no" would count as True."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}. Pass one of them, without quotation marks.")


def require_number(name: str, value: object, low: float, high: float, wanted: str, example: str) -> None:
    """ValueError unless `value` is a real number strictly between `low` and `high`."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not low < float(value) < high:  # type: ignore[arg-type]
        raise ValueError(f"{name} must be {wanted}, got {value!r}. Try {example}.")


def require_count(name: str, value: object, example: str) -> None:
    """ValueError unless `value` is a whole number from 1 to 2^31 - 1."""
    if not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, got {value!r}. Try {example}.")
    require_number(name, value, 0, 2**31, "from 1 to 2**31 - 1", example)


def require_scale(name: str, value: object, example: str = "2.0**16") -> None:
    """ValueError unless `value` rounds to a positive, finite float32."""
    wanted = "a positive number that float32 can hold (about 1e-45 to 3.4e38)"
    require_number(name, value, FP32.flush_at, FP32.overflow_at, wanted, example)


def require_seen(rule: ScaleRule, seen: GradientStats | None) -> GradientStats:
    """Return `seen`; TypeError if it is missing."""
    if seen is None:
        raise TypeError(
            f"{type(rule).__name__} looks at the gradients ({rule.reads}); pass update(state, found_inf, seen), with "
            "seen = mpkit.scaling.GradientStats.of(gradients)."
        )
    return seen
