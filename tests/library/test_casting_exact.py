"""Rounding bit for bit: against torch, numpy, ml_dtypes, an integer rule for TF32, and listed values for the rest."""

from __future__ import annotations

import itertools
import warnings

import ml_dtypes
import numpy as np
import pytest
import torch
from oracles.float_oracle import around, assert_same, grid, random_patterns, round_on, special
from torch import Tensor

from mpkit import rounding as arithmetic
from mpkit.casting import cast
from mpkit.formats import BF16, E4M3, E5M2, FP16, FP32, TF32, FloatFormat

SMALL = {
    "FP16": (FP16, np.float16),
    "BF16": (BF16, ml_dtypes.bfloat16),
    "E4M3": (E4M3, ml_dtypes.float8_e4m3fn),
    "E5M2": (E5M2, ml_dtypes.float8_e5m2),
}
DETERMINISTIC = ["nearest", "zero", "up", "down"]
ARBITRARY = [FloatFormat(f"e{e}m{m}", e, m) for e in range(2, 8) for m in range(1, 11)]
ARBITRARY += [
    FloatFormat(f"e{e}m{m}fn", e, m, has_inf=False) for e, m in [(2, 1), (2, 3), (3, 2), (4, 3), (5, 2), (7, 10)]
]
PATTERNS = 2**22


def points_of(fmt: FloatFormat) -> np.ndarray:
    return grid(fmt.exponent_bits, fmt.mantissa_bits, fmt.has_inf)


def through_numpy(x: Tensor, dtype: type) -> Tensor:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return torch.from_numpy(x.numpy().astype(dtype).astype(x.numpy().dtype))


def without_dtype(fmt: FloatFormat) -> FloatFormat:
    """The same format, but unknown to torch: it goes through the arithmetic, not through torch's conversion."""
    return FloatFormat(fmt.name, fmt.exponent_bits, fmt.mantissa_bits, has_inf=fmt.has_inf)


def by_grid(x: Tensor, fmt: FloatFormat, rounding: str) -> Tensor:
    expected = round_on(points_of(fmt), x.double().numpy(), rounding)
    expected[np.isinf(expected) & (not fmt.has_inf)] = np.nan
    return torch.from_numpy(expected).to(x.dtype)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("native", [True, False], ids=["torch's way", "arithmetic"])
def test_every_value_stays_itself(name: str, native: bool) -> None:
    fmt = SMALL[name][0] if native else without_dtype(SMALL[name][0])
    codes = torch.arange(2**fmt.bits).to(torch.uint8 if fmt.bits == 8 else torch.uint16)
    values = codes.view(SMALL[name][0].dtype).float()
    assert values.shape == ({8: 256, 16: 65536}[fmt.bits],)
    for rounding in [*DETERMINISTIC, "stochastic"]:
        assert_same(cast(values, fmt, rounding), values)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("native", [True, False], ids=["torch's way", "arithmetic"])
def test_boundaries_and_random_patterns_as_numpy_and_ml_dtypes_round_them(name: str, native: bool) -> None:
    fmt, dtype = SMALL[name]
    x = torch.cat([around(points_of(fmt)), special(), random_patterns(PATTERNS)])
    actual = cast(x, fmt if native else without_dtype(fmt), overflow="inf")
    assert_same(actual, through_numpy(x, dtype), x)


@pytest.mark.parametrize("name", ["FP16", "BF16", "E5M2"])
def test_boundaries_and_random_patterns_as_torch_rounds_them(name: str) -> None:
    fmt = SMALL[name][0]
    x = torch.cat([around(points_of(fmt)), special(), random_patterns(2**20, seed=1)])
    assert_same(cast(x, without_dtype(fmt)), x.to(fmt.dtype).float(), x)


def test_e4m3_saturates_by_default() -> None:
    x = torch.cat([around(points_of(E4M3)), special(), random_patterns(2**20)])
    expected = through_numpy(x, ml_dtypes.float8_e4m3fn)
    lost = expected.isnan() & ~x.isnan()
    assert int(lost.sum()) > 1000
    assert_same(cast(x, E4M3), torch.where(lost, torch.full_like(x, 448.0).copysign(x), expected), x)


def test_tf32_as_integer_arithmetic_rounds_it() -> None:
    x = torch.cat([special(), random_patterns(PATTERNS)])
    bits = x.numpy().view(np.uint32).astype(np.uint64)
    tails = np.array([0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF], np.uint64)  # 0x1000 is the tie
    bits = np.concatenate([bits, *((bits[: 2**18] & ~np.uint64(0x1FFF)) | tail for tail in tails)])
    sign, magnitude = bits & np.uint64(0x80000000), bits & np.uint64(0x7FFFFFFF)
    to_even = np.uint64(0xFFF) + ((magnitude >> np.uint64(13)) & np.uint64(1))
    rounded = (magnitude + to_even) & ~np.uint64(0x1FFF)
    rounded = np.where(
        magnitude > 0x7F800000, np.uint64(0x7FC00000), np.where(magnitude == 0x7F800000, magnitude, rounded)
    )
    every = torch.from_numpy(bits.astype(np.uint32).view(np.float32))
    expected = torch.from_numpy((rounded | sign).astype(np.uint32).view(np.float32))
    assert_same(cast(every, TF32), expected, every)
    assert_same(arithmetic.by_half(every), expected, every)  # what a GPU does
    cut = np.where(magnitude > 0x7F800000, np.uint64(0x7FC00000), magnitude & ~np.uint64(0x1FFF))
    assert_same(cast(every, TF32, "zero"), torch.from_numpy((cut | sign).astype(np.uint32).view(np.float32)), every)


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("name", SMALL)
def test_each_rounding_on_the_boundaries_of_the_named_formats(name: str, rounding: str) -> None:
    fmt = SMALL[name][0]
    x = torch.cat([around(points_of(fmt)), special(), random_patterns(2**17)])
    assert_same(cast(x, fmt, rounding, overflow="inf"), by_grid(x, fmt, rounding), x)  # type: ignore[arg-type]


