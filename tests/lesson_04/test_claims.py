"""The science of lesson 04 with five seeds: where loss scaling is needed, where not, and what it cannot cure."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from mpkit import E4M3, DynamicScale, Policy, StaticScale
from mpkit import FP16 as FP16_FORMAT
from mpkit.course.lesson_04 import Deep, clip_each_seed
from mpkit.course.nets.digits import Digits, digits
from mpkit.course.nets.models import MLP, Autoencoder, SeedsNet
from mpkit.course.runs.experiments import Outcome, Variant, as_good_as, compare

SEEDS = range(5)
FP32, FP16 = Policy.preset("fp32"), Policy.preset("fp16-mixed")


@cache
def images() -> Digits:
    return digits()


def accuracy(model: SeedsNet) -> torch.Tensor:
    assert isinstance(model, MLP)
    return 100 * model.accuracy(images().test_images, images().test_labels)


def fused_adam(lr: float) -> object:
    return lambda model: torch.optim.Adam(model.parameters(), lr=lr, fused=True)


def test_c05_an_autoencoder_whose_gradients_underflow_needs_the_scale() -> None:
    """Without it FP16 is worse than FP32 by more than 2 % for every seed; with 2^16 it is within 2 %."""
    runs = compare(
        [Variant("FP32", FP32), Variant("1", FP16), Variant("2^16", FP16, StaticScale(2.0**16))],
        lambda: Autoencoder(seeds=SEEDS), images().reconstruction(), fused_adam(2e-3), steps=400,
        score=lambda model: model.error(images().test_images), measure_flushed=False,
    )  # fmt: skip
    assert len(runs["1"].scores) == 5
    assert min(runs["1"].relative_to(runs["FP32"])) > 0.02
    assert as_good_as(runs, "FP32", 0.02) == ["2^16"]
    assert [run.skipped for run in runs.values()] == [0, 0, 0], "nothing overflows; it is underflow alone"


def test_c05_a_loss_of_weight_one_millionth_learns_nothing_without_the_scale() -> None:
    classifier = MLP(seeds=SEEDS)
    runs = compare(
        [Variant("FP32", FP32), Variant("1", FP16), Variant("2^10", FP16, StaticScale(2.0**10))],
        lambda: MLP(seeds=SEEDS), images().classification(), fused_adam(1e-3), steps=420, score=accuracy,
        loss_fn=lambda logits, labels: 1e-6 * classifier.loss(logits, labels),
    )  # fmt: skip
    assert max(runs["1"].scores) < 20, "guessing gives 10 %"
    assert min(runs["FP32"].scores) > 90
    assert min(runs["2^10"].scores) > 90
    assert runs["1"].flushed > 0.95
    assert runs["2^10"].flushed < 0.2


def test_c05_an_ordinary_classifier_trains_as_well_without_the_scale() -> None:
    runs = compare(
        [Variant("FP32", FP32), Variant("1", FP16), Variant("dynamic", FP16, DynamicScale())],
        lambda: MLP(seeds=SEEDS), images().classification(), lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        steps=210, score=accuracy,
    )  # fmt: skip
    assert runs["1"].flushed < 0.01
    for name in ("FP32", "dynamic"):
        assert max(abs(a - b) for a, b in zip(runs["1"].scores, runs[name].scores, strict=True)) < 1.0
    assert min(runs["1"].scores) > 85


def first_over_last(gain: float, policy: Policy, scale: float = 1.0, batch: int = 0) -> torch.Tensor:
    """Norm of each seed's first weight gradient as a share of its last; the pass runs in the policy's formats."""
    net = Deep(gain, SEEDS)
    inputs, labels = images().classification().batch(batch)
    with policy.apply(net):
        loss = net.loss(net(inputs), labels).sum()
    (scale * loss).backward()
    first, last = (net.linear_layers()[place].weight.grad for place in (0, -1))
    assert first is not None
    assert last is not None
    return first.flatten(1).norm(dim=1) / last.flatten(1).norm(dim=1)


@pytest.mark.parametrize(("gain", "low", "high"), [(0.25, 2.0**-27, 2.0**-23), (2, 0.25, 4), (10, 2.0**6, 2.0**10)])
def test_c06_gradients_vanish_or_explode_in_fp32(gain: float, low: float, high: float) -> None:
    ratios = first_over_last(gain, FP32)
    assert ratios.shape == (5,)
    assert low < float(ratios.min()) <= float(ratios.max()) < high


@pytest.mark.parametrize("batch", range(3))
def test_c06_scaling_cures_the_underflow_and_leaves_the_vanishing(batch: int) -> None:
    exact, none, scaled = (first_over_last(0.25, *how, batch=batch) for how in ((FP32,), (FP16,), (FP16, 2.0**16)))
    assert not none.any(), "flushed: without a scale FP16 loses the first layer's gradient"
    assert float((scaled / exact - 1).abs().max()) < 0.02
    assert float(scaled.max()) < 2.0**-20


@pytest.mark.parametrize("scale", [1.0, 2.0**6])
def test_c06_scaling_leaves_the_exploding(scale: float) -> None:
    ratios = first_over_last(10, FP16, scale)
    assert bool(ratios.isfinite().all())
    assert float(ratios.min()) > 2.0**6
    assert float(first_over_last(2, FP16, scale).max()) < 2.0**6


def test_c06_at_gain_10_torch_s_first_scale_overflows() -> None:
    assert not first_over_last(10, FP16, 2.0**16).isfinite().any()


@pytest.mark.parametrize(("gain", "learns"), [(0.25, False), (2, True), (10, False)])
def test_c06_what_does_not_train_in_fp32_does_not_train_with_a_scale(gain: float, learns: bool) -> None:
    runs: dict[str, Outcome] = compare(
        [Variant("FP32", FP32), Variant("dynamic", FP16, DynamicScale())],
        lambda: Deep(gain, SEEDS), images().classification(),
        lambda model: torch.optim.SGD(model.parameters(), lr=0.1), steps=90, score=accuracy, measure_flushed=False,
    )  # fmt: skip
    scores = [score for run in runs.values() for score in run.scores]
    assert min(scores) > 60 if learns else max(scores) < 20, "guessing gives 10 %"


def test_c05_the_ordinary_classifier_s_test_can_fail() -> None:
    """Gradients in E4M3 fail the one point that FP16 without a scale passes."""
    runs = compare(
        [Variant("FP32", FP32), Variant("E4M3", Policy(forward=FP16_FORMAT, backward=E4M3))],
        lambda: MLP(seeds=SEEDS), images().classification(), lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        steps=210, score=accuracy, measure_flushed=False,
    )  # fmt: skip
    assert max(abs(a - b) for a, b in zip(runs["FP32"].scores, runs["E4M3"].scores, strict=True)) > 1


@pytest.mark.parametrize(("eps", "lowest", "highest"), [(1e-8, 0.0, 0.2), (1e-14, 0.9, 1.01)])
def test_adam_s_eps_shortens_the_first_step_of_a_small_loss(eps: float, lowest: float, highest: float) -> None:
    """With weight 1e-6 most gradients are below eps; with eps times the weight the step is the learning rate again."""
    net = MLP(seeds=SEEDS)
    before = torch.cat([p.detach().flatten() for p in net.parameters()])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, eps=eps)
    inputs, labels = images().classification().batch(0)
    (1e-6 * net.loss(net(inputs), labels).sum()).backward()
    active = torch.cat([(p.grad != 0).flatten() for p in net.parameters() if p.grad is not None])
    optimizer.step()
    steps = (torch.cat([p.detach().flatten() for p in net.parameters()]) - before)[active].abs() / 1e-3
    assert lowest < float(steps.median()) < highest


def test_c06_at_gain_10_the_tanhs_are_saturated_and_at_gain_2_none_is() -> None:
    wide, narrow = (Deep(gain, SEEDS).saturated(images().test_images) for gain in (10, 2))
    assert len(wide) == len(narrow) == 10
    assert 1 / 3 < min(wide) <= max(wide) < 2 / 3
    assert max(narrow) == 0


def test_clipping_shortens_each_seed_s_gradient_alone() -> None:
    net = Deep(10, SEEDS)
    for number, parameter in enumerate(net.parameters()):
        parameter.grad = torch.full_like(parameter, number + 1.0)
        parameter.grad[1] *= 1e-6
    before = torch.cat([p.grad.flatten(1) for p in net.parameters() if p.grad is not None], dim=1)
    norms = clip_each_seed(net, max_norm=1.0)
    after = torch.cat([p.grad.flatten(1) for p in net.parameters() if p.grad is not None], dim=1)
    torch.testing.assert_close(norms, before.norm(dim=1))
    assert torch.equal(after[1], before[1]), "a short gradient stays"
    torch.testing.assert_close(after[[0, 2, 3, 4]].norm(dim=1), torch.ones(4))
    torch.testing.assert_close(after[0] * norms[0], before[0])


@pytest.mark.parametrize(("gain", "learns"), [(2, True), (10, False)])
def test_c06_clipping_at_norm_1_does_not_cure_gain_10(gain: float, learns: bool) -> None:
    """The same with other seeds than the lesson's."""
    net = Deep(gain, range(5, 10))
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(150):
        inputs, labels = images().classification().batch(step)
        sgd.zero_grad()
        net.loss(net(inputs), labels).sum().backward()
        clip_each_seed(net, max_norm=1.0)
        sgd.step()
    scores = accuracy(net)
    assert float(scores.min()) > 70 if learns else float(scores.max()) < 20
    assert learns or min(net.saturated(images().test_images)) > 1 / 3
