"""Train the same model several times, each time with another precision or loss scale, and compare seed by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, cast

import torch
from torch import Tensor, nn

from mpkit import LossScaler, StepRecord, fit
from mpkit.course.nets.models import SeedsNet
from mpkit.course.runs.how import one_by_one
from mpkit.course.runs.outcome import Outcome as Outcome
from mpkit.course.runs.outcome import Variant as Variant
from mpkit.course.runs.side_by_side import SideBySide
from mpkit.optim.keeper import WeightKeeper
from mpkit.training import Run, StepData
from mpkit.training.step import LossFunction

READ_EVERY = 50  # steps of a captured run between two waits for the device: 10 to 30 ms


def start(
    variant: Variant,
    model: nn.Module,
    data: StepData,
    optimizer: torch.optim.Optimizer,
    steps: int,
    loss_fn: LossFunction | None = None,
    measure_flushed: bool | None = None,
    may_capture: bool = True,
) -> Run:
    """The run of one variant, as `mpkit.fit` makes it; the variant's wrapper goes around `optimizer`.

    It trains where `model` is, in the formats that the device has, and in a CUDA graph where that can be had, unless
    the loss or the learning rate is another at each step (`may_capture=False`).
    """
    return fit(
        model, data, optimizer=optimizer if variant.wrap is None else variant.wrap(optimizer), steps=steps,
        policy=variant.policy, scaler=LossScaler(variant.rule), loss_fn=loss_fn, measure_flushed=measure_flushed,
        engine="auto", capture="auto" if may_capture else False, read_every=READ_EVERY if may_capture else 1,
    )  # fmt: skip


def weighted(model: nn.Module, weight: float) -> LossFunction:
    """The model's own loss times `weight`, as for an auxiliary loss."""
    loss = cast(LossFunction, model.loss)
    return lambda outputs, targets: weight * loss(outputs, targets)


def train_each(
    variants: Sequence[Variant],
    model: Callable[[], SeedsNet],
    data: StepData,
    optimizer: Callable[[SeedsNet], torch.optim.Optimizer],
    steps: int,
    score: Callable[[SeedsNet], Tensor],
    loss_fn: LossFunction | None = None,
    measure_flushed: bool = True,
) -> Iterator[dict[str, Outcome]]:
    """Train every variant from the same start and yield the growing results after every step.

    Args:
        variants: what to compare; the names must differ.
        model: makes the untrained model, the same at every call; the training runs on the device that it is on.
        data: the batches, the same for every variant, on the model's device.
        optimizer: makes the optimizer of a model.
        steps: steps of each variant.
        score: (seeds,) numbers for a trained model, computed in FP32.
        loss_fn, measure_flushed: as for `mpkit.fit`.

    Raises:
        ValueError: two variants have the same name.
    """

    def begin(variant: Variant) -> list[Run]:
        net = model()
        return [start(variant, net, data, optimizer(net), steps, loss_fn, measure_flushed)]

    return _one_after_the_other(
        variants, begin, lambda records: records[0], lambda nets: tuple(score(cast(SeedsNet, nets[0])).tolist())
    )


def train_seeds(
    variants: Sequence[Variant],
    seeds: Sequence[int],
    model: Callable[[int], nn.Module],
    data: Callable[[int], StepData],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    steps: int,
    score: Callable[[nn.Module], float],
    weight: float = 1.0,
) -> Iterator[dict[str, Outcome]]:
    """`train_each` for models that cannot train several seeds at once: one run a seed, side by side.

    `model` makes a network with a method `loss(outputs, targets)`; `model` and `data` get the seed; `score` gives one
    number for a trained model. What is trained is the loss times `weight`, what is recorded the loss itself. Each seed
    has a scaler of its own: a merged record has the mean loss, the smallest scale, and counts as skipped if any seed
    skipped. Flushed gradients are not counted.

    ValueError: two variants have the same name.
    """

    def begin(variant: Variant) -> list[Run]:
        nets = [model(seed) for seed in seeds]
        return [
            start(variant, net, data(seed), optimizer(net), steps, weighted(net, weight), measure_flushed=False)
            for net, seed in zip(nets, seeds, strict=True)
        ]

    return _one_after_the_other(
        variants, begin, lambda records: _merged(records, weight), lambda nets: tuple(map(score, nets))
    )


def _one_after_the_other(
    variants: Sequence[Variant],
    begin: Callable[[Variant], list[Run]],
    merge: Callable[[Sequence[StepRecord]], StepRecord],
    score: Callable[[list[nn.Module]], tuple[float, ...]],
) -> Iterator[dict[str, Outcome]]:
    """Each variant's runs side by side; the growing results after every step."""
    require_different([variant.name for variant in variants], "variants")
    results: dict[str, Outcome] = {}
    for variant in variants:
        together = SideBySide({str(place): run for place, run in enumerate(begin(variant))})
        outcome = results[variant.name] = Outcome(variant, [])
        while not together.over:
            together.advance()
            outcome.note = one_by_one(together.runs["0"])  # now, for it may turn out at the first step
            outcome.records.append(merge([records[-1] for records in together.records.values()]))
            if together.over:
                outcome.scores = score([run.model for run in together.runs.values()])
                stepper = together.runs["0"].work.optimizer
                outcome.lost = stepper.updates.lost_share if isinstance(stepper, WeightKeeper) else None
            yield results


def require_different(names: Sequence[str], what: str) -> None:
    """ValueError if a name is there twice; it says of `what`."""
    if len(set(names)) < len(names):
        raise ValueError(f"{what} need different names, but these came: {', '.join(names)}.")


def _merged(records: Sequence[StepRecord], weight: float) -> StepRecord:
    """One record for several seeds' records of the same step; losses and gradient norm are divided by `weight`."""
    losses = tuple(record.loss / weight for record in records)
    return StepRecord(
        step=records[0].step,
        loss=fmean(losses),
        losses=losses,
        scale=min(record.scale for record in records),
        skipped=any(record.skipped for record in records),
        flushed=None,
        grad_norm=math.hypot(*(record.grad_norm for record in records)) / weight,
        seconds=sum(record.seconds for record in records),
    )


def compare(*arguments: Any, **settings: Any) -> dict[str, Outcome]:
    """`train_each` without the steps in between: takes the same arguments, returns the results when all is done."""
    results: dict[str, Outcome] = {}
    for results in train_each(*arguments, **settings):  # noqa: B007
        pass
    return results


def as_good_as(results: Mapping[str, Outcome], reference: str, margin: float) -> list[str]:
    """Names of the runs of which every seed's score is within `margin` (0.02 is 2 %) of the reference's."""
    base = results[reference]
    others = (outcome for name, outcome in results.items() if name != reference)
    return [o.variant.name for o in others if all(abs(change) <= margin for change in o.relative_to(base))]
