"""What came of one `LossScaler.step`: stepped or skipped, and why."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mpkit.scaling.gradient_plan import Gathered, ParamGroups, describe, local

_GONE = "its gradients were let go at the next scale(); look at a result before that to learn which"
_ELSEWHERE = "but the gradients here are finite now: another rank found it, or they were changed since"


@dataclass(eq=False, repr=False)
class StepResult:
    """The outcome of a step. Nothing is read from the device until somebody looks.

    A result holds the iteration's gradients until the scaler's next `scale()`. What it would say is kept beyond
    that on the CPU, and wherever the step was decided on the host (every optimizer that is not fused).
    `bool(result)` is `.stepped`.
    """

    outcome: Tensor  # (2,) float32 on the device: the scale, found_inf; reading it waits for the device
    _known: bool | None  # found_inf, if the host had to read it anyway
    _skips: bool
    _gathered: Gathered
    _param_groups: ParamGroups
    _released: bool = False
    _kept: tuple[str | None, int, int] | None = None

    @classmethod
    def untested(cls, param_groups: ParamGroups) -> "StepResult":
        """The outcome of a step without scaling and without a test: stepped, scale 1, found_inf False."""
        device = next((p.device for group in param_groups for p in group["params"]), None)
        return cls(torch.eye(1, 2, device=device)[0], False, False, [], param_groups)  # (1, 0), made there: no wait

    @property
    def found_inf(self) -> bool:
        """Was any gradient, on any rank, Inf or NaN?"""
        return bool(self.outcome[1]) if self._known is None else self._known

    @property
    def stepped(self) -> bool:
        """Were the weights updated?"""
        return not (self._skips and self.found_inf)

    @property
    def scale(self) -> float:
        """The scale that this step's gradients were divided by."""
        return float(self.outcome[0])

    @property
    def first_bad(self) -> str | None:
        """The first parameter, in the optimizer's order, with an Inf or NaN in its gradient here; or None."""
        return self._findings()[0]

    @property
    def inf_count(self) -> int:
        """How many gradient values here are +Inf or -Inf. RuntimeError: looked at too late on a GPU."""
        return self._findings()[1]

    @property
    def nan_count(self) -> int:
        """How many gradient values here are NaN. RuntimeError: looked at too late on a GPU."""
        return self._findings()[2]

    @property
    def reason(self) -> str:
        """One sentence, such as "skipped: 3 Inf and 0 NaN, first in encoder.weight"."""
        verdict = "stepped" if self.stepped else "skipped"
        if not self.found_inf:
            return verdict
        if self._released and self._kept is None:
            return f"{verdict}: a gradient was not finite ({_GONE})"
        first, infs, nans = self._findings()
        if first is None:
            return f"{verdict}: a gradient was not finite, {_ELSEWHERE}"
        return f"{verdict}: {infs} Inf and {nans} NaN, first in {first}"

    def __repr__(self) -> str:
        return self.reason

    def __bool__(self) -> bool:
        return self.stepped

    def release(self) -> None:
        """Let go of the gradients. What the host can read without waiting is kept."""
        if self._known is not None or self.outcome.device.type == "cpu":
            self._kept = self._findings()
        self._released, self._gathered = True, []

    def _findings(self) -> tuple[str | None, int, int]:
        if self._kept is not None:
            return self._kept
        if not self.found_inf:
            return None, 0, 0
        if self._released:
            raise RuntimeError(f"this step found a gradient that was not finite, but {_GONE}.")
        bad = {id(param): (param, infs, nans) for param, infs, nans in self._count() if infs or nans}
        # Buckets are sorted by device and dtype, so the groups are asked which comes first.
        order = (p for group in self._param_groups for p in group["params"] if id(p) in bad)
        first = next(order, None)
        name = None if first is None else describe(self._param_groups, first)
        return name, sum(infs for _, infs, _ in bad.values()), sum(nans for *_, nans in bad.values())

    def _count(self) -> Iterator[tuple[Tensor, int, int]]:
        """Yield every parameter that has a gradient with its Inf and NaN counts: one read per bucket."""
        for bucket, grads in self._gathered:
            held = [(p, g) for p, g in zip(bucket.params, grads, strict=True) if g is not None]
            values = [g.coalesce().values() if g.is_sparse else local(g) for _, g in held]
            if values:
                counts = torch.stack([torch.stack((v.isinf().sum(), v.isnan().sum())) for v in values]).tolist()
                for (param, _), (infs, nans) in zip(held, counts, strict=True):
                    yield param, infs, nans
