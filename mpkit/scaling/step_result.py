"""What came of one `LossScaler.step`: stepped or skipped, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mpkit.scaling.bucket import ParamGroups
from mpkit.scaling.evidence import GONE, BadGradients, Evidence

_ELSEWHERE = "but all gradients here were finite: another rank found it"
_UNCOUNTED = "how many is not known, because the gradients were changed or let go after the check"


@dataclass(eq=False, repr=False)
class StepResult:
    """The outcome of a step, and what was in its gradients at the moment of the check. `bool(result)` is `.stepped`.

    Where the host decides (an optimizer that is not fused, or `unscale_` on a CPU), all of it is known at once. A fused
    optimizer's result reads nothing from the device until somebody looks, and holds the iteration's gradients until the
    scaler's next `scale()`: look before that, and before they are changed. After `unscale_` the first parameter and
    whether it had Inf or NaN are known in any case, the counts only that long.
    """

    outcome: Tensor  # (2,) float32 on the device: the scale, found_inf; reading it waits for the device
    _known: bool | None  # found_inf, if the host had to read it anyway
    _skips: bool
    _evidence: Evidence

    @classmethod
    def untested(cls, param_groups: ParamGroups) -> StepResult:
        """The outcome of a step without scaling and without a test: stepped, scale 1, found_inf False."""
        device = next((p.device for group in param_groups for p in group["params"]), None)
        one_and_zero = torch.eye(1, 2, dtype=torch.float32, device=device)[0]  # made there, so that nothing waits
        return cls(one_and_zero, False, False, Evidence([], param_groups))

    @property
    def found_inf(self) -> bool:
        """Was any gradient, on any rank that agrees with this one, Inf or NaN?"""
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
        """The first parameter, in the optimizer's order, with an Inf or NaN in its gradient here; or None.

        RuntimeError: looked at too late, see above.
        """
        return self._bad_gradients().first

    @property
    def inf_count(self) -> int:
        """How many gradient values here were +Inf or -Inf. RuntimeError: looked at too late, see above."""
        return self._count(self._bad_gradients().infs)

    @property
    def nan_count(self) -> int:
        """How many gradient values here were NaN. RuntimeError: looked at too late, see above."""
        return self._count(self._bad_gradients().nans)

    @property
    def reason(self) -> str:
        """One sentence, such as "skipped: 3 Inf and 0 NaN, first in encoder.weight"."""
        verdict = "stepped" if self.stepped else "skipped"
        if not self.found_inf:
            return verdict
        if (found := self._evidence.look()) is None:
            return f"{verdict}: a gradient was not finite ({self._evidence.lost})"
        if found.first is None:
            return f"{verdict}: a gradient was not finite, {_ELSEWHERE}"
        if found.infs is None:
            return f"{verdict}: {found.kind}, first in {found.first}; {_UNCOUNTED}"
        return f"{verdict}: {found.infs} Inf and {found.nans} NaN, first in {found.first}"

    def __repr__(self) -> str:
        return self.reason

    def __bool__(self) -> bool:
        return self.stepped

    def release(self) -> None:
        """Let go of the gradients. What the host can read without waiting is kept."""
        if self._known is not None or self.outcome.device.type == "cpu":
            self._evidence.settle(self.found_inf)
        self._evidence.release(GONE)

    def _bad_gradients(self) -> BadGradients:
        if not self.found_inf:
            return BadGradients()
        if (found := self._evidence.look()) is None:
            raise RuntimeError(f"this step found a gradient that was not finite, but {self._evidence.lost}.")
        return found

    def _count(self, count: int | None) -> int:
        if count is None:
            raise RuntimeError(f"this step found a gradient that was not finite, but {_UNCOUNTED}.")
        return count
