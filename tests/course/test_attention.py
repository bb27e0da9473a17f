"""Attention written out against the fused kernel; one attention in 16 bits against torch and numpy; its panel."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from oracles.reference_models import distance
from torch import Tensor

from mpkit import BF16, E4M3, FP16, FP32, Policy, cast
from mpkit.course.lesson_08.attention import DEVIATIONS, HEAD_SIZES, AttentionPanel
from mpkit.course.lesson_08.attention_picture import count, headline
from mpkit.course.lesson_08.trial import KEYS, QUERIES, SCALINGS, SOFTMAXES, attention_trial
from mpkit.course.nets.attention import ATTENTION, fused, normalized, scale_after, scale_before
from mpkit.course.nets.transformer import Transformer


def three(spread: float = 1.0, seed: int = 0, size: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, 2, 4, 24, size, generator=draw).unbind(0)
    return spread * query, spread * key, value


# ---- written out ----


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("attend", [scale_after, scale_before])
@pytest.mark.parametrize("size", [16, 24])  # the root of 24 is no power of two
def test_written_out_equals_the_fused_kernel(attend: object, causal: bool, size: int) -> None:
    for seed in range(5):
        tensors = three(2.0, seed, size)
        assert torch.allclose(attend(*tensors, causal), fused(*tensors, causal), atol=5e-6)  # type: ignore[operator]


def test_normalized_scores_never_exceed_the_root_of_d() -> None:
    query, key, _ = three(1000.0)
    eye = torch.eye(24).expand(2, 4, 24, 24)  # as values: the result is the weights
    weights = normalized(query, key, eye)
    unit = lambda x: x / x.square().mean(-1, keepdim=True).sqrt()  # noqa: E731
    assert torch.allclose(weights, fused(unit(query), unit(key), eye), atol=1e-5)
    assert float((unit(query) @ unit(key).mT / 4).abs().max()) <= 4.0001


def test_who_survives_large_scores_in_emulated_fp16() -> None:
    class Layer(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.attend = ATTENTION[name]

        def forward(self, *tensors: Tensor) -> Tensor:
            return self.attend(*tensors, False)

    tensors = three(100.0)
    finite = {}
    for name in ATTENTION:
        layer = Layer(name)
        for policy in ("fp16-mixed", "bf16-mixed"):
            with Policy.preset(policy).apply(layer):
                finite[name, policy] = bool(layer(*tensors).isfinite().all())
    assert [name for (name, policy), fine in finite.items() if not fine] == ["scale after"]
    assert not finite["scale after", "fp16-mixed"]


@pytest.mark.parametrize("name", ATTENTION)
def test_every_attention_trains_in_emulated_fp16_as_under_autocast(name: str) -> None:
    tokens = torch.randint(0, 30, (4, 17), generator=torch.Generator().manual_seed(1))

    def gradients(context: object) -> Tensor:
        model = Transformer(30, attention=name)
        with context(model):  # type: ignore[operator]
            (2.0**10 * model.loss(model(tokens[:, :-1]), tokens[:, 1:])).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    exact = gradients(Policy().apply)
    ours = gradients(Policy.preset("fp16-mixed").apply)
    peers = gradients(lambda _: torch.autocast("cpu", dtype=torch.float16))
    assert distance(ours, exact) > 0
    assert distance(ours, peers) < 4 * FP16.epsilon


def test_an_unknown_attention_is_refused() -> None:
    known = "fused, scale after, scale before, normalized"
    with pytest.raises(ValueError, match=rf"attention 'flash' is unknown; use one of {known}\."):
        Transformer(30, attention="flash")


# ---- one attention in 16 bits ----


@pytest.mark.parametrize(("fmt", "dtype"), [(FP16, torch.float16), (BF16, torch.bfloat16)])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_scores_are_those_of_torchs_own_dtypes(fmt: object, dtype: torch.dtype, scaling: str) -> None:
    trial = attention_trial(64, 45.0, scaling, "in FP32", fmt, seed=1)  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(1)
    query, key = (45 * torch.randn(n, 64, generator=draw) for n in (QUERIES, KEYS))
    query, key = query.to(dtype).double(), key.to(dtype).double()
    query = (query / 8).to(dtype).double() if scaling == "before" else query
    assert torch.allclose(trial.stored, (query @ key.T).abs(), rtol=1e-12, atol=1e-9)
    kept = (query @ key.T).to(dtype)
    assert trial.overflowed == float(kept.isinf().double().mean())
    weights = (kept / 8 if scaling == "after" else kept).double().softmax(-1)
    assert trial.lost == int(weights.isnan().any(-1).sum())


def test_the_sum_of_a_rounded_softmax_is_numpys() -> None:
    trial = attention_trial(64, 0.5, "before", "in 16 bits", FP16)
    draw = torch.Generator().manual_seed(0)
    query, key = (0.5 * torch.randn(n, 64, generator=draw) for n in (QUERIES, KEYS))
    low = ((query.half().double() / 8).half().double() @ key.half().double().T).half().numpy()
    powers = np.exp((low - low.max(1, keepdims=True)).astype(np.float64)).astype(np.float16)
    sums = np.add.accumulate(powers, axis=1, dtype=np.float16)[:, -1]  # strictly from left to right
    weights = (powers.astype(np.float64) / sums.astype(np.float64)[:, None]).astype(np.float16)
    assert trial.weight_sum == pytest.approx(float(weights.astype(np.float64).sum(1).mean()), rel=1e-6)
    assert trial.weight_sum > 1.15


def test_fp32_is_exact_and_more_bits_are_better() -> None:
    for seed in range(5):
        error = {fmt: attention_trial(64, 1.0, "after", "in FP32", fmt, seed).error for fmt in (FP32, FP16, BF16, E4M3)}
        assert error[FP32] < 1e-6
        assert error[FP32] < error[FP16] < error[BF16] < error[E4M3]


def test_a_score_of_minus_infinity_alone_costs_nothing() -> None:
    trial = attention_trial(64, 45.0, "after", "in FP32", FP16)
    rows = trial.stored.ge(FP16.overflow_at).any(-1).sum()
    assert 0 < trial.lost < int(rows)  # some rows overflow below only, and softmax makes 0 of −Inf


def test_without_its_largest_score_exp_overflows_at_11() -> None:
    assert math.isinf(cast(torch.tensor(11.1).exp(), FP16))
    assert math.isfinite(cast(torch.tensor(11.08).exp(), FP16))
    assert attention_trial(64, 4.0, "before", "in 16 bits, no max", FP16).lost == QUERIES
    assert attention_trial(64, 4.0, "before", "in 16 bits", FP16).lost == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [({"scaling": "later"}, "scaling='later'"), ({"softmax": "in BF16"}, "softmax='in BF16'"),
     ({"head_size": 0}, "head_size=0"), ({"deviation": 0.0}, "deviation=0.0"),
     ({"deviation": math.nan}, "deviation=nan")],
)  # fmt: skip
def test_bad_settings_are_refused(change: dict[str, object], said: str) -> None:
    settings = {"head_size": 64, "deviation": 1.0, "scaling": "after", "softmax": "in FP32", "fmt": FP16} | change
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        attention_trial(**settings)  # type: ignore[arg-type]
    assert "a deviation above 0" in str(caught.value)


# ---- the panel ----


def test_the_panel_says_what_happened() -> None:
    panel = AttentionPanel()
    assert str(panel).startswith("FP16: scores overflow, and 9 of 32 queries are lost. BF16: no query is lost")
    first = panel.png()
    panel.scaling = "before"
    assert str(panel).startswith("FP16: no query is lost, output off by <0.1%.")
    assert panel.png() != first
    panel.softmax, panel.deviation = "in 16 bits", 1.0
    assert str(panel).startswith(
        "FP16: weights add up to 1.14 instead of 1. BF16: weights add up to 2.46 instead of 1."
    )
    panel.softmax, panel.deviation, panel.head_size = "in 16 bits, no max", 64.0, 16
    assert str(panel).startswith("FP16: exp overflows, and every query is lost")
    assert (panel.head_size, panel.deviation, panel.scaling) == (16, 64.0, "before")
    assert panel.words.value.count("FP16") >= 2
    assert panel.picture.tooltip == headline(panel.trials)


def test_every_setting_draws_another_picture() -> None:
    panel = AttentionPanel()
    for name, value in (("head_size", 16), ("deviation", 8.0), ("scaling", "none"), ("softmax", "in 16 bits, no max")):
        before = panel.png()
        setattr(panel, name, value)
        assert panel.png() != before, name
    assert panel.last_error is None


def test_all_of_the_sliders_ends_can_be_drawn() -> None:
    panel = AttentionPanel()
    for panel.head_size in (HEAD_SIZES[0], HEAD_SIZES[-1]):
        for panel.deviation in (DEVIATIONS[0], DEVIATIONS[-1]):
            for panel.scaling in SCALINGS:
                for panel.softmax in SOFTMAXES:
                    assert panel.last_error is None


def test_a_value_that_the_panel_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="head_size 63 is not in this panel; use one of 16, 32, 64, 128, 256"):
        AttentionPanel(head_size=63)
    with pytest.raises(ValueError, match="softmax 'fast' is not in this panel"):
        AttentionPanel().softmax = "fast"


def test_numbers_as_people_write_them() -> None:
    assert [count(x) for x in (74648.4, 100.0, 36.87, 0.5)] == ["74,648", "100", "36.9", "0.5"]
