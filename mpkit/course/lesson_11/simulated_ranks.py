"""Ranks that train one small model together, step by step, in one process: what the rank simulator shows.

Linear regression, 64 weights. Each rank has a batch, a copy of the weights and a loss scale of its own; gradients are
summed in a format that is chosen. Sums, tests for Inf, steps and scales are calculated. Whom a way of agreeing asks is
written down (`decisions`): it follows what real ranks did; a test before the sum is a loop of one's own.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from mpkit import FP32, DynamicScale, FloatFormat, cast
from mpkit.scaling import ScaleRule, ScaleState

STEPS, FEATURES, ROWS, MOST = 24, 64, 16, 8  # rows: of a rank's batch; most: ranks
BORN_AT, BORN_ON = (5, 14), 1  # steps, counted from 0, and the rank
LEARNING_RATE, LIMIT = 0.1, 100.0
SPAN = 42  # the smallest input is 2^-SPAN of the largest: gradients lie as far apart in a deep network

AGREEMENTS = ("test before the sum", "through the data", "GradScaler", "LossScaler, auto", "MAX of the flag")
BIRTHS = (
    "in the data",
    "after the sum",
    "in local clipping",
    "in a shard, sharded first",
    "in a shard, replica first",
)
DIVISIONS = ("before", "√N", "after")
EARLY, DATA, GRAD_SCALER, AUTO, MAX = AGREEMENTS
IN_DATA, AFTER_SUM, CLIPPING, SHARDED_FIRST, REPLICA_FIRST = BIRTHS


@dataclass(frozen=True)
class Setup:
    """How the ranks work together. `reduce`: the format in which gradients are sent and summed."""

    ranks: int = 4
    agreement: str = EARLY
    born: str = IN_DATA
    divide: str = "before"
    reduce: FloatFormat = FP32

    @property
    def sharded(self) -> bool:
        """Whether half of the weights are sharded: each rank holds a part of those alone."""
        return self.born in (SHARDED_FIRST, REPLICA_FIRST)


@dataclass(frozen=True, eq=False)
class Run:
    """What happened: tensors of steps by ranks, and of steps.

    Attributes:
        skipped: whether the rank skipped the step.
        spoiled: whether it took a step with Inf or NaN in its gradients.
        scales: its loss scale after the step.
        distance: the largest distance of two ranks' copies after the step, as a share of their length; Inf if a weight
            is not finite.
        overflowed: whether the sum made Inf of finite gradients.
        flushed: share of the mean's values that came out 0 and should not, over the steps with a finite mean,
            but for those at which all ranks send zeros.
        error: the length of the mean's error divided by the mean's length, over the same steps. Both NaN without any.
    """

    setup: Setup
    skipped: Tensor
    spoiled: Tensor
    scales: Tensor
    distance: Tensor
    overflowed: Tensor
    flushed: float
    error: float

    @property
    def torn(self) -> Tensor:
        """Steps, counted from 0, at which some ranks skip and others do not."""
        return (self.skipped.any(1) & ~self.skipped.all(1)).nonzero().flatten()


@dataclass
class _Step:
    """Of one step: each rank's gradients as it sends them, their mean and what that should be, and as they arrive."""

    sent: Tensor
    alone: Tensor
    mean: Tensor
    exact: Tensor
    got: Tensor


def simulate(setup: Setup, seed: int = 0, rule: ScaleRule = DynamicScale()) -> Run:  # noqa: B008
    """Train for STEPS steps; `rule` is each rank's own, for its loss scale.

    The same seed gives the first ranks the same batches, however many ranks there are.
    """
    owner = _owners(setup)
    weights, states = torch.zeros(setup.ranks, FEATURES), [rule.init()] * setup.ranks
    rows: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    sums: list[_Step] = []
    for number in range(STEPS):
        scales = torch.tensor([state.scale for state in states])[:, None]
        step = _gradients(setup, weights, scales, number, seed)
        held = (owner < 0) | (owner == torch.arange(setup.ranks)[:, None])
        bad = (~step.got.isfinite() & held).any(1)
        skips = decisions(setup, step.alone, bad)
        weights = _stepped(weights, step.got / scales, skips, owner)
        states = [rule.update(state, found) for state, found in zip(states, skips.tolist(), strict=True)]
        rows.append((skips, ~skips & bad, _scales(states), _distance(weights, owner)))
        sums.append(step)
    skipped, spoiled, scale, distance = (torch.stack(column) for column in zip(*rows, strict=True))
    overflowed = torch.stack([bool(s.sent.isfinite().all()) & ~s.mean.isfinite().all() for s in sums])
    return Run(setup, skipped, spoiled, scale, distance, overflowed, *_losses_of(sums))


