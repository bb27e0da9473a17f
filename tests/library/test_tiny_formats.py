"""Formats of 6 and 4 bits, whose every pattern is a finite number: code by code against ml_dtypes."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mpkit
from mpkit import E2M1, E2M3, E3M2, E4M3, FloatFormat, cast

PEERS = {E2M1: ml_dtypes.float4_e2m1fn, E2M3: ml_dtypes.float6_e2m3fn, E3M2: ml_dtypes.float6_e3m2fn}
EACH = pytest.mark.parametrize(("fmt", "peer"), PEERS.items(), ids=[str(fmt) for fmt in PEERS])


@EACH
def test_every_code_is_the_peers_and_encodes_back(fmt: FloatFormat, peer: type) -> None:
    codes = torch.arange(2**fmt.bits)
    expected = codes.to(torch.uint8).numpy().view(peer).astype(np.float64)
    assert np.array_equal(fmt.decode(codes).numpy(), expected)
    assert np.array_equal(np.signbit(fmt.decode(codes).numpy()), np.signbit(expected))
    assert torch.equal(fmt.encode(fmt.decode(codes)), codes)


@EACH
def test_limits_are_the_peers(fmt: FloatFormat, peer: type) -> None:
    info = ml_dtypes.finfo(peer)
    assert (fmt.max, fmt.smallest_normal) == (float(info.max), float(info.smallest_normal))
    assert (fmt.smallest_subnormal, fmt.epsilon) == (float(info.smallest_subnormal), float(info.eps))
    assert len(fmt.values()) == 2**fmt.bits - 1  # zero has two patterns


def test_limits_by_hand() -> None:
    """OCP Microscaling Formats v1.0, tables 3 to 5."""
    assert (E2M1.max, E2M3.max, E3M2.max) == (6.0, 7.5, 28.0)
    assert E2M1.values().tolist() == [-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert (E2M1.overflow_at, E2M1.flush_at, E2M1.midpoint_overflows, E4M3.midpoint_overflows) == (7, 0.25, True, False)


@EACH
def test_a_cast_is_the_peers_on_every_boundary(fmt: FloatFormat, peer: type) -> None:
    values = fmt.values().numpy()
    edges = np.concatenate([values, (values[1:] + values[:-1]) / 2, [fmt.overflow_at, 1e9, math.inf]]).astype(
        np.float32
    )
    x = np.concatenate([edges, np.nextafter(edges, np.float32(9e9)), np.nextafter(edges, np.float32(-9e9)), -edges])
    expected = x.astype(peer).astype(np.float32)  # it saturates too
    found = cast(torch.from_numpy(x), fmt).numpy()
    assert np.array_equal(found, expected)
    assert np.array_equal(np.signbit(found), np.signbit(expected))


@EACH
@given(st.integers(0, 2**32 - 1))
def test_a_cast_of_any_pattern_is_the_peers(fmt: FloatFormat, peer: type, seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 2**32, 4096, dtype=np.uint32).view(np.float32)
    x = np.concatenate([x[~np.isnan(x)], np.random.default_rng(seed).normal(0, fmt.max / 2, 4096).astype(np.float32)])
    with np.errstate(all="ignore"):
        assert np.array_equal(cast(torch.from_numpy(x), fmt).numpy(), x.astype(peer).astype(np.float32))


@EACH
def test_a_nan_stays_and_is_counted(fmt: FloatFormat, peer: type) -> None:
    x = torch.tensor([math.nan, 1.0, 0.01, fmt.max * 2])
    assert cast(x, fmt)[0].isnan()
    report = mpkit.tally(x, fmt)
    assert (report.nan_count, report.flushed_count, report.overflowed_count) == (1, 1, 1)


def test_the_midpoint_above_the_largest_value_counts_as_overflow_where_it_would_round_away() -> None:
    assert mpkit.tally(torch.tensor([7.0]), E2M1).overflowed_count == 1
    assert mpkit.tally(torch.tensor([464.0]), E4M3).overflowed_count == 0


def test_inf_is_refused_with_the_cure() -> None:
    text = (
        r'overflow="inf" is asked for, but E2M1 has neither Inf nor NaN; use overflow="saturate", which stops at 6, or '
        r'overflow="raise"\.'
    )
    with pytest.raises(ValueError, match=text):
        cast(torch.ones(1), E2M1, overflow="inf")


def test_raise_counts_inf_too_and_does_not_offer_it() -> None:
    text = r'^1 of 2 values are too large for E2M1: the largest is inf, the format ends at 6\. Scale .* "saturate"\.$'
    with pytest.raises(OverflowError, match=text.replace(' "saturate"', 'overflow="saturate"')):
        cast(torch.tensor([1.0, math.inf]), E2M1, overflow="raise")
    assert cast(torch.tensor([6.9]), E2M1, overflow="raise").item() == 6.0
    with pytest.raises(OverflowError, match="1 of 1 values are too large"):
        cast(torch.tensor([7.0]), E2M1, overflow="raise")


def test_codes_of_what_has_none_are_refused() -> None:
    for x in (math.nan, math.inf, 7.0):
        with pytest.raises(ValueError, match=r"is not a value of E2M1; round it first: mpkit\.cast\(x, E2M1\)\."):
            E2M1.encode(torch.tensor([x]))


def test_inf_without_nan_is_no_format() -> None:
    with pytest.raises(ValueError, match=r"'odd' has Inf but no NaN; without NaN it has no Inf: has_inf=False\."):
        FloatFormat("odd", 3, 2, has_nan=False)


@EACH
def test_a_name_finds_its_format(fmt: FloatFormat, peer: type) -> None:
    with pytest.raises(TypeError, match=rf"write mpkit\.{fmt.name}\."):
        cast(torch.ones(1), fmt.name)  # type: ignore[arg-type]
