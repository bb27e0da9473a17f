"""What `diagnose` says: what is wrong, where, why, how that was shown, and what to do."""

import textwrap
from dataclasses import dataclass

KINDS = {
    "healthy": "nothing is wrong, or a skipped step that the scaler needs to find its scale",
    "overflow": "finite became Inf in a low-precision format",
    "underflow": "values became 0 in a low-precision format, and it matters",
    "saturated": "values beyond the largest of a format without Inf, such as E4M3, stay at its end",
    "lost update": "an average, a moment, a sum of gradients or a weight stalls: what is added is below half a spacing",
    "lost integer": "integers that are too large for a 16-bit float, such as positions, fall together",
    "lost eps": "the number that protects a division is 0 in the tensor's dtype",
    "invalid": "mathematics that has no value here; FP32 gives NaN or Inf as well",
    "data": "the batch itself is bad",
    "poisoned state": "a parameter, a buffer, a moment or an average holds NaN or Inf and keeps it",
    "loss scale": "the scale is too high, too low or 0, and does not find back",
    "order": "a call of the loop is missing, made twice, or in the wrong place",
    "stale cast": "the forward pass computes with 16-bit copies of weights that have moved since",
    "not trained": "the optimizer does not hold what gets the gradients",
    "not repeatable": "the same step from the same state gives something else: left-over memory, or a race",
    "checkpoint": "what was loaded does not fit what it was loaded into",
}
# What diagnose names too, and no patient of the course's clinic has.
RARE = {
    "lost digits": "every number is finite, and a gradient is not FP32's: rounding took what counted",
    "refused": "the scaler does not take what it is given",
}


@dataclass(frozen=True)
class Diagnosis:
    """What `mpkit.diagnose` found: `print` it.

    Attributes:
        kind: one of `mpkit.diagnosis.KINDS`, or "lost digits": finite, but not what FP32 gives; or "refused": the
            scaler does not take the weights' dtype.
        where: the module and operation, the parameter or buffer, or the call of the loop; "" if healthy.
        cause: one sentence with the numbers.
        proof: what was changed in a rerun, and what it cured; or what was measured.
        cure: one sentence, then code.
        steps: how many times the step was run.
        tests: what was tried and what came of it, in order.
    """

    kind: str
    where: str = ""
    cause: str = ""
    proof: str = ""
    cure: str = ""
    steps: int = 0
    tests: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Is nothing wrong?"""
        return self.kind == "healthy"

    def __str__(self) -> str:
        lines = [f"{self.kind}: {self.where}" if self.where else f"{self.kind}: {(KINDS | RARE)[self.kind]}"]
        for name in ("cause", "proof", "cure"):
            first, *code = getattr(self, name).split("\n")
            if first:
                lines += textwrap.wrap(first, 100, initial_indent=f"  {name + ':':7}", subsequent_indent=" " * 9)
            lines += [" " * 9 + line for line in code]
        tried = f"{'; '.join(self.tests) or 'nothing'} ({self.steps} run{'s' * (self.steps != 1)} of the step)"
        lines += textwrap.wrap(tried, 100, initial_indent="  tried: ", subsequent_indent=" " * 9)
        return "\n".join(lines)
