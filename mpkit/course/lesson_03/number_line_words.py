"""What the picture and the panel of lesson 03 say about one landing: title, numbers, labels."""

import math

from mpkit import FP32
from mpkit.course.arithmetic.scalar import nearest
from mpkit.course.lesson_03.landing import Keeper, Landing, Trail
from mpkit.course.pictures.style import power


def headline(at: Landing, keeper: Keeper) -> str:
    """The headline, in one line."""
    size = f"The update is {'exactly ' if at.share in (0.5, 1) else ''}{spacings(at.share)}"
    return f"{size}: {_fate(at, keeper)}"


def _fate(at: Landing, keeper: Keeper) -> str:
    if not math.isfinite(at.nearest):
        return f"the weight leaves {at.fmt} and becomes Inf"
    if at.nearest == at.target != at.weight:  # an update that float64 absorbs is in the last two, and arrives nowhere
        return "it arrives in full"
    stays = at.nearest == at.weight
    if keeper == "stochastic":
        return _lots(at)
    if keeper == "Kahan":
        kept = f"and the rest is 0 in {at.fmt}" if at.rest == 0 else "and the rest is kept"
        return f"the weight {'waits' if stays else 'is rounded'}, {kept}"
    if keeper == "FP32 master":
        if nearest(at.target, FP32) == at.weight:
            return "it vanishes, even in FP32"
        return f"the copy {'waits' if stays else 'is rounded'}, the FP32 master moves"
    if at.is_tie:
        return f"a tie, which goes to {'the weight itself' if stays else 'the next value'}"
    return "it vanishes, every time" if stays else f"it arrives as {spacings(abs(at.nearest - at.weight) / at.gap)}"


def _lots(at: Landing) -> str:
    """The chances of stochastic rounding."""
    chance = _chance(at.probability)
    return f"it moves the weight {chance}" if at.share < 1 else f"it is rounded up {chance}"


def _chance(probability: float) -> str:
    if probability >= 0.01:
        return f"in {100 * probability:.3g} % of the tries"
    return f"once in about {1 / probability:,.0f} tries" if probability > 1e-6 else "almost never"


def surroundings(at: Landing, asked: float | None = None) -> str:
    """The grid around the weight, and how the weight compares with the update; `asked`: the weight before rounding."""
    ratio = abs(at.weight / at.update)
    times = f"{ratio:,.0f}" if 10 <= ratio < 1e7 else f"{ratio:.3g}"
    compare = f"The weight is {times} times its update." if ratio >= 1 else "The weight is smaller than its update."
    alone = f" On its own, {at.fmt} flushes the update to 0." if at.flushed else ""
    flushed = f"{at.fmt} flushes the weight {asked:.3g} to 0" if asked and at.weight == 0 else ""
    stored = flushed or f"{at.fmt} stores {number(at.weight, at)}"
    at_the_end = at.weight == math.copysign(at.fmt.max, at.update)
    further = ", its last value" if at_the_end else f"; the next value is {at.gap:.3g} away"
    return f"{stored}{further}." + ("" if flushed else f" {compare}") + alone  # all three would be cut off


def update_label(update: float) -> str:
    """A slider's value as a power of two with its factor: 1.25 · 2⁻¹³."""
    factor, exponent = math.frexp(update)
    lead = "" if factor == 0.5 else f"{2 * factor:g} · "
    return f"{lead}{power(exponent - 1)}"


def far(trail: Trail) -> str:
    """How far the stored weight has come, in whole percents."""
    return f"{100 * trail.progress:.0f} %" if math.isfinite(trail.progress) else "Inf"


def waiting(trail: Trail) -> str:
    """What is kept beside the weight, in whole percents of the way; less than nothing if the weight is ahead of it."""
    whole = round(100 * trail.waiting)
    if whole == 0:
        return ""
    return f"+ {whole} % kept" if whole > 0 else f"({-whole} % ahead)"


def number(value: float, landing: Landing) -> str:
    """A value with so many digits that its neighbours look different."""
    digits = 1 + math.ceil((landing.fmt.mantissa_bits + 1) * math.log10(2))
    return f"{value:.{digits}g}"


def spacings(share: float) -> str:
    """A multiple of the spacing, in words."""
    if share == 0.5:
        return "half a spacing"
    if share == 1:
        return "1 spacing"
    return f"{share:.3g} of a spacing" if share < 1 else f"{share:.4g} spacings"
