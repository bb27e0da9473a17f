"""Are two ways to train equally good? Two one-sided t-tests on differences that are paired by seed."""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Equivalence:
    """The mean difference, its 90 % confidence interval, and what that says about a margin.

    `equivalent`: the whole interval lies within ± margin. `different`: it does not contain 0. Both may be true: a
    difference that is real and too small to matter. Neither: these seeds cannot tell.
    """

    difference: float
    low: float
    high: float
    margin: float

    @property
    def equivalent(self) -> bool:
        """Whether the difference is shown to be smaller than the margin, at a level of 5 %."""
        return -self.margin < self.low and self.high < self.margin

    @property
    def different(self) -> bool:
        """Whether 0 lies outside of the interval."""
        return self.low > 0 or self.high < 0


def equivalence(scores: Sequence[float], reference: Sequence[float], margin: float) -> Equivalence:
    """Test whether `scores` are equivalent to `reference` within ± `margin`, in the scores' own unit.

    Both have one number a seed, in the same order. Schuirmann 1987, "A comparison of the two one-sided tests":
    two t-tests at 5 % each are the same as asking if the 90 % interval of the paired mean difference fits the margin.

    Raises:
        ValueError: lengths differ, fewer than two seeds, a number that is not finite, or a margin that is not above 0.
    """
    if len(scores) != len(reference) or len(scores) < 2:
        raise ValueError(f"two or more pairs of scores are asked for, but {len(scores)} and {len(reference)} came.")
    if not all(map(math.isfinite, [*scores, *reference])) or not 0 < margin < math.inf:
        raise ValueError(f"finite scores and a margin above 0 are asked for, but margin={margin!r} came with {scores}.")
    t = importlib.import_module("scipy.stats").t  # here, because it is slow to import

    differences = [a - b for a, b in zip(scores, reference, strict=True)]
    mean, n = fmean(differences), len(differences)
    half = float(t.ppf(0.95, n - 1)) * stdev(differences) / math.sqrt(n)
    return Equivalence(mean, mean - half, mean + half, margin)