@pytest.mark.parametrize("rounding", DETERMINISTIC)
def test_each_rounding_in_arbitrary_formats(rounding: str) -> None:
    noise = torch.cat([special(), random_patterns(2**11), torch.randn(2**11) * 30, torch.randn(2**11) * 1e-3])
    for fmt in ARBITRARY:
        points = points_of(fmt)
        x = torch.cat([around(points[:: max(1, len(points) // 500)]), around(points[-3:]), around(points[:3]), noise])
        expected = by_grid(x, fmt, rounding)
        assert_same(cast(x, fmt, rounding, overflow="inf"), expected, x)  # type: ignore[arg-type]
        held = torch.where(x.isnan(), x, x.clamp(-fmt.max, fmt.max))
        assert_same(cast(x, fmt, rounding, "saturate"), by_grid(held, fmt, rounding), x)  # type: ignore[arg-type]


@pytest.mark.parametrize(("fmt", "dtype"), [(FP16, np.float16), (FP32, np.float32)], ids=str)
def test_float64_is_rounded_once(fmt: FloatFormat, dtype: type) -> None:
    generator = torch.Generator().manual_seed(2)
    patterns = torch.randint(-(2**63), 2**63 - 1, (2**18,), generator=generator).view(torch.float64)
    middle = around(points_of(FP16)).double()
    nudged = torch.cat([middle * (1 + 2.0**-50), middle * (1 - 2.0**-50), middle])
    wide = torch.randn(2**18, generator=generator, dtype=torch.float64).exp2() ** 9
    x = torch.cat([patterns, nudged, wide, special().double(), torch.tensor([1 + 2.0**-11 + 2.0**-40]).double()])
    actual = cast(x, fmt)
    assert actual.dtype == torch.float64
    assert_same(actual, through_numpy(x, dtype), x)


def test_float64_is_not_rounded_by_way_of_float32() -> None:
    x = torch.tensor([1 + 2.0**-11 + 2.0**-40], dtype=torch.float64)
    assert cast(x, FP16).item() == 1 + 2.0**-10
    assert cast(x.float(), FP16).item() == 1.0  # float32 has no 2^-40 left: a tie, which goes to even


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize(
    "fmt",
    [FP16, BF16, TF32, E4M3, FloatFormat("e5m7", 5, 7), FloatFormat("e3m2fn", 3, 2, has_inf=False)],
    ids=str,
)
def test_float64_input_in_every_rounding(fmt: FloatFormat, rounding: str) -> None:
    points = points_of(fmt)[:: 1 + 2**fmt.bits // 2**14]
    middle = torch.from_numpy(np.concatenate([points, (points[1:] + points[:-1]) / 2, points_of(fmt)[-2:]]))
    x = torch.cat([middle, middle * (1 + 2.0**-52), middle * (1 - 2.0**-53), special().double()])
    x = torch.cat([x, -x, torch.tensor([1e300, -1e300, 5e-324, 1e-310], dtype=torch.float64)])
    assert_same(cast(x, fmt, rounding, overflow="inf"), by_grid(x, fmt, rounding), x)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dtype", "fmt"), list(itertools.product([torch.float16, torch.bfloat16], [FP16, BF16, E4M3, E5M2])), ids=str
)
def test_every_half_and_bfloat16_input(dtype: torch.dtype, fmt: FloatFormat) -> None:
    x = torch.arange(2**16).to(torch.uint16).view(dtype)
    kept = x.clone()
    expected = by_grid(x.float(), fmt, "nearest") if fmt.has_inf else cast(x.float(), fmt)
    assert_same(cast(x, fmt), expected.to(dtype), x)
    assert_same(x, kept)


def test_blocks_of_any_size_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    x = random_patterns(10_001)
    whole = [cast(x, fmt) for fmt in (TF32, E4M3, FP16, FloatFormat("e5m7", 5, 7))]
    for size in (1, 7, 10_000, 10_001):
        monkeypatch.setattr(arithmetic, "BLOCK", size)
        few = x if size > 1 else x[:50]
        for fmt, expected in zip((TF32, E4M3, FP16, FloatFormat("e5m7", 5, 7)), whole, strict=True):
            assert_same(cast(few, fmt), expected[: few.numel()])
