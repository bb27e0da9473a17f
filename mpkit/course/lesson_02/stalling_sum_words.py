"""What a `SumView` shows, in words: the finding, the reason, and both in one line."""

import math

import numpy as np

from mpkit.course.arithmetic.accumulate import How
from mpkit.course.lesson_02.running_sum import SumView
from mpkit.course.lesson_02.stalling_sum_picture import number
from mpkit.course.pictures.style import power

HOW_WORDS: dict[How, str] = {
    "sequential": "one by one",
    "fp32": "one by one in FP32",
    "kahan": "one by one with Kahan",
    "pairwise": "in pairs",
}
CLOSE = 0.005  # relative error below which a total is called right


def headline(view: SumView) -> str:
    """The headline, in one line."""
    after, true = view.after, float(view.true_totals[-1])
    if not math.isfinite(after):
        return f"The total leaves {view.format}: {number(after)} instead of {number(true)}"
    if cut(view):
        return f"{view.format} ends at {number(after)} and has no Inf: the total is cut there"
    if view.how == "sequential" and (since := stalled_since(view)) is not None:
        return f"{view.format} stops at {number(after)}, after {since:,} of {int(view.counts[-1]):,} additions"
    off = (after - true) / true
    if abs(off) > CLOSE:
        return f"{view.format} ends at {number(after)}, {abs(off):.0%} {'below' if off < 0 else 'above'} the true total"
    if off == 0:
        return f"{view.format} ends at {number(after)}, the true total"
    return f"{view.format} ends at {number(after)}, within {_error_words(off)} of the true total"


def reason(view: SumView) -> str:
    """Why, in one line."""
    spacing = number(view.spacing)
    if not math.isfinite(view.after):
        return (
            f"{view.format} ends at {number(view.format.max)}. Only a wider format, or a mean instead of a sum, helps."
        )
    if cut(view):
        return (
            f"{view.format} ends at {number(view.format.max)} and has no Inf: the total is cut there, whatever the way "
            f"of adding. The true total is {number(float(view.true_totals[-1]))}."
        )
    if view.how == "kahan" and abs(view.after / float(view.true_totals[-1]) - 1) > CLOSE:
        return _kahan_fails(view)
    if view.how == "kahan":
        return "What an addition loses is kept in a second number and added to the next term."
    if view.how == "pairwise":
        return "Neighbours are added first, then their sums, and so on: both partners always have about the same size."
    if view.how == "fp32":
        return f"The total is kept in FP32, where neighbours are {spacing} apart, and rounded to {view.format} once."
    if stalled_since(view) is None:
        return f"Around the total, neighbours are {spacing} apart. Each addition is rounded to one of them."
    if abs(view.term) == view.spacing / 2:
        return (
            f"Neighbours are {spacing} apart. The term is exactly half of that: a tie, and the total is the even one."
        )
    return f"Neighbours are {spacing} apart. The term is less than half of that, so the nearest value is the old total."


def _kahan_fails(view: SumView) -> str:
    """Why even Kahan's total is wrong: what an addition loses is kept in p bits, too few for 2^(2p) equal terms."""
    if stalled_since(view) is None:
        return f"What an addition loses is kept, but the terms and the second number are rounded to {view.format} too."
    bits = view.format.mantissa_bits + 1
    return (
        f"Kahan's second number has only {bits} bits as well, so it stalls too: at about {power(2 * bits)} = "
        f"{4**bits:,} terms instead of {power(bits)} = {2**bits:,}."
    )


def cut(view: SumView) -> bool:
    """Whether the total ran into the end of a format without Inf, which cuts it to its largest value."""
    return not view.format.has_inf and view.after == view.format.max < float(view.true_totals[-1])


def stalled_since(view: SumView) -> int | None:
    """Number of additions after which the total did not change any more; None if the last quarter changed it."""
    changed = np.flatnonzero(np.diff(view.totals)) + 2  # the number of the addition that changed it
    since = int(changed[-1]) if len(changed) else 1
    return since if since <= 0.75 * len(view.totals) else None


def describe(view: SumView) -> str:
    """Settings, totals and reason, the same on every machine."""
    return (
        f"{view.name} in {view.format}, {HOW_WORDS[view.how]}: "
        f"{number(view.after)} instead of {number(float(view.true_totals[-1]))}. {reason(view)}"
    )


def _error_words(off: float) -> str:
    return "0.01 %" if abs(off) < 1e-4 else "0.1 %" if abs(off) < 1e-3 else "0.5 %"
