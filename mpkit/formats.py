"""What a floating-point format can represent: its limits, its spacing, and the bits of one value.

A format here is a sign bit, `exponent_bits` and `mantissa_bits` (IEEE 754-2019, section 3.4). Every value of every
format in this module is also a float32 value; that is why float32 arithmetic can emulate all of them.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mpkit.bit_fields import BitFields as BitFields


@dataclass(frozen=True)
class FloatFormat:
    """A binary floating-point format.

    Args:
        name: what people call it, such as "FP16".
        exponent_bits: 2 to 8.
        mantissa_bits: stored bits after the point, 1 to 23 (the leading 1 is not stored).
        has_inf: True for IEEE formats, which reserve the top exponent for Inf and NaN. False for E4M3's
            kind (Micikevicius et al. 2022, arXiv 2209.05433, table 1): no Inf, and only the all-ones pattern is NaN.
        dtype: torch's dtype of this format, or None where torch has none.
        has_nan: False for the formats of at most 6 bits, whose every pattern is a finite number (OCP Microscaling
            Formats v1.0, 2023, section 5.3). A NaN has no bits there; `mpkit.cast` leaves it NaN, so that it is seen.

    Raises:
        ValueError: a field width is outside the range that float32 can emulate, or a format with Inf but without NaN.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    has_inf: bool = True
    dtype: torch.dtype | None = field(default=None, compare=False)
    has_nan: bool = True

    def __post_init__(self) -> None:
        if not (2 <= self.exponent_bits <= 8 and 1 <= self.mantissa_bits <= 23):
            raise ValueError(
                f"FloatFormat {self.name!r} asks for {self.exponent_bits} exponent and {self.mantissa_bits} mantissa "
                "bits; mpkit emulates inside float32, so use 2 to 8 exponent bits and 1 to 23 mantissa bits."
            )
        if self.exponent_bits == 8 and not self.has_inf:
            raise ValueError(
                f"FloatFormat {self.name!r}: 8 exponent bits without Inf reach beyond float32; use has_inf=True."
            )
        if self.has_inf and not self.has_nan:
            raise ValueError(f"FloatFormat {self.name!r} has Inf but no NaN; without NaN it has no Inf: has_inf=False.")

    @property
    def bits(self) -> int:
        """Width in bits, the sign included."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        """Exponent bias, 2^(exponent_bits - 1) - 1."""
        return int(2 ** (self.exponent_bits - 1)) - 1

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest finite value: 15 for FP16."""
        return int(2**self.exponent_bits) - (2 if self.has_inf else 1) - self.bias

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal value: -14 for FP16."""
        return 1 - self.bias

    @property
    def max(self) -> float:
        """Largest finite value: 65504 for FP16, 448 for E4M3."""
        missing = 2 * self.epsilon if self.has_nan and not self.has_inf else self.epsilon
        return (2 - missing) * 2.0**self.max_exponent

    @property
    def epsilon(self) -> float:
        """Distance from 1 to the next larger value, 2^-mantissa_bits."""
        return 2.0**-self.mantissa_bits

    @property
    def smallest_normal(self) -> float:
        """Smallest positive value with full precision: 2^-14 for FP16."""
        return 2.0**self.min_exponent

    @property
    def smallest_subnormal(self) -> float:
        """Smallest positive value: 2^-24 for FP16. `torch.finfo` does not have it."""
        return 2.0 ** (self.min_exponent - self.mantissa_bits)

    @property
    def overflow_at(self) -> float:
        """Midpoint between `max` and the next value there would be: 65520 for FP16, 464 for E4M3, 7 for E2M1.

        Whether this magnitude itself overflows says `midpoint_overflows`; everything above it does.
        """
        return self.max + 2.0 ** (self.max_exponent - self.mantissa_bits - 1)

    @property
    def midpoint_overflows(self) -> bool:
        """Does round to nearest even take `overflow_at` itself out of the format? Not in E4M3: 448's last bit is 0."""
        return self.has_inf or not self.has_nan

    @property
    def flush_at(self) -> float:
        """Half the smallest subnormal: 2^-25 for FP16. Under round to nearest even |x| <= flush_at becomes 0."""
        return self.smallest_subnormal / 2

    def spacing(self, x: float) -> float:
        """Distance between neighbouring values around |x| (one ulp). NaN for Inf and NaN."""
        if not math.isfinite(x):
            return math.nan
        exponent = math.frexp(x)[1] - 1 if x else self.min_exponent
        exponent = min(max(exponent, self.min_exponent), self.max_exponent)
        return 2.0 ** (exponent - self.mantissa_bits)

    def decode(self, codes: Tensor) -> Tensor:
        """Values of the bit patterns `codes` (any integer dtype, any shape), as float64, exactly."""
        codes = codes.to(torch.int64)
        mantissa = (codes & (2**self.mantissa_bits - 1)).double()
        exponent = (codes >> self.mantissa_bits) & (2**self.exponent_bits - 1)
        sign = 1.0 - 2.0 * ((codes >> (self.bits - 1)) & 1).double()
        subnormal = exponent == 0
        significand = torch.where(subnormal, mantissa, mantissa + 2.0**self.mantissa_bits)
        power = torch.where(subnormal, 1, exponent) - self.bias - self.mantissa_bits
        value = torch.ldexp(significand, power)
        top = exponent == 2**self.exponent_bits - 1
        if self.has_inf:
            value = torch.where(top, torch.where(mantissa == 0, math.inf, math.nan), value)
        elif self.has_nan:
            value = torch.where(top & (mantissa == 2**self.mantissa_bits - 1), math.nan, value)
        return sign * value

    def encode(self, x: Tensor) -> Tensor:
        """Bit patterns (int64) of values that the format represents exactly; NaN, if it has one, becomes all ones.

        Raises:
            ValueError: some value is not representable; round it first with `mpkit.cast`.
        """
        x = x.double()
        exponent = torch.frexp(x.abs()).exponent.long() - 1
        exponent = exponent.clamp(min=self.min_exponent)
        scaled = torch.ldexp(x.abs(), self.mantissa_bits - exponent)
        normal = scaled >= 2.0**self.mantissa_bits
        codes = torch.where(torch.isfinite(x), scaled, 0).long()
        codes = codes + torch.where(normal, (exponent + self.bias - 1) << self.mantissa_bits, 0)
        infinity = (2**self.exponent_bits - 1) << self.mantissa_bits if self.has_inf else 2 ** (self.bits - 1) - 1
        codes = torch.where(torch.isinf(x), infinity, codes)
        codes = torch.where(torch.isnan(x), 2 ** (self.bits - 1) - 1, codes)
        codes = codes | (torch.signbit(x).long() << (self.bits - 1))
        wrong = ~((torch.isnan(x) & self.has_nan) | (self.decode(codes) == x))
        if bool(wrong.any()):
            value = x[wrong].flatten()[0].item()
            raise ValueError(f"{value!r} is not a value of {self.name}; round it first: mpkit.cast(x, {self.name}).")
        return codes

    def fields(self, x: float) -> BitFields:
        """The bits of one representable value. Raises ValueError as `encode` does."""
        code = int(self.encode(torch.tensor(x, dtype=torch.float64)))
        text = format(code, f"0{self.bits}b")
        cut = 1 + self.exponent_bits
        if math.isnan(x) or math.isinf(x):
            kind = "nan" if math.isnan(x) else "inf"
        else:
            kind = "zero" if x == 0 else "subnormal" if abs(x) < self.smallest_normal else "normal"
        return BitFields(text[0], text[1:cut], text[cut:], kind, x)

    def values(self) -> Tensor:
        """Every finite value in ascending order, as float64 (zero once). Only for formats of at most 16 bits."""
        if self.bits > 16:
            raise ValueError(f"{self.name} has 2^{self.bits} bit patterns; values() lists formats of at most 16 bits.")
        every = self.decode(torch.arange(2**self.bits))
        finite: Tensor = torch.unique(every[torch.isfinite(every)])
        return finite

    def __str__(self) -> str:
        return self.name


