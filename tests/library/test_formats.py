"""Limits, codes and bit fields, compared with torch, numpy, ml_dtypes and numbers worked out by hand."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from oracles.float_oracle import grid

from mpkit.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32, TF32, FloatFormat, require_format

WITH_DTYPE = [FP32, FP16, BF16, E4M3, E5M2]
NUMPY = {"FP32": np.float32, "FP16": np.float16, "BF16": ml_dtypes.bfloat16,
         "E4M3": ml_dtypes.float8_e4m3fn, "E5M2": ml_dtypes.float8_e5m2}  # fmt: skip
SMALL = [FP16, BF16, E4M3, E5M2]


def by_torch(fmt: FloatFormat, codes: torch.Tensor) -> torch.Tensor:
    """What torch reads in these bit patterns, as float64."""
    assert fmt.dtype is not None
    return codes.to(torch.uint8 if fmt.bits == 8 else torch.uint16).view(fmt.dtype).double()


@pytest.mark.parametrize("fmt", WITH_DTYPE, ids=str)
def test_limits_are_those_of_torch_finfo(fmt: FloatFormat) -> None:
    assert fmt.dtype is not None
    info = torch.finfo(fmt.dtype)
    assert (fmt.max, fmt.smallest_normal, fmt.epsilon, fmt.bits) == (info.max, info.tiny, info.eps, info.bits)


@pytest.mark.parametrize("fmt", WITH_DTYPE, ids=str)
def test_smallest_subnormal_is_that_of_numpy_and_of_code_one(fmt: FloatFormat) -> None:
    find = np.finfo if fmt in (FP32, FP16) else ml_dtypes.finfo
    assert fmt.smallest_subnormal == float(find(NUMPY[fmt.name]).smallest_subnormal)
    assert fmt.smallest_subnormal == fmt.decode(torch.tensor(1)).item()


def test_limits_by_hand() -> None:
    assert (FP16.max, FP16.overflow_at, FP16.smallest_normal) == (65504.0, 65520.0, 2.0**-14)
    assert (FP16.smallest_subnormal, FP16.flush_at, FP16.epsilon) == (2.0**-24, 2.0**-25, 2.0**-10)
    assert (E4M3.max, E4M3.overflow_at, E4M3.smallest_subnormal, E4M3.flush_at) == (448.0, 464.0, 2.0**-9, 2.0**-10)
    assert (E5M2.max, E5M2.overflow_at, E5M2.smallest_subnormal) == (57344.0, 61440.0, 2.0**-16)
    assert (TF32.bits, TF32.max, TF32.smallest_subnormal) == (19, (2 - 2.0**-10) * 2.0**127, 2.0**-136)
    assert (TF32.smallest_normal, TF32.epsilon, BF16.flush_at) == (2.0**-126, 2.0**-10, 2.0**-134)
    e5m7 = FloatFormat("e5m7", exponent_bits=5, mantissa_bits=7)
    assert (e5m7.bits, e5m7.max, e5m7.smallest_subnormal, e5m7.dtype) == (13, 65280.0, 2.0**-21, None)
    assert (e5m7.bias, e5m7.max_exponent, e5m7.min_exponent) == (15, 15, -14)


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_every_code_decodes_as_torch_reads_it_and_encodes_back(fmt: FloatFormat) -> None:
    codes = torch.arange(2**fmt.bits)
    decoded, expected = fmt.decode(codes), by_torch(fmt, codes)
    assert torch.equal(decoded.nan_to_num(nan=1e300), expected.nan_to_num(nan=1e300))
    number = ~decoded.isnan()
    assert torch.equal(torch.signbit(decoded)[number], torch.signbit(expected)[number])
    assert int((~number).sum()) == {"FP16": 2046, "BF16": 254, "E4M3": 2, "E5M2": 6}[fmt.name]
    assert torch.equal(fmt.encode(decoded)[number], codes[number])
    magnitude_of_nan = fmt.encode(decoded)[~number] & (2 ** (fmt.bits - 1) - 1)
    assert torch.all(magnitude_of_nan == 2 ** (fmt.bits - 1) - 1)


@pytest.mark.parametrize(("fmt", "bits"), [(TF32, 19), (FP32, 32)], ids=str)
def test_wide_formats_decode_and_encode_a_sample(fmt: FloatFormat, bits: int) -> None:
    generator = torch.Generator().manual_seed(1)
    codes = torch.cat([torch.randint(0, 2**bits, (50_000,), generator=generator), torch.arange(70)])
    shifted = torch.where(codes << (32 - bits) >= 2**31, (codes << (32 - bits)) - 2**32, codes << (32 - bits))
    expected = shifted.to(torch.int32).view(torch.float32).double()
    number = ~expected.isnan()
    assert torch.equal(fmt.decode(codes)[number], expected[number])
    assert torch.equal(fmt.encode(expected)[number], codes[number])


def test_shape_and_integer_dtype_of_codes_are_free() -> None:
    codes = torch.tensor([[0x3C00, 0xC000], [0x7C00, 0x0001]])
    expected = torch.tensor([[1.0, -2.0], [math.inf, 2.0**-24]], dtype=torch.float64)
    for dtype in (torch.int32, torch.int64, torch.uint16):
        assert torch.equal(FP16.decode(codes.to(dtype)), expected)
    assert FP16.decode(codes).dtype == torch.float64
    assert torch.equal(FP16.encode(expected), codes)
    assert FP16.encode(torch.empty(0)).shape == (0,)


@pytest.mark.parametrize(
    ("fmt", "count"),
    [
        (FP16, 2 * 31 * 1024 - 1),  # 31 exponents that are not Inf, both signs, one zero
        (BF16, 2 * 255 * 128 - 1),
        (E4M3, 2 * (16 * 8 - 1) - 1),  # only the all-ones pattern is missing
        (E5M2, 2 * 31 * 4 - 1),
        (FloatFormat("e5m7", 5, 7), 2 * 31 * 128 - 1),
        (FloatFormat("e2m1", 2, 1), 11),  # 0, 0.5, 1, 1.5, 2, 3 and their negatives
    ],
    ids=str,
)
def test_values_are_all_finite_values_once(fmt: FloatFormat, count: int) -> None:
    values = fmt.values()
    points = grid(fmt.exponent_bits, fmt.mantissa_bits, fmt.has_inf)[:-1]
    assert values.shape == (count,)
    assert torch.equal(values, torch.from_numpy(np.concatenate([-points[:0:-1], points])))


def test_values_refuses_wide_formats() -> None:
    with pytest.raises(ValueError, match=r"TF32 has 2\^19 bit patterns; values\(\) lists formats of at most 16 bits\."):
        TF32.values()


@pytest.mark.parametrize(("fmt", "dtype"), [(FP16, np.float16), (FP32, np.float32)], ids=str)
def test_spacing_is_that_of_numpy(fmt: FloatFormat, dtype: type) -> None:
    some = np.concatenate([FP16.values()[1:-1:37].numpy(), [0.0, 2.0**-24, 65472.0, 1.0, -1.0, 2.0**-14]]).astype(dtype)
    for value in some:
        assert fmt.spacing(float(value)) == float(np.spacing(abs(value)))


def test_spacing_between_beyond_and_without_values() -> None:
    assert FP16.spacing(1.9999) == 2.0**-10
    assert FP16.spacing(-1e6) == FP16.spacing(65504.0) == 32.0
    assert E4M3.spacing(448.0) == 32.0
    assert BF16.spacing(2.0**-140) == BF16.smallest_subnormal
    assert all(math.isnan(FP16.spacing(x)) for x in (math.inf, -math.inf, math.nan))


@pytest.mark.parametrize(
    ("fmt", "x", "text", "kind"),
    [
        (FP16, 1.0, "0 01111 0000000000", "normal"),
        (FP16, -2.0, "1 10000 0000000000", "normal"),
        (FP16, 65504.0, "0 11110 1111111111", "normal"),
        (FP16, 2.0**-24, "0 00000 0000000001", "subnormal"),
        (FP16, 2.0**-14, "0 00001 0000000000", "normal"),
        (FP16, -0.0, "1 00000 0000000000", "zero"),
        (FP16, -math.inf, "1 11111 0000000000", "inf"),
        (FP16, math.nan, "0 11111 1111111111", "nan"),
        (BF16, 0.15625, "0 01111100 0100000", "normal"),
        (E4M3, 448.0, "0 1111 110", "normal"),
        (E4M3, math.nan, "0 1111 111", "nan"),
        (E5M2, 57344.0, "0 11110 11", "normal"),
        (TF32, 3.0, "0 10000000 1000000000", "normal"),
        (FP32, 2.0**-149, "0 00000000 " + "0" * 22 + "1", "subnormal"),
    ],
)
def test_fields(fmt: FloatFormat, x: float, text: str, kind: str) -> None:
    fields = fmt.fields(x)
    assert (str(fields), fields.kind) == (text, kind)
    assert fields.value == x or math.isnan(x)


@pytest.mark.parametrize("fmt", [FP16, BF16, E5M2], ids=str)
def test_overflow_at_is_the_first_magnitude_that_torch_turns_into_inf(fmt: FloatFormat) -> None:
    assert fmt.dtype is not None
    at = torch.tensor(fmt.overflow_at)
    below, above = torch.nextafter(at, torch.tensor(0.0)), torch.nextafter(at, torch.tensor(math.inf))
    rounded = torch.stack([below, at, above, -below, -at]).to(fmt.dtype).float()
    assert rounded.tolist() == [fmt.max, math.inf, math.inf, -fmt.max, -math.inf]


def test_overflow_at_of_e4m3_is_the_last_magnitude_that_still_fits() -> None:
    at = np.float32(E4M3.overflow_at)
    around = np.array([np.nextafter(at, np.float32(0)), at, np.nextafter(at, np.float32(1e9))], dtype=np.float32)
    rounded = around.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    assert rounded[:2].tolist() == [448.0, 448.0]
    assert np.isnan(rounded[2])


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_flush_at_is_the_last_magnitude_that_torch_turns_into_zero(fmt: FloatFormat) -> None:
    assert fmt.dtype is not None
    at = torch.tensor(fmt.flush_at)
    below, above = torch.nextafter(at, torch.tensor(0.0)), torch.nextafter(at, torch.tensor(1.0))
    rounded = torch.stack([below, at, above, -at, -above]).to(fmt.dtype).float()
    assert rounded.tolist() == [0.0, 0.0, fmt.smallest_subnormal, 0.0, -fmt.smallest_subnormal]


@pytest.mark.parametrize(
    ("fmt", "x", "text"),
    [
        (FP16, 65505.0, r"65505\.0 is not a value of FP16; round it first: mpkit\.cast\(x, FP16\)\."),
        (FP16, 131072.0, r"131072\.0 is not a value of FP16"),
        (FP16, 2.0**-25, r"is not a value of FP16"),
        (FP16, 0.1, r"0\.1 is not a value of FP16"),
        (E4M3, 480.0, r"480\.0 is not a value of E4M3"),
        (E4M3, math.inf, r"inf is not a value of E4M3"),
    ],
)
def test_encode_refuses_what_the_format_cannot_hold(fmt: FloatFormat, x: float, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        fmt.encode(torch.tensor([1.0, x], dtype=torch.float64))
    with pytest.raises(ValueError, match=text):
        fmt.fields(x)


@pytest.mark.parametrize(("exponent", "mantissa"), [(1, 3), (9, 3), (5, 0), (5, 24), (0, 0)])
def test_widths_that_float32_cannot_emulate_are_refused(exponent: int, mantissa: int) -> None:
    text = rf"FloatFormat 'odd' asks for {exponent} exponent and {mantissa} mantissa bits; .* use 2 to 8 exponent bits"
    with pytest.raises(ValueError, match=text):
        FloatFormat("odd", exponent, mantissa)


def test_eight_exponent_bits_need_inf() -> None:
    with pytest.raises(
        ValueError, match=r"'big': 8 exponent bits without Inf reach beyond float32; use has_inf=True\."
    ):
        FloatFormat("big", 8, 3, has_inf=False)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("fp16", r"a format is asked for, but 'fp16' \(str\) came; write mpkit\.FP16\."),
        ("E4M3", r"'E4M3' \(str\) came; write mpkit\.E4M3\."),
        (torch.bfloat16, r"but torch\.bfloat16 \(dtype\) came; write mpkit\.BF16\."),
        (torch.float64, r"use one of FP32, TF32, FP16, BF16, E4M3, E5M2 or mpkit\.FloatFormat\(\.\.\.\)\."),
        ("half", r"'half' \(str\) came; use one of FP32,"),
        (16, r"but 16 \(int\) came; use one of FP32,"),
        (None, r"but None \(NoneType\) came"),
    ],
)
def test_require_format_names_the_cure(wrong: object, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        require_format(wrong)


def test_require_format_returns_a_format_as_it_is() -> None:
    assert all(require_format(fmt) is fmt for fmt in FORMATS.values())
    assert list(FORMATS) == ["FP32", "TF32", "FP16", "BF16", "E4M3", "E5M2"]
    assert str(FP16) == "FP16"
    assert FloatFormat("FP16", 5, 10) == FP16
