"""ExponentHistogram against tally and against numpy's frexp."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import mpkit.histogram
from mpkit.formats import BF16, E4M3, E5M2, FP16, FloatFormat
from mpkit.histogram import ExponentHistogram
from mpkit.overflow import tally


def spread(n: int = 20_000) -> Tensor:
    """Magnitudes from 2^-60 to 2^40 whose mantissas avoid the boundary cases that `lost` documents."""
    mantissa = 1.05 + 0.7 * torch.rand(n)
    sign = torch.randint(0, 2, (n,)) * 2.0 - 1.0
    x = sign * mantissa * 2.0 ** torch.randint(-60, 40, (n,))
    x[::17] = 0.0
    x[5], x[6] = math.inf, math.nan
    return x


@pytest.mark.parametrize("fmt", [FP16, BF16, E5M2, E4M3, FloatFormat("e3m4", 3, 4)], ids=str)
def test_a_loss_scale_only_shifts_the_bins(fmt: FloatFormat) -> None:
    x = spread()
    histogram = ExponentHistogram.of(x)
    for k in range(-40, 41):
        report = tally(x.double() * 2.0**k, fmt)
        assert histogram.lost(fmt, k) == (report.flushed, report.subnormal, report.overflowed)


def test_counts_equal_frexp() -> None:
    x = torch.cat([spread(), torch.randint(-(2**31), 2**31, (300_000,)).int().view(torch.float32)])
    histogram = ExponentHistogram.of(x)
    values = x.numpy()
    finite = values[np.isfinite(values) & (values != 0)]
    exponents = np.maximum(np.frexp(finite)[1] - 1, -127)
    expected = np.bincount(exponents + 127, minlength=255)
    assert histogram.counts.tolist() == expected.tolist()
    assert histogram.zeros == int((values == 0).sum())
    assert (histogram.inf, histogram.nan) == (int(np.isinf(values).sum()), int(np.isnan(values).sum()))
    assert histogram.nonzero + histogram.zeros == x.numel()
    assert histogram.inf > 0
    assert histogram.nan > 0


def test_edges_name_the_bins() -> None:
    histogram = ExponentHistogram.of(torch.tensor([1.0, -1.5, 2.0, 0.75, 2.0**-126, 2.0**-130, 2.0**-149, -0.0]))
    found = {int(edge): int(n) for edge, n in zip(histogram.log2_edges, histogram.counts, strict=True) if n}
    assert found == {0: 2, 1: 1, -1: 1, -126: 1, -127: 2}
    assert histogram.zeros == 1


def test_documented_resolution() -> None:
    assert ExponentHistogram.of(torch.tensor([2.0**-25])).lost(FP16) == (0.0, 1.0, 0.0)  # really flushed
    assert ExponentHistogram.of(torch.tensor([65520.0])).lost(FP16) == (0.0, 0.0, 0.0)  # really too large
    assert ExponentHistogram.of(torch.tensor([65536.0])).lost(FP16) == (0.0, 0.0, 1.0)
    assert ExponentHistogram.of(torch.tensor([511.0, 512.0])).lost(E4M3) == (0.0, 0.0, 0.5)


def test_histograms_add_up() -> None:
    x, y = spread(1000), torch.randn(501)
    both, sum_ = ExponentHistogram.of(torch.cat([x, y])), ExponentHistogram.of(x) + ExponentHistogram.of(y)
    assert torch.equal(both.counts, sum_.counts)
    assert (both.zeros, both.inf, both.nan) == (sum_.zeros, sum_.inf, sum_.nan)
    with pytest.raises(TypeError):
        both + 1  # type: ignore[operator]


def test_several_blocks_strides_and_dtypes() -> None:
    x = torch.randn(2 * mpkit.histogram.BLOCK + 3)
    assert int(ExponentHistogram.of(x).counts.sum()) == len(x)
    square = torch.randn(30, 40)
    assert torch.equal(ExponentHistogram.of(square.t()).counts, ExponentHistogram.of(square).counts)
    half = square.half()
    assert torch.equal(ExponentHistogram.of(half).counts, ExponentHistogram.of(half.float()).counts)


@pytest.mark.parametrize("x", [torch.zeros(0), torch.zeros(5)])
def test_nothing_is_lost_of_nothing(x: Tensor) -> None:
    histogram = ExponentHistogram.of(x)
    assert histogram.lost(FP16, 30) == (0.0, 0.0, 0.0)
    assert repr(histogram) == f"ExponentHistogram(0 non-zero, no finite value; {x.numel()} zeros, 0 Inf, 0 NaN)"


def test_errors_name_the_cure() -> None:
    with pytest.raises(TypeError, match=r"x is torch\.int64; leave it out"):
        ExponentHistogram.of(torch.arange(3))
    with pytest.raises(TypeError, match=r"log2_scale=0\.5 is not a whole number"):
        ExponentHistogram.of(torch.ones(1)).lost(FP16, 0.5)  # type: ignore[arg-type]
    for odd in ("a", "3", None, float("nan"), float("inf"), [1]):
        with pytest.raises(TypeError, match=r"log2_scale=.* is not a whole number; a scale of 2\^k shifts"):
            ExponentHistogram.of(torch.ones(1)).lost(FP16, odd)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"write mpkit\.FP16"):
        ExponentHistogram.of(torch.ones(1)).lost("fp16")  # type: ignore[arg-type]
