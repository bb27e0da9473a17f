"""Faults that lesson 11 must notice: in who skips, in what is summed, in the scale, and in what is calculated.

The cells that start real ranks take no part: a fault of this process does not reach another.
"""

from __future__ import annotations

from typing import Any

import torch
from harness.fault import Fault, Patch, collector, swap
from torch import Tensor

from mpkit.course.lesson_11 import on_paper, rank_simulator, simulated_ranks
from mpkit.scaling import DynamicScale, ScaleState

FAULTS: dict[str, Fault] = {}
fault = collector(FAULTS)
UNSEEN: set[str] = set()
UNPAINTED = [(rank_simulator, "RankSimulatorFigure")]


@fault
def the_flag_goes_through_a_minimum(patch: Patch) -> None:
    honest = simulated_ranks.decisions

    def least(setup: Any, alone: Tensor, seen: Tensor) -> Tensor:
        return seen.all().expand_as(seen) if setup.agreement == "MAX of the flag" else honest(setup, alone, seen)

    swap(patch, honest, least)


@fault
def everybody_asks(patch: Patch) -> None:
    swap(patch, simulated_ranks.decisions, lambda setup, alone, seen: seen.any().expand_as(seen))


@fault
def a_bad_rank_sends_what_it_has(patch: Patch) -> None:
    honest = simulated_ranks.mean_of_ranks

    def whatever(sent: Tensor, *how: Any) -> Tensor:
        bad = (sent == 0).all(1, keepdim=True)
        return honest(torch.where(bad, torch.inf, sent), *how)

    swap(patch, honest, whatever)


@fault
def the_sum_forgets_a_rank(patch: Patch) -> None:
    honest = simulated_ranks.mean_of_ranks
    swap(patch, honest, lambda sent, *how: honest(sent[:-1], *how))


@fault
def copies_are_never_apart(patch: Patch) -> None:
    swap(patch, simulated_ranks._distance, lambda weights, owner: torch.zeros(()))


@fault
def a_skipped_step_is_taken(patch: Patch) -> None:
    honest = simulated_ranks._stepped

    def taken(weights: Tensor, gradients: Tensor, skips: Tensor, owner: Tensor) -> Tensor:
        return honest(weights, gradients.nan_to_num(0, 0, 0), torch.zeros_like(skips), owner)

    swap(patch, honest, taken)


@fault
def a_skip_leaves_the_scale(patch: Patch) -> None:
    patch.setattr(DynamicScale, "update", lambda self, state, found_inf, seen=None: ScaleState(state.scale))


@fault
def some_rank_is_one_rank(patch: Patch) -> None:
    swap(patch, on_paper.some_rank, lambda p, ranks: p)


@fault
def a_rank_is_forgotten_on_paper(patch: Patch) -> None:
    honest = on_paper.some_rank
    swap(patch, honest, lambda p, ranks: honest(p, ranks - 1))


@fault
def balance_is_one_in_the_interval(patch: Patch) -> None:
    swap(patch, on_paper.balance, lambda interval: 1 / interval)


@fault
def the_flag_goes_around_a_ring(patch: Patch) -> None:
    honest = on_paper.costs

    def ring(ranks: int, *more: float) -> Any:
        return on_paper.Costs(2 * (ranks - 1) * on_paper.LATENCY, honest(ranks, *more).gradients)

    swap(patch, honest, ring)


@fault
def the_scale_settles_without_ranks(patch: Patch) -> None:
    honest = on_paper.settled_scale
    swap(patch, honest, lambda ranks, tail, *more: honest(8, tail, *more))


@fault
def bad_data_are_left_out(patch: Patch) -> None:
    honest = on_paper.simulate_scale
    swap(patch, honest, lambda *args, bad_data=0.0, **more: honest(*args, **more))
