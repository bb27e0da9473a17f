"""The science of lesson 02 with five seeds: rounding errors, drift, accumulators, and which operations need FP32."""

from __future__ import annotations

import pytest
import torch

from mpkit import BF16, E4M3, E5M2, FP16, FloatFormat, Policy, cast
from mpkit.course.arithmetic.accumulate import dot, total
from mpkit.course.lesson_02.kernel_survey import by_hand, survey

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
    bias, flat = {}, []
    for length in (64, 256, 1024, 4096):
        a, b = (torch.stack([uniform(40, length, seed=10 * seed + side) for seed in SEEDS]) for side in (0, 1))
        true = (a.half().double() * b.half().double()).sum(-1)
        bias[length] = (dot(a, b, FP16) / true - 1).mean(1)
        flat.append((dot(a, b, FP16, "fp32") / true - 1).square().mean(1).sqrt())
    assert all((bias[length] < 0).all() for length in (256, 1024, 4096))
    assert float(bias[4096].max()) < -0.06
    assert float(bias[4096].min()) > -0.09
    assert float(torch.stack(flat).max()) < 3e-4
    assert float(torch.stack(flat).min()) > 1e-4


def test_c11_relu_and_max_pool_run_in_fp16_and_are_exact() -> None:
    kernels = survey()
    for name in ("ReLU", "max-pool"):
        row = kernels[name]
        assert (row.runs, row.exact, row.breaks, row.kept) == (True, True, "", "FP16"), row
    assert all(row.runs for row in kernels)
    assert all(kernels[name].breaks for name in ("exp", "log", "softmax", "sum", "variance"))
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
