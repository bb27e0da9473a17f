"""What a check leaves behind: which gradients had Inf or NaN in them, as they were at that moment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mpkit.scaling.bucket import Gathered, ParamGroups, describe, local
from mpkit.scaling.gradient_marks import GradientMarks
from mpkit.unwatched import unwatched

GONE = "its gradients were let go at the next scale(); look at a result before that to learn which"
CHANGED = "its gradients were changed after the check; look at a result before that to learn which"


class BadGradients(NamedTuple):
    """The first parameter, in the optimizer's order, with Inf or NaN in its gradient; None: all here are finite.

    `kind`: "NaN" if there is one in the first, else "Inf". `infs` and `nans`, in all gradients: None if not counted.
    """

    first: str | None = None
    kind: str = ""
    infs: int | None = 0
    nans: int | None = 0


class Evidence:
    """The gradients of a check, as long as they tell what was found in them; then what was noted in time.

    `marks`: how the gradients stood when the check, or the step that followed it, was done with them.
    """

    def __init__(self, gathered: Gathered, param_groups: ParamGroups) -> None:
        self.gathered, self.marks, self.lost = gathered, GradientMarks(), ""
        self._param_groups = param_groups
        # Of some parameters: the largest magnitude of each, or NaN. Not yet stacked: that costs more than to find them.
        self._flags: list[tuple[list[Tensor], Sequence[Tensor]]] = []
        self._settled: BadGradients | None = None

    def note(self, found_inf: Tensor) -> None:
        """Note what outlives the gradients, without a wait: all of it on a CPU, elsewhere a flag for each parameter."""
        if found_inf.device.type == "cpu":
            self.settle(bool(found_inf))
        else:
            self.flag()

    @unwatched
    @torch.no_grad()
    def flag(self) -> None:
        """Note for every parameter whether it has Inf or NaN, in one pass."""
        for params, values in self._held():
            full = [i for i, value in enumerate(values) if value.numel()]  # a shard may be empty
            if full:
                largest = torch._foreach_norm([values[i] for i in full], math.inf)
                self._flags.append(([params[i] for i in full], largest))

    def settle(self, found_inf: bool) -> None:
        """Note all that can be said, which waits for the device, and let go of the gradients."""
        self._settled = self.look() if found_inf else BadGradients()
        self.gathered = []

    def doubt(self) -> None:
        """Give the gradients up if somebody wrote to one since the check."""
        if not self.marks.unchanged():
            self.release(CHANGED)

    def release(self, why: str) -> None:
        """Let go of the gradients; `why` is told to who asks later."""
        self.gathered, self.lost = [], self.lost or why

    @unwatched
    @torch.no_grad()
    def look(self) -> BadGradients | None:
        """What was found; None: that is lost. Waits for the device. Only for a step that found something somewhere."""
        if self._settled is not None:
            return self._settled
        self.doubt()  # nothing is kept from here: a CUDA graph may write to gradients and flags again
        return self._from_flags() if self.lost else self._counted()

    def _counted(self) -> BadGradients:
        counts: dict[Tensor, tuple[int, int]] = {}
        for params, values in self._held():
            both = torch.stack([torch.stack((v.isinf().sum(), v.isnan().sum())) for v in values]).tolist()
            counts.update((p, (infs, nans)) for p, (infs, nans) in zip(params, both, strict=True) if infs or nans)
        if (first := self._first(counts)) is None:
            return BadGradients()
        infs, nans = map(sum, zip(*counts.values(), strict=True))
        return BadGradients(describe(self._param_groups, first), "NaN" if counts[first][1] else "Inf", infs, nans)

    def _from_flags(self) -> BadGradients | None:
        if not self._flags:
            return None
        pairs = [
            pair
            for params, flags in self._flags
            for pair in zip(params, torch.stack(list(flags)).tolist(), strict=True)
        ]
        bad = {p: value for p, value in pairs if not math.isfinite(value)}
        if (first := self._first(bad)) is None:
            return BadGradients()
        return BadGradients(describe(self._param_groups, first), "NaN" if math.isnan(bad[first]) else "Inf", None, None)

    def _first(self, bad: Mapping[Tensor, object]) -> Tensor | None:
        """Buckets are sorted by device and dtype, so the groups are asked which comes first."""
        return next((p for group in self._param_groups for p in group["params"] if p in bad), None)

    def _held(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """For every bucket the parameters that have a gradient, and its values in this rank's memory."""
        for bucket, grads in self.gathered:
            held = [(p, g) for p, g in zip(bucket.params, grads, strict=True) if g is not None]
            if held:
                values = [g.coalesce().values() if g.is_sparse else local(g) for _, g in held]
                yield [p for p, _ in held], values
