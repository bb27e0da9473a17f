"""Signed integers as a format: the same spacing everywhere, so that everything depends on the scale."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class IntFormat:
    """The integers from -`max` to `max`, by their bits with the sign: 127 for 8 bits, 7 for 4, 1 for 2.

    Symmetric: the pattern of -(max + 1) stays unused, so that a value and its negative round alike
    (Jacob et al. 2018, arXiv 1712.05877, section 3.1, for weights).

    Raises:
        ValueError: bits outside 2 to 16.
    """

    name: str
    bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ValueError(f"IntFormat {self.name!r} asks for {self.bits} bits; use 2 to 16, the sign included.")

    @property
    def max(self) -> float:
        """Largest value, 2^(bits - 1) - 1."""
        return 2.0 ** (self.bits - 1) - 1

    @property
    def flush_at(self) -> float:
        """Under round to nearest even |x| <= 1/2 becomes 0."""
        return 0.5

    @property
    def overflow_at(self) -> float:
        """What is larger than this is cut off by more than rounding."""
        return self.max + 0.5

    def values(self) -> Tensor:
        """Every value in ascending order, as float64."""
        return torch.arange(-self.max, self.max + 1, dtype=torch.float64)

    def __str__(self) -> str:
        return self.name


INT8 = IntFormat("INT8", 8)
INT4 = IntFormat("INT4", 4)
INT2 = IntFormat("INT2", 2)
