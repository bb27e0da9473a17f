"""The science of lesson 02 with five seeds: rounding errors, drift, accumulators, and which operations need FP32."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from harness.lesson_cells import cells

from mpkit import BF16, E4M3, E5M2, FP16, FloatFormat, Policy, cast, fit
from mpkit.course import table
from mpkit.course.arithmetic.accumulate import total
from mpkit.course.lesson_02.dot_errors import dot_errors
from mpkit.course.lesson_02.kernel_survey import by_hand, survey
from mpkit.course.lesson_02.lost_losses import lost_losses
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP

SEEDS = range(5)


def uniform(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("fmt", [FP16, BF16, E5M2, E4M3], ids=str)
def test_nearest_is_off_by_half_a_spacing_and_not_more(fmt: FloatFormat) -> None:
    for seed in SEEDS:
        x = (1 + uniform(50_000, seed=seed)) * 2.0 ** (seed - 2)  # five binades
        off = (cast(x, fmt) - x).abs() / x
        assert float(off.max()) <= 2.0 ** -(fmt.mantissa_bits + 1)
        assert float(off.max()) > 0.85 * 2.0 ** -(fmt.mantissa_bits + 1)


@pytest.mark.parametrize(("rounding", "drift"), [("nearest", 0.0), ("up", 0.5), ("zero", -0.5), ("stochastic", 0.0)])
def test_only_directed_rounding_drifts(rounding: str, drift: float) -> None:
    for seed in SEEDS:
        x = 1 + uniform(100_000, seed=seed)
        draw = torch.Generator().manual_seed(seed)
        off = (cast(x, FP16, rounding, generator=draw) - x).double().mean() / FP16.epsilon  # type: ignore[arg-type]
        assert float(off) == pytest.approx(drift, abs=0.01)


def test_ties_to_even_cancel_and_ties_up_do_not() -> None:
    ties = 1 + (torch.arange(1024) + 0.5) * FP16.epsilon
    assert float((cast(ties, FP16) - ties).double().sum()) == 0
    assert float((cast(ties, FP16, "up") - ties).double().mean()) == FP16.epsilon / 2


def test_a_running_total_in_16_bits_loses_more_than_half_of_10000_numbers() -> None:
    terms = torch.stack([uniform(10_000, seed=seed) for seed in SEEDS])
    true = terms.double().sum(-1)
    assert float((total(terms, FP16) / true).max()) < 0.42
    assert float((total(terms, BF16) / true).max()) < 0.06
    assert float((total(terms, FP16, "pairwise") / true - 1).abs().max()) < 1e-3
    assert float((torch.stack([row.half().sum() for row in terms]) / true - 1).abs().max()) < 1e-3, "torch's own"


def test_the_accumulator_decides_over_a_dot_product() -> None:
    """Positive operands: FP16 one by one is biased from length 256 on and by 7 % at 4,096; FP32 stays at 2^-12."""
    positive = {length: dot_errors(torch.rand, length, FP16, "sequential") for length in (64, 256, 1024, 4096)}
    assert all((positive[length].bias < 0).all() for length in (256, 1024, 4096))
    assert -0.09 < float(positive[4096].bias.min()) < float(positive[4096].bias.max()) < -0.06
    flat = [dot_errors(torch.rand, length, FP16, "fp32").size for length in (64, 4096)]
    assert 1e-4 < float(torch.stack(flat).min()) < float(torch.stack(flat).max()) < 3e-4


def test_with_both_signs_the_error_is_smaller_and_has_hardly_a_direction() -> None:
    for fmt, low, high in ((FP16, 0.007, 0.012), (BF16, 0.05, 0.1)):
        mixed = dot_errors(torch.randn, 4096, fmt, "sequential")
        assert low < float(mixed.size.min()) < float(mixed.size.max()) < high
        assert float((mixed.bias / mixed.size).abs().max()) < 1 / 3


def test_dot_errors_are_those_of_numpy() -> None:
    found = dot_errors(torch.randn, 64, FP16, "fp32")
    a, b = (torch.randn(100, 64, generator=torch.Generator().manual_seed(20 + side)).numpy() for side in (0, 1))
    a, b = a.astype(np.float16).astype(np.float64), b.astype(np.float16).astype(np.float64)
    true = (a * b).sum(1)
    off = true.astype(np.float16) - true
    assert float(found.size[2]) == pytest.approx(float(np.sqrt((off**2).mean() / (true**2).mean())), rel=0.02)


@pytest.mark.parametrize("fmt", [FP16, BF16], ids=str)
@pytest.mark.parametrize("x", [1.0, 0.1, 0.001, 3.0, 0.7])
def test_a_running_total_stops_at_the_first_power_of_two_from_2_to_the_p_x_on(fmt: FloatFormat, x: float) -> None:
    held = float(cast(torch.tensor(x), fmt))
    stop = 2.0 ** math.ceil(math.log2(2 ** (fmt.mantissa_bits + 1) * held))
    assert float(total(torch.full((8000,), x), fmt)) == stop


@pytest.mark.parametrize("draw", [torch.rand, torch.randn])
@pytest.mark.parametrize("fmt", [FP16, BF16], ids=str)
def test_higham_s_bounds_hold(draw: Callable[..., torch.Tensor], fmt: FloatFormat) -> None:
    u = 2.0 ** -(fmt.mantissa_bits + 1)
    for n in (64, 1024):
        terms = cast(torch.stack([draw(20, n, generator=torch.Generator().manual_seed(s)) for s in SEEDS]), fmt)
        true, size = terms.double().sum(-1), terms.double().abs().sum(-1)
        for how, bound in (("sequential", n * u), ("pairwise", math.log2(n) * u), ("fp32", u)):
            worst = float(((total(terms, fmt, how) - true).abs() / size).max())  # type: ignore[arg-type]
            assert worst < 1.01 * bound, (how, n)  # of first order in u
            assert worst > 0.0003 * bound


def test_a_trained_classifier_loses_losses_and_hardly_any_of_their_mean() -> None:
    images, net = digits(), MLP(seeds=range(5))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    assert len(list(fit(net, images.classification(), optimizer=adam, steps=400, measure_flushed=False))) == 400
    logits = net(images.train_images).detach()
    true = lost_losses(logits, images.train_labels, torch.float64)
    for dtype, low, high in ((torch.float32, -1, 0), (torch.float16, 0.04, 0.2), (torch.bfloat16, 0.3, 0.5)):
        found = lost_losses(logits, images.train_labels, dtype)
        assert low < float(found.zero.min()) <= float(found.zero.max()) <= high
        assert float((found.mean / true.mean - 1).abs().max()) < 0.01
    by_hand = (
        logits.double().logsumexp(-1) - logits.double()[:, torch.arange(len(images.train_labels)), images.train_labels]
    )
    assert torch.allclose(by_hand.mean(1), true.mean)


def test_c11_relu_and_max_pool_run_in_fp16_and_are_exact() -> None:
    kernels = survey()
    for name in ("ReLU", "max-pool"):
        row = kernels[name]
        assert (row.runs, row.exact, row.breaks, row.kept) == (True, True, "", "FP16"), row
    assert all(row.runs for row in kernels)
    leave = ("exp", "softmax", "log-softmax", "sum", "variance", "cross-entropy")
    assert [row.name for row in kernels if row.breaks and row.name not in ("matmul", "conv")] == list(leave)
    assert all(row.breaks for row in by_hand())


def test_fp32_between_two_steps_saves_the_second() -> None:
    class LogOfSoftmax(torch.nn.Module):
        def forward(self, logits: torch.Tensor) -> torch.Tensor:
            return logits.softmax(-1).log()

    net, logits = LogOfSoftmax(), torch.tensor([-20.0, 0.0])
    with Policy.preset("fp16-mixed").apply(net):
        between = net(logits)
    assert net(logits.half())[0] == -torch.inf
    assert float(between[0]) == pytest.approx(-20.0, abs=1e-5)


PROSE = "\n".join(cell.source for cell in cells("02") if cell.kind == "markdown")


def test_the_minutes_add_up() -> None:
    assert f"About {table.find('02').minutes} minutes." in PROSE
    timing = PROSE[PROSE.index("**Timing:**") :].split(". ")[0]
    assert sum(map(int, re.findall(r"\d+", timing))) == table.find("02").minutes
    cards = re.findall(r"^(?:Code|Debug|Explain) · .* (\d+) minutes$", PROSE, re.MULTILINE)
    assert f"exercises {sum(map(int, cards))}" in timing


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("02.stop", r"\b256\b"),
        ("02.refused", "is refused|not implemented"),
        ("02.sure", "rounded to 1|1,407|0\\.000335"),
    ],
)
def test_no_prediction_is_answered_above_it(key: str, answer: str) -> None:
    here = cells("02")
    place = next(k for k, cell in enumerate(here) if f'"{key}"' in cell.source)
    assert not [cell.id for cell in here[:place] if re.search(answer, cell.source + cell.stored)]
    assert any(key in cell.source for cell in here if "score_card(" in cell.source)


def test_the_variance_of_the_first_paragraph_is_real() -> None:
    x = (100 + torch.randn(1024, generator=torch.Generator().manual_seed(0))).half()
    assert float((x * x).mean() - x.mean() * x.mean()) == -8
    assert 0.9 < float(x.double().var(correction=0)) < 1.1