def decisions(setup: Setup, alone: Tensor, seen: Tensor) -> Tensor:
    """Which ranks skip. `alone`: which found Inf in their own gradients before the sum; `seen`: in those after it."""
    if setup.agreement == EARLY:
        return alone
    reduced = {
        DATA: False,
        GRAD_SCALER: setup.born == SHARDED_FIRST,  # torch goes by the placement of the first gradient
        AUTO: setup.sharded,  # over the mesh of the sharded weights
        MAX: True,
    }
    return seen.any().expand_as(seen) if reduced[setup.agreement] else seen


def _gradients(setup: Setup, weights: Tensor, scales: Tensor, number: int, seed: int) -> _Step:
    """The gradients of one step, scaled, and the sum's."""
    x, y = (part[: setup.ranks].clone() for part in _batches(number, seed))
    born = number in BORN_AT
    if born and setup.born == IN_DATA:
        x[BORN_ON, 0, 0] = torch.inf
    if born and setup.born == CLIPPING:  # a batch without a single example
        x[BORN_ON], y[BORN_ON] = 0, 0
    off = torch.einsum("rbf,rf->rb", x, weights) - y
    own = scales * torch.einsum("rbf,rb->rf", x, off) / ROWS
    alone = ~own.isfinite().all(1)
    sent = torch.where(alone[:, None], 0, own) if setup.agreement == EARLY else own
    mean = mean_of_ranks(sent, setup.divide, setup.reduce)
    got = mean.repeat(setup.ranks, 1)
    if born and (setup.sharded or setup.born == AFTER_SUM):  # in the first weight that rank 1 holds, alone if sharded
        got[BORN_ON, int((_owners(setup) == (BORN_ON if setup.sharded else -1)).nonzero()[0])] = torch.inf
    if setup.born == CLIPPING:
        loss = off.square().sum(1, keepdim=True) / (y != 0).sum(1, keepdim=True)  # without an example it is 0/0
        got = got * (LIMIT / loss).clamp(max=1)
    return _Step(sent, alone, mean, sent.double().mean(0), got)


def mean_of_ranks(sent: Tensor, divide: str, fmt: FloatFormat) -> Tensor:
    """The mean over ranks (ranks, weights), one after the other in the format, divided where `divide` says."""
    ranks = len(sent)
    first = {"before": ranks, "√N": math.sqrt(ranks), "after": 1}[divide]
    parts = cast(sent / first, fmt)
    total = parts[0]
    for part in parts[1:]:
        total = cast(total + part, fmt)
    return total / (ranks / first)


def _stepped(weights: Tensor, gradients: Tensor, skips: Tensor, owner: Tensor) -> Tensor:
    """The weights after the step; what is sharded is stepped by its owner, and gathered by all."""
    new = torch.where(skips[:, None], weights, weights - LEARNING_RATE * gradients)
    columns = (owner >= 0).nonzero().flatten()
    new[:, columns] = new[owner[columns], columns]
    return new


@lru_cache(maxsize=64)
def _owners(setup: Setup) -> Tensor:
    """For each weight the rank that holds it, or -1: all do."""
    owner = torch.full((FEATURES,), -1)
    if setup.sharded:
        for rank, part in enumerate(torch.arange(1, FEATURES, 2).chunk(setup.ranks)):
            owner[part] = rank
    return owner


def _scales(states: list[ScaleState]) -> Tensor:
    return torch.tensor([state.scale for state in states])


def _distance(weights: Tensor, owner: Tensor) -> Tensor:
    """The largest between two ranks' copies, divided by the length of the mean; Inf if a weight is not finite."""
    if not weights.isfinite().all():
        return torch.tensor(torch.inf)
    copies = weights[:, owner < 0]
    apart = float(torch.cdist(copies, copies, compute_mode="donot_use_mm_for_euclid_dist").max())
    return torch.tensor(apart / float(copies.mean(0).norm()) if apart else 0.0)


def _losses_of(sums: list[_Step]) -> tuple[float, float]:
    """Share flushed and relative error of the means that are finite; where all ranks send zeros there is none."""
    finite = [step for step in sums if step.exact.isfinite().all() and step.mean.isfinite().all()]
    good = [step for step in finite if step.exact.any()]
    if not good:
        return math.nan, math.nan
    flushed = [((step.mean == 0) & (step.exact != 0)).double().mean() for step in good]
    off = [(step.mean - step.exact).norm() / step.exact.norm() for step in good]
    return float(torch.stack(flushed).mean()), float(torch.stack(off).mean())


@lru_cache(maxsize=2 * STEPS)
def _batches(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """The inputs and targets of MOST ranks at one step."""
    world = torch.Generator().manual_seed(seed)
    sizes = 2.0 ** (-SPAN * torch.randperm(FEATURES, generator=world) / (FEATURES - 1))
    truth = 0.75 * torch.randn(FEATURES, generator=world)
    draw = torch.Generator().manual_seed(1 + 1000 * seed + number)
    x = torch.randn(MOST, ROWS, FEATURES, generator=draw) * sizes
    return x, torch.einsum("rbf,f->rb", x, truth) + 0.75 * torch.randn(MOST, ROWS, generator=draw)
