"""What a 16-bit format makes of one attention: scores that overflow, queries that are lost, an output that is off."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from mpkit import FloatFormat, cast
from mpkit.course.arithmetic.accumulate import total

Scaling = Literal["none", "after", "before"]
Softmax = Literal["in FP32", "in 16 bits", "in 16 bits, no max"]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
SOFTMAXES: tuple[Softmax, ...] = get_args(Softmax)
QUERIES, KEYS, WIDTH = 32, 4096, 16  # WIDTH: numbers in a value


@dataclass(frozen=True, eq=False)
class AttentionTrial:
    """One attention, computed in a format and exactly.

    Attributes:
        stored: |score| as the matrix product stores it, before rounding, (QUERIES, KEYS), float64.
        scores: |score| as the softmax gets it, exact, the same shape.
        overflowed: share of the stored scores that became Inf.
        lost: queries whose weights are NaN.
        weight_sum: mean over the other queries of what their weights add up to; NaN if there are none.
        error: relative error of their outputs: root of the summed squares, against float64; NaN if there are none.
        weights, exact_weights: of the query with the largest score, (KEYS,), float64.
    """

    stored: Tensor
    scores: Tensor
    overflowed: float
    lost: int
    weight_sum: float
    error: float
    weights: Tensor
    exact_weights: Tensor


@lru_cache(maxsize=8)  # two megabytes each: enough to go back and forth
def attention_trial(
    head_size: int, deviation: float, scaling: Scaling, softmax: Softmax, fmt: FloatFormat, seed: int = 0
) -> AttentionTrial:
    """Attend from 32 queries to 4,096 keys, all random normal, with every result rounded to `fmt`.

    Args:
        head_size: numbers in a query and in a key (d).
        deviation: standard deviation of queries and keys. Scores grow with its square.
        scaling: where scores are divided by sqrt(d): nowhere, after the product was stored, or in the queries.
        softmax: in FP32 from rounded scores; with every step rounded, the sum one after the other; or so without
            subtracting each row's largest score first.
        fmt: format of queries, keys, values, scores, weights and output. Products are added in FP32 or better.
        seed: of the draws.

    Raises:
        ValueError: an unknown scaling or softmax, a head size below 1, or a deviation that is not above 0.
    """
    if scaling not in SCALINGS or softmax not in SOFTMAXES or head_size < 1 or not 0 < deviation < math.inf:
        raise ValueError(
            f"head_size={head_size!r}, deviation={deviation!r}, scaling={scaling!r}, softmax={softmax!r} came; use a "
            f"size from 1 on, a deviation above 0, one of {SCALINGS} and one of {SOFTMAXES}."
        )
    query, key, value = _drawn(head_size, seed)
    query, key, root = deviation * query, deviation * key, math.sqrt(head_size)
    exact, exact_weights, right = _exact(head_size, deviation, scaling != "none", seed)

    # Float32 holds the draws exactly, and is rounded several times as fast as float64.
    query, key = cast(query, fmt).double(), cast(key, fmt).double()
    stored = (cast(query / root, fmt) if scaling == "before" else query) @ key.T
    kept = cast(stored, fmt)
    scores = cast(kept / root, fmt) if scaling == "after" else kept
    weights = cast(scores.softmax(-1), fmt) if softmax == "in FP32" else _rounded_softmax(scores, softmax, fmt)
    output = cast(weights @ cast(value, fmt).double(), fmt)
    fine = ~weights.isnan().any(-1)
    error = (output[fine] - right[fine]).norm() / right[fine].norm() if fine.any() else torch.tensor(math.nan)
    first = int(exact.amax(-1).argmax())
    return AttentionTrial(
        stored.abs(), exact.abs(), kept.isinf().double().mean().item(), int((~fine).sum()),
        weights[fine].sum(-1).mean().item(), error.item(), weights[first], exact_weights[first],
    )  # fmt: skip


@lru_cache(maxsize=5)  # eight megabytes: all head sizes of the panel
def _drawn(head_size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys of standard deviation 1, and values, in float32."""
    draw = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(n, head_size, generator=draw) for n in (QUERIES, KEYS))
    return query, key, torch.randn(KEYS, WIDTH, generator=draw)


@lru_cache(maxsize=2)  # the formats of a panel share it
def _exact(head_size: int, deviation: float, scaled: bool, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, weights and output in float64."""
    query, key, value = _drawn(head_size, seed)
    scores = (deviation * query).double() @ (deviation * key).double().T
    if scaled:
        scores = scores / math.sqrt(head_size)
    weights = scores.softmax(-1)
    return scores, weights, weights @ value.double()


def _rounded_softmax(scores: Tensor, softmax: Softmax, fmt: FloatFormat) -> Tensor:
    """Softmax over the last dimension with every step rounded; the sum goes from left to right."""
    if softmax == "in 16 bits":
        scores = cast(scores - scores.amax(-1, keepdim=True), fmt)
    # What lies below exp(-200) is zero in either format, and exp takes ten times as long where float64 underflows.
    powers = cast(scores.clamp(min=-200.0).exp(), fmt)
    return cast(powers / total(powers, fmt)[:, None], fmt)
