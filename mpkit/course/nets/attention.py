"""Attention written out, so that one can choose where its scores are made smaller, beside the fused kernel."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Attention = Callable[[Tensor, Tensor, Tensor, bool], Tensor]


def fused(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(d)) v in one kernel. Its scores stay in FP32, on a GPU and in emulation.

    Source: Dao et al. 2022, FlashAttention, arXiv 2205.14135.

    Shapes as for all functions here: query, key and value (..., context, d); result like value. `causal`: a place
    sees itself and those before it.
    """
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal)


def scale_after(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """Multiply, then divide the scores by sqrt(d) (Vaswani et al. 2017, arXiv 1706.03762, equation 1).

    Under a 16-bit policy the product itself is stored: sqrt(d) times as large as what the softmax needs.
    """
    return _mix((query @ key.transpose(-2, -1)) / math.sqrt(query.shape[-1]), value, causal)


def scale_before(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """Divide the queries by sqrt(d), then multiply: the same scores, and nothing larger on the way."""
    return _mix((query / math.sqrt(query.shape[-1])) @ key.transpose(-2, -1), value, causal)


def normalized(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """Give each query and key a root mean square of 1 first, so that no score exceeds sqrt(d).

    Query-key normalization (Henry et al. 2020, arXiv 2010.04245; Dehghani et al. 2023, arXiv 2302.05442, section 2),
    here without a learned gain.
    """
    size = query.shape[-1:]
    return scale_before(F.rms_norm(query, size), F.rms_norm(key, size), value, causal)


def _mix(scores: Tensor, value: Tensor, causal: bool) -> Tensor:
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return scores.softmax(-1) @ value


ATTENTION: dict[str, Attention] = {
    "fused": fused, "scale after": scale_after, "scale before": scale_before, "normalized": normalized,
}  # fmt: skip
