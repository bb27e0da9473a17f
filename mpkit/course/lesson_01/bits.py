"""One number in one format: the bits that are stored, the value they mean, the error, and the neighbours."""

import math
import re
from dataclasses import dataclass

import torch

from mpkit import FloatFormat, cast

PATTERN = re.compile(r"0x([0-9a-f]+)|0b([01]+)")


@dataclass(frozen=True)
class Stored:
    """What `fmt` makes of the number `exact`.

    `code`: the bit pattern; `value`: what it means, exactly, as float64.
    `below`, `above`: the neighbours (Inf counts), or None where the format ends and for NaN.
    """

    fmt: FloatFormat
    exact: float
    code: int
    value: float
    below: float | None
    above: float | None

    @property
    def bits(self) -> tuple[str, str, str]:
        """Sign, exponent and mantissa as strings of 0 and 1."""
        text, cut = format(self.code, f"0{self.fmt.bits}b"), 1 + self.fmt.exponent_bits
        return text[0], text[1:cut], text[cut:]

    @property
    def kind(self) -> str:
        """Zero, subnormal, normal, inf or nan."""
        if math.isnan(self.value) or math.isinf(self.value):
            return "nan" if math.isnan(self.value) else "inf"
        if self.value == 0:
            return "zero"
        return "subnormal" if abs(self.value) < self.fmt.smallest_normal else "normal"

    @property
    def spacing(self) -> float:
        """Distance to the next value away from 0 (one ulp); NaN for Inf and NaN.

        At a power of two the next value towards 0 is half as far, except at and below the smallest normal number.
        """
        return self.fmt.spacing(self.value)

    @property
    def outcome(self) -> str:
        """What happened to the number: exact, rounded, flushed, overflowed, saturated, or nan."""
        if math.isnan(self.value):
            return "nan"
        if self.value == self.exact:
            return "exact"
        if math.isinf(self.value):
            return "overflowed"
        if abs(self.exact) > self.fmt.overflow_at:
            return "saturated"
        return "flushed" if self.value == 0 else "rounded"

    @property
    def relative_error(self) -> float:
        """|value - exact| / |exact|: 0 if exact, 1 if flushed, Inf if overflowed, NaN for NaN."""
        if self.value == self.exact:
            return 0.0
        if math.isinf(self.exact) or math.isinf(self.value):
            return math.inf
        return abs(self.value - self.exact) / abs(self.exact)


def store(exact: float, fmt: FloatFormat) -> Stored:
    """Round a float64 once to the nearest value of `fmt`.

    Beyond the largest value IEEE formats give Inf; E4M3, which has none, gives its largest value, as `mpkit.cast` does.
    """
    rounded = cast(torch.tensor(exact, dtype=torch.float64), fmt)
    return _stored(fmt, exact, int(fmt.encode(rounded)), float(rounded))


def store_pattern(code: int, fmt: FloatFormat) -> Stored:
    """The value with this bit pattern, which is then exact.

    Raises:
        ValueError: the pattern is negative or wider than the format.
    """
    if code < 0 or code >= 2**fmt.bits:
        raise ValueError(f"bit pattern {code:#x} is asked for, but {fmt} has {fmt.bits} bits: use 0 to {_last(fmt)}.")
    value = decode(code, fmt)
    return _stored(fmt, value, code, value)


def decode(code: int, fmt: FloatFormat) -> float:
    """Value of one bit pattern."""
    return float(fmt.decode(torch.tensor(code)))


def is_pattern(text: str) -> bool:
    """Whether the text spells a bit pattern, such as 0x3c00 or 0b0011."""
    return _pattern(text) is not None


def _pattern(text: str) -> re.Match[str] | None:
    return PATTERN.fullmatch(text.strip().lower().replace("_", ""))


def read_pattern(text: str, fmt: FloatFormat) -> int | None:
    """The bit pattern that `text` spells as 0x3c00 or 0b0011, or None if it spells none.

    Raises:
        ValueError: the pattern has more bits than `fmt`. The text is meant for the person who typed.
    """
    found = _pattern(text)
    if found is None:
        return None
    code = int(found[1], 16) if found[1] else int(found[2], 2)
    if code >= 2**fmt.bits:
        raise ValueError(
            f"`{text.strip()[:40]}` has {code.bit_length()} bits, but {fmt} has {fmt.bits}: its patterns go from 0x0 "
            f"to {_last(fmt)}. Type a shorter one, or choose a wider format first."
        )
    return code


def _last(fmt: FloatFormat) -> str:
    return hex(2**fmt.bits - 1)


def _stored(fmt: FloatFormat, exact: float, code: int, value: float) -> Stored:
    return Stored(fmt, exact, code, value, _neighbour(fmt, code, value, -1), _neighbour(fmt, code, value, 1))


def _neighbour(fmt: FloatFormat, code: int, value: float, step: int) -> float | None:
    """The next value down (step -1) or up (1): without their sign, patterns are in the order of their values."""
    if math.isnan(value):
        return None
    negative = 2 ** (fmt.bits - 1)  # the pattern of -0
    place = negative - code if code >= negative else code
    place += step
    if abs(place) > _top(fmt):
        return None
    minus = place < 0 or (place == 0 and step > 0)  # one up from the smallest negative value is -0 (IEEE 754, 5.3.1)
    return decode(abs(place) + negative * minus, fmt)


def _top(fmt: FloatFormat) -> int:
    """Pattern of the largest positive value, Inf where there is one."""
    infinity: int = (2**fmt.exponent_bits - 1) << fmt.mantissa_bits
    nan: int = 2 ** (fmt.bits - 1) - 1
    return infinity if fmt.has_inf else nan - 1
