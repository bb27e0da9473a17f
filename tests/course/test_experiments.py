"""Comparing ways to train: same start, same data, seed by seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mpkit import DynamicScale, LossScaler, NoScaling, Policy, StaticScale, StepRecord, fit
from mpkit.course.nets.models import MLP, SeedsNet
from mpkit.course.runs.experiments import Outcome, Variant, as_good_as, compare, train_each
from mpkit.training.batches import Batches

FP32, MIXED = Policy.preset("fp32"), Policy.preset("fp16-mixed")


def batches() -> Batches:
    draw = torch.Generator().manual_seed(3)
    return Batches(torch.rand(200, 16, generator=draw), torch.randint(0, 4, (200,), generator=draw), 50)


def net() -> SeedsNet:
    return MLP(seeds=(0, 1, 2), sizes=(16, 8, 4))


def sgd(model: SeedsNet) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.5)


def first_weight(model: SeedsNet) -> Tensor:
    return model.linear_layers()[0].weight.detach()[:, 0, 0]


def record(step: int = 0, skipped: bool = False, flushed: float = 0.0) -> StepRecord:
    return StepRecord(step, 1.0, (1.0,), 1.0, skipped, flushed, 1.0, 0.1)


def outcome(*scores: float, name: str = "x") -> Outcome:
    return Outcome(Variant(name, FP32), [record()], scores)


def run(variants: list[Variant], steps: int = 6) -> dict[str, Outcome]:
    return compare(variants, net, batches(), sgd, steps, first_weight)


def test_every_variant_starts_alike_and_sees_the_same_data() -> None:
    results = run(
        [Variant("a", FP32), Variant("b", FP32), Variant("c", FP32, StaticScale(2.0**8)), Variant("d", MIXED)]
    )
    assert list(results) == ["a", "b", "c", "d"]
    assert results["a"].records == results["b"].records
    assert results["a"].scores == results["b"].scores == results["c"].scores
    assert len({o.records[0].losses for o in results.values()}) == 2, "only the FP16 run differs"
    assert results["d"].records[0].losses == pytest.approx(results["a"].records[0].losses, rel=2e-3)


def test_a_comparison_is_the_single_runs_side_by_side() -> None:
    results = run([Variant("a", FP32), Variant("b", MIXED, DynamicScale(init_scale=2.0**10))])
    model = net()
    scaler = LossScaler(DynamicScale(init_scale=2.0**10))
    alone = list(fit(model, batches(), optimizer=sgd(model), steps=6, policy=MIXED, scaler=scaler))
    assert results["b"].records == alone
    assert results["b"].scores == tuple(first_weight(model).tolist())
    assert results["b"].variant.rule == DynamicScale(init_scale=2.0**10)
    assert results["a"].variant.rule == NoScaling()


def test_results_grow_step_by_step_and_scores_come_last() -> None:
    seen = []
    for results in train_each([Variant("a", FP32), Variant("b", FP32)], net, batches(), sgd, 3, first_weight):
        seen.append({name: (len(o.records), len(o.scores)) for name, o in results.items()})
    assert seen == [
        {"a": (1, 0)}, {"a": (2, 0)}, {"a": (3, 3)},
        {"a": (3, 3), "b": (1, 0)}, {"a": (3, 3), "b": (2, 0)}, {"a": (3, 3), "b": (3, 3)},
    ]  # fmt: skip


def test_another_loss_and_no_meter_are_passed_on() -> None:
    def tiny(out: Tensor, labels: Tensor) -> Tensor:
        return 1e-9 * net().loss(out, labels)

    def share(measure: bool) -> Outcome:
        return compare([Variant("a", MIXED)], net, batches(), sgd, 2, first_weight, tiny, measure)["a"]

    assert share(True).flushed == 1.0
    assert share(False).flushed is None
    assert share(True).records[0].loss < 1e-8


def test_two_variants_of_one_name_are_refused() -> None:
    twice = [Variant("a", FP32), Variant("b", FP32), Variant("a", MIXED)]
    with pytest.raises(ValueError, match="variants need different names, but these came: a, b, a"):
        run(twice)


def test_statistics_by_hand() -> None:
    o = Outcome(
        Variant("x", FP32), [record(0, True, 0.5), record(1, False, 0.25), record(2, True, 0.0)], (1.0, 2.0, 6.0)
    )
    assert (o.skipped, o.flushed, o.mean) == (2, 0.25, 3.0)
    assert o.spread == pytest.approx(7**0.5), "the standard deviation of a sample, n - 1"
    assert outcome(5.0).spread == 0.0


def test_differences_are_paired_by_seed() -> None:
    """Seeds 1 and 100 apart, each 10 % worse: the means' overlap would hide it."""
    reference, worse = outcome(1.0, 100.0), outcome(1.1, 110.0)
    assert worse.relative_to(reference) == pytest.approx((0.1, 0.1))
    assert outcome(100.0, 1.0).relative_to(reference) == pytest.approx((99.0, -0.99)), "not sorted, not averaged"
    with pytest.raises(ValueError, match="zip"):
        outcome(1.0).relative_to(reference)


@pytest.mark.parametrize(
    ("scores", "good"),
    [((1.0, 2.0), True), ((1.019, 1.961), True), ((1.021, 2.0), False), ((0.979, 2.0), False),
     ((1.5, 1.5), False), ((float("nan"), 2.0), False), ((float("inf"), 2.0), False)],
)  # fmt: skip
def test_as_good_means_every_seed_within_the_margin_on_both_sides(scores: tuple[float, float], good: bool) -> None:
    results = {"ref": outcome(1.0, 2.0, name="ref"), "x": outcome(*scores)}
    assert as_good_as(results, "ref", 0.02) == (["x"] if good else [])


def test_as_good_as_keeps_the_order_and_leaves_the_reference_out() -> None:
    results = {name: outcome(1.0, name=name) for name in ("b", "ref", "a")}
    assert as_good_as(results, "ref", 0.02) == ["b", "a"]


def test_an_optimizer_per_model() -> None:
    """A shared optimizer would carry momentum from one run into the next."""
    made = []

    def momentum(model: SeedsNet) -> torch.optim.Optimizer:
        made.append(model)
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    make: Callable[[], SeedsNet] = net
    results = compare([Variant("a", FP32), Variant("b", FP32)], make, batches(), momentum, 4, first_weight)
    assert len({id(model) for model in made}) == 2
    assert results["a"].records == results["b"].records
