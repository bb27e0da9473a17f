"""What a `CastEffect` shows, in words: the finding, what the rounding does, and a line that is the same everywhere."""

import math

from mpkit import FloatFormat
from mpkit.course.lesson_02.cast_effect import CastEffect
from mpkit.course.pictures.style import percent, power
from mpkit.rounding import Rounding

HOW: dict[Rounding, str] = {
    "nearest": "Nearest: off by half a spacing at most, as often up as down. Ties go to the even neighbour.",
    "zero": "To zero: the rest is cut off, so every value comes out smaller or equal in size.",
    "up": "Up: to the next value towards +Inf. Negative values shrink, positive ones grow: all errors are positive.",
    "down": "Down: to the next value towards −Inf. All errors are negative.",
    "stochastic": "Stochastic: up or down by chance, the nearer one more often. Larger errors, but no drift.",
}


def headline(view: CastEffect) -> str:
    """The headline, in one line."""
    fmt, parts = view.format, []
    if view.flushed >= 0.005:
        parts.append(f"{percent(view.flushed)} of these values into 0")
    if view.nonfinite:
        parts.append(f"{percent(view.nonfinite)} {'' if parts else 'of these values '}into {_beyond(fmt)}")
    cut = f"cuts {percent(view.cut)} to {fmt.max:.6g}" if view.cut else ""
    turned = f"turns {(', ' if cut else ' and ').join(parts)}" if parts else ""
    if turned or cut:
        return f"{fmt} {(', and ' if len(parts) == 2 else ' and ').join(part for part in (turned, cut) if part)}"
    if view.rounding in ("up", "down") and abs(view.drift) >= 1e-5:
        way = "up" if view.drift > 0 else "down"
        return f"Nothing leaves {fmt}, but this rounding moves the mean {way}"
    if view.rounding == "zero" and view.growth <= -1e-5:
        return f"Nothing leaves {fmt}, but cutting off makes the values smaller"
    if view.subnormal >= 0.005:
        return f"{fmt} keeps these values, but {percent(view.subnormal)} of them with fewer bits"
    return f"{fmt} keeps these values, with relative errors of up to {_bound(view)}"


def describe(name: str, view: CastEffect) -> str:
    """Settings and shares, in whole percents."""
    return (
        f"{name}, cast to {view.format}, rounding {view.rounding}: {_whole(view.flushed)} become 0, "
        f"{_whole(view.subnormal)} subnormal, {_overflow_words(view)}. "
        f"{_typical(view)}{_beyond_words(view)}"
    )


def _typical(view: CastEffect) -> str:
    if math.isnan(view.rms):
        return "No value stays normal."
    half = "half a spacing" if view.rounding == "nearest" else "a whole spacing"
    return f"Normal values are off by up to {half}, {_bound(view)} of the value."


def _bound(view: CastEffect) -> str:
    """Largest relative error of a normal value: 2^-(m + 1), or twice that if not rounded to nearest."""
    return power(-view.format.mantissa_bits - (view.rounding == "nearest"))


def _overflow_words(view: CastEffect) -> str:
    """What became of the values that are too large; both shares if there are two kinds."""
    cut = f"{_whole(view.cut)} cut to {view.format.max:.6g}"
    gone = f"{_whole(view.nonfinite)} become {_beyond(view.format)}"
    if view.nonfinite and view.cut:
        return f"{gone}, {cut}"
    return cut if view.cut or view.overflow == "saturate" else gone


def _beyond_words(view: CastEffect) -> str:
    """What is special about the format where something overflows."""
    if not view.nonfinite or view.format.has_inf:
        return ""
    return f" {view.format} has no Inf: what is beyond {view.format.max:.0f} can only become NaN."


def _beyond(fmt: FloatFormat) -> str:
    return "Inf" if fmt.has_inf else "NaN"


def _whole(share: float) -> str:
    """Whole percents; something is never called 0 %, and not quite all never 100 %."""
    return "<1%" if 0 < share < 0.005 else ">99%" if 0.995 <= share < 1 else f"{share:.0%}"
