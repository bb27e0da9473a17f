"""Scaled formats where it is tight: the ends of a dtype, transforms of torch.func, policies, histories, odd shapes."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from mpkit import scaled_cast
from mpkit.policy.policy import PRESETS
from mpkit.rounding import Rounding
from mpkit.scaled import FP8_TENSOR, INT8_ROW, MXFP8, NVFP4, SCALED_FORMATS, DelayedAmax, ScaledFormat, quantize, report
from mpkit.scaled.blocks import as_blocks

NAMED = pytest.mark.parametrize("fmt", SCALED_FORMATS.values(), ids=str)


def data(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@NAMED
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("rounding", get_args(Rounding))
def test_what_is_finite_stays_finite(fmt: ScaledFormat, dtype: torch.dtype, rounding: Rounding) -> None:
    """The largest value may round up to beyond its dtype, and becomes the dtype's largest."""
    x = torch.full((4, 64), torch.finfo(dtype).max, dtype=dtype)
    x[1], x[2, :32] = -x[1], 1.0
    y = scaled_cast(x, fmt, rounding)
    assert y.dtype == dtype
    assert bool(y.isfinite().all())
    assert float((y.double() / x.double())[:2].sub(1).abs().max()) < 0.35  # a step of E2M1
    assert bool(quantize(x, fmt, rounding).dequantize().isfinite().all())
    x[3, 0] = math.nan
    assert bool(scaled_cast(x, fmt, rounding)[3, 0].isnan())
