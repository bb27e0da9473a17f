"""The values of a format as a grid on the number line: the nearest one, the neighbours, the gaps between them.

For single numbers, exactly; `mpkit.cast` does the same for tensors.
"""

import math

from mpkit import FloatFormat


def nearest(x: float, fmt: FloatFormat) -> float:
    """`x` rounded to the nearest value of `fmt`, ties to even.

    Beyond the format's end it is Inf, or the largest value in a format without Inf, as with `mpkit.cast`.
    """
    if not math.isfinite(x):
        return x
    spacing = fmt.spacing(x)
    value = math.copysign(round(x / spacing) * spacing, x)  # Python's round takes halves to even; x / spacing is exact
    if abs(value) <= fmt.max:
        return value
    return math.copysign(math.inf if fmt.has_inf else fmt.max, x)


def neighbours(x: float, fmt: FloatFormat) -> tuple[float, float]:
    """The values of `fmt` at or below `x` and at or above it; both are `x` if the format has it.

    Beyond the format's largest value the neighbours are that value and Inf, whether or not the format can store that.
    """
    spacing = fmt.spacing(x)
    low, high = math.floor(x / spacing) * spacing, math.ceil(x / spacing) * spacing
    low, high = min(low, fmt.max), max(high, -fmt.max)
    return (low if low >= -fmt.max else -math.inf), (high if high <= fmt.max else math.inf)


def gap(weight: float, fmt: FloatFormat, up: bool) -> float:
    """Distance from a value of `fmt` to the next one above (`up`) or below it.

    At a power of two the two differ: the grid is twice as fine on the side of zero. At the largest value it is the
    distance to the next one that there would be.
    """
    spacing = fmt.spacing(weight)
    inside = weight + (spacing / 4 if up else -spacing / 4)  # nearer than any neighbour
    return fmt.spacing(inside) if abs(inside) <= abs(weight) else spacing


def dense(fmt: FloatFormat, finest: float) -> float:
    """Below this magnitude neighbouring values are less than `finest` apart; 0 if they nowhere are."""
    power = 2.0 ** math.ceil(math.log2(finest))
    return 0.0 if power <= fmt.smallest_subnormal else power / fmt.epsilon


def marks(left: float, right: float, fmt: FloatFormat, finest: float) -> tuple[float, ...]:
    """The values of `fmt` from `left` to `right` in ascending order, but for those in the dense stretch around 0."""
    hidden, found = dense(fmt, finest), []
    value = neighbours(max(left, -fmt.max), fmt)[1]
    while value <= min(right, fmt.max):
        if abs(value) < hidden:
            value = hidden  # its other end
            continue
        found.append(value)
        value += gap(value, fmt, up=True)
    return tuple(found)