FP32 = FloatFormat("FP32", 8, 23, dtype=torch.float32)  # IEEE 754 binary32
TF32 = FloatFormat("TF32", 8, 10)  # NVIDIA A100 white paper, 2020: inputs of tensor-core matrix products
FP16 = FloatFormat("FP16", 5, 10, dtype=torch.float16)  # IEEE 754 binary16
BF16 = FloatFormat("BF16", 8, 7, dtype=torch.bfloat16)  # Kalamkar et al. 2019, arXiv 1905.12322
E4M3 = FloatFormat("E4M3", 4, 3, has_inf=False, dtype=torch.float8_e4m3fn)  # arXiv 2209.05433, table 1
E5M2 = FloatFormat("E5M2", 5, 2, dtype=torch.float8_e5m2)  # arXiv 2209.05433, table 1
# OCP Microscaling Formats v1.0, section 5.3.2 and 5.3.3. torch's float4_e2m1fn_x2 holds two values and casts none.
E3M2 = FloatFormat("E3M2", 3, 2, has_inf=False, has_nan=False)
E2M3 = FloatFormat("E2M3", 2, 3, has_inf=False, has_nan=False)
E2M1 = FloatFormat("E2M1", 2, 1, has_inf=False, has_nan=False)

FORMATS = {fmt.name: fmt for fmt in (FP32, TF32, FP16, BF16, E4M3, E5M2)}  # those that hold a tensor by themselves
TINY = {fmt.name: fmt for fmt in (E3M2, E2M3, E2M1)}  # those that need scales: see mpkit.scaled


def require_format(fmt: Any) -> FloatFormat:
    """Return `fmt` if it is a FloatFormat; otherwise raise a TypeError that names the cure."""
    if isinstance(fmt, FloatFormat):
        return fmt
    named = (FORMATS | TINY).get(fmt.upper()) if isinstance(fmt, str) else None
    for known in FORMATS.values():
        if named is None and isinstance(fmt, torch.dtype) and known.dtype == fmt:
            named = known
    cure = f"write mpkit.{named.name}" if named else f"use one of {', '.join(FORMATS)} or mpkit.FloatFormat(...)"
    raise TypeError(f"a format is asked for, but {fmt!r} ({type(fmt).__name__}) came; {cure}.")
