"""Attention in the GPU's own FP16: who keeps its scores in FP32, and who overflows."""

from __future__ import annotations

import pytest
import torch

from mpkit import FP16, cast
from mpkit.course.nets.attention import ATTENTION, fused, normalized, scale_after, scale_before

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def large(spread: float) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(3)
    return tuple((s * torch.randn(2, 4, 128, 64, generator=draw)).cuda().half() for s in (spread, spread, 1.0))


@pytest.mark.parametrize("causal", [False, True])
def test_who_survives_scores_beyond_fp16(causal: bool) -> None:
    query, key, value = large(100.0)
    assert (query.float() @ key.float().mT).abs().max() > FP16.max * 4
    assert not scale_after(query, key, value, causal).isfinite().all()
    assert fused(query, key, value, causal).isfinite().all()
    assert scale_before(query, key, value, causal).isfinite().all()
    assert normalized(query, key, value, causal).isfinite().all()


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("causal", [False, True])
def test_small_scores_agree_with_fp32(name: str, causal: bool) -> None:
    query, key, value = large(1.0)
    found = ATTENTION[name](query, key, value, causal).float()
    exact = ATTENTION[name](query.float(), key.float(), value.float(), causal)
    assert (found - exact).norm() < 2 * FP16.epsilon * exact.norm()


def test_the_stored_product_is_the_rounded_one() -> None:
    query, key, _ = large(8.0)
    assert torch.equal((query @ key.mT).float(), cast((query.double() @ key.double().mT).float(), FP16)) or (
        ((query @ key.mT).float() - cast((query.double() @ key.double().mT).float(), FP16)).abs().max() <= 4.0
    )  # FP32 sums in another order may move a few values to the neighbour: spacings here are 4 and less
