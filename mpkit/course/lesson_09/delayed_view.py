"""A trace of tensors cast by delayed and by current scaling, step by step: the numbers of the delayed race."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpkit import E4M3
from mpkit.scaled import DelayedAmax, ScaledFormat, scaled_cast

LEAST = 12  # steps of a trace
MUCH = 0.01  # of the values: from here on a step counts as clipped
SMALL = 0.01  # the share of magnitudes below what the picture calls small
# A row of the stack is a step, so one scale a row is one scale for each step's tensor.
STEPS_APART = ScaledFormat("E4M3, a tensor a step", E4M3, (1, None))


@dataclass(frozen=True, eq=False)
class Trace:
    """One tensor of each step, flat, as (steps, values); its largest magnitude, and the one that 1% lie below."""

    values: Tensor
    amax: Tensor
    small: Tensor

    @property
    def up(self) -> int:
        """The step at which a planted jump begins."""
        return len(self.values) * 5 // 12

    @property
    def down(self) -> int:
        """The step at which it ends."""
        return len(self.values) * 2 // 3


@dataclass(frozen=True, eq=False)
class Race:
    """What both ways do on one trace; every array has a number a step.

    Attributes:
        factor: of the planted jump, from step `up` to before step `down`.
        amax: the largest magnitude. `small`: 1% of the non-zero magnitudes are below.
        limit: the largest magnitude that delayed scaling lets through.
        clipped: share of the non-zero values beyond it. `flushed`: share that becomes 0, delayed.
        error, current: relative error of the tensor, delayed and by the current amax.
        current_flushed: share that becomes 0 by the current amax.
    """

    factor: int
    up: int
    down: int
    amax: np.ndarray
    small: np.ndarray
    limit: np.ndarray
    clipped: np.ndarray
    flushed: np.ndarray
    error: np.ndarray
    current: np.ndarray
    current_flushed: np.ndarray

    @property
    def long(self) -> int:
        """Steps from the jump on in which much is clipped, without a gap."""
        fine = np.flatnonzero(self.clipped[self.up :] < MUCH)
        return int(fine[0]) if len(fine) else len(self.clipped) - self.up

    @property
    def late(self) -> int:
        """Steps from the end of the jump on in which the limit is more than twice what it would have to be."""
        near = np.flatnonzero(self.limit[self.down :] <= 2 * self.amax[self.down :])
        return int(near[0]) if len(near) else len(self.limit) - self.down

    def after(self, values: np.ndarray) -> float:
        """The mean of an array over those `late` steps, or of the first alone if there are none; unplanted, of all."""
        first = self.down if self.factor > 1 else 0
        end = self.down + max(self.late, 1) if self.factor > 1 else len(values)
        return float(values[first:end].mean())


def trace(name: str, tensors: Any) -> Trace:
    """Check one tensor a step and stack them.

    Raises:
        TypeError: something is no floating-point tensor. ValueError: too few, of several sizes, Inf or NaN, all zero.
    """
    if isinstance(tensors, Tensor | str) or not isinstance(tensors, Sequence):
        raise TypeError(f"{name!r}: a list of tensors is asked for, one a step, but {type(tensors).__name__} came.")
    for x in tensors:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            came = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name!r}: a floating-point tensor a step is asked for, but {came} came.")
    if len(tensors) < LEAST or len({x.numel() for x in tensors}) != 1:
        sizes = ", ".join(map(str, sorted({x.numel() for x in tensors})))
        raise ValueError(f"{name!r}: at least {LEAST} tensors of one size are asked for; {len(tensors)} came"
                         + (f", of {sizes} values." if tensors else "."))  # fmt: skip
    values = torch.stack([x.detach().float().cpu().flatten() for x in tensors])
    amax = values.abs().amax(1)
    if not amax.isfinite().all() or not amax.all():
        step = int((~amax.isfinite() | (amax == 0)).nonzero()[0])
        raise ValueError(f"{name!r}: step {step} has Inf, NaN or nothing but zeros; there is nothing to scale by.")
    small = [torch.quantile(row[row != 0].abs(), SMALL) for row in values]
    return Trace(values, amax, torch.stack(small))


def race(of: Trace, length: int, margin: int, factor: int) -> Race:
    """Cast every step by the amax of the steps before it, and by its own. The first step has its own for a history."""
    times = torch.ones(len(of.values))
    times[of.up : of.down] = factor
    values, amax = of.values * times[:, None], of.amax * times
    history, limits = DelayedAmax(length, margin), []
    for largest in amax:
        limits.append(largest * 2.0**margin if history.amax is None else history.amax)
        history = history.update(largest)
    limit = torch.stack(limits)
    late, now = scaled_cast(values, STEPS_APART, amax=limit[:, None]), scaled_cast(values, STEPS_APART)
    nonzero = values != 0
    # Beyond by more than rounding: 464 of 448, as mpkit.scaled.report counts.
    beyond = (values / (limit / E4M3.max)[:, None]).abs() > E4M3.overflow_at
    return Race(
        factor, of.up, of.down, amax.numpy(), (of.small * times).numpy(), limit.numpy(),
        clipped=_share(beyond, nonzero), flushed=_share(nonzero & (late == 0), nonzero), error=_error(late, values),
        current=_error(now, values), current_flushed=_share(nonzero & (now == 0), nonzero),
    )  # fmt: skip


def _share(of: Tensor, among: Tensor) -> np.ndarray:
    return (of.sum(1) / among.sum(1)).numpy()


def _error(found: Tensor, exact: Tensor) -> np.ndarray:
    length = torch.linalg.vector_norm
    error: np.ndarray = (length(found - exact, dim=1) / length(exact, dim=1)).numpy()
    return error
