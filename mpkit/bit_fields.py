"""The bits of one floating-point value, by field."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BitFields:
    """The bits of one value, as strings of 0 and 1, and what they mean.

    `kind` is one of zero, subnormal, normal, inf, nan.
    """

    sign: str
    exponent: str
    mantissa: str
    kind: str
    value: float

    def __str__(self) -> str:
        return f"{self.sign} {self.exponent} {self.mantissa}"
