"""The equivalence test, against scipy's own t-tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mpkit.course.runs.equivalence import equivalence


@pytest.mark.parametrize("seed", range(20))
def test_it_is_two_one_sided_t_tests(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.normal(90, 1, 5)
    scores = reference + rng.normal(rng.choice([0.0, 0.4, 1.2, -1.2]), 0.4, 5)
    found = equivalence(scores.tolist(), reference.tolist(), margin=1.0)
    d = scores - reference
    p = max(
        stats.ttest_1samp(d, -1.0, alternative="greater").pvalue, stats.ttest_1samp(d, 1.0, alternative="less").pvalue
    )
    assert found.equivalent == (p < 0.05)
    low, high = stats.t.interval(0.90, 4, d.mean(), stats.sem(d))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.different == (low > 0 or high < 0)


def test_both_neither_and_nonsense() -> None:
    both = equivalence([1.1, 1.2, 1.15], [1.0, 1.1, 1.05], 1.0)
    assert (both.equivalent, both.different) == (True, True)
    neither = equivalence([0.0, 10.0], [5.0, 4.0], 1.0)
    assert (neither.equivalent, neither.different) == (False, False)
    for scores, reference, margin in (([1.0], [1.0], 1.0), ([1.0, 2.0], [1.0], 1.0)):
        with pytest.raises(ValueError, match="two or more pairs of scores are asked for"):
            equivalence(scores, reference, margin)
    for scores, margin in (([1.0, float("nan")], 1.0), ([1.0, 2.0], 0.0), ([1.0, 2.0], -1.0)):
        with pytest.raises(ValueError, match="finite scores and a margin above 0 are asked for"):
            equivalence(scores, [1.0, 2.0], margin)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_beyond_the_margin_is_none_on_either_side(sign: int) -> None:
    found = equivalence([sign * 2.0, sign * 2.1, sign * 1.9], [0.0, 0.0, 0.0], 1.0)
    assert (found.equivalent, found.different) == (False, True)
