"""Faults that lesson 05 must notice: in the rules, in the scaler that drives them, in the race."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from harness.fault import Fault, Patch, collector, swap
from torch import Tensor

import mpkit
from mpkit.course.lesson_05 import scaler_race
from mpkit.course.recorded.history import GradientHistory
from mpkit.scaling import ArticleRule, DynamicScale, GradientStats, LibraryScale, LogMaxScale, ScaleState
from mpkit.scaling.divider import step_fused
from mpkit.scaling.gradient_plan import GradientPlan
from mpkit.scaling.rule import as_float32

FAULTS: dict[str, Fault] = {}
fault = collector(FAULTS)
UNSEEN: set[str] = set()
UNPAINTED = [(scaler_race, "ScalerRaceFigure")]

PATIENT, TENSORS = LibraryScale.update, DynamicScale.update_tensors


@fault
def a_skipped_step_is_applied(patch: Patch) -> None:
    swap(patch, step_fused, lambda opt, scale, flag, *rest: step_fused(opt, scale, torch.zeros_like(flag), *rest))


@fault
def a_dynamic_scale_never_grows(patch: Patch) -> None:
    def update(rule: DynamicScale, scale: Tensor, growth_tracker: Tensor, found_inf: Tensor) -> None:
        growth_tracker.zero_()
        TENSORS(rule, scale, growth_tracker, found_inf)

    patch.setattr(DynamicScale, "update_tensors", update)


@fault
def a_dynamic_scale_never_backs_off(patch: Patch) -> None:
    patch.setattr(DynamicScale, "update_tensors", lambda self, scale, count, _: TENSORS(self, scale, count, scale * 0))


@fault
def a_dynamic_rule_never_grows(patch: Patch) -> None:
    def forgetful(honest: Any) -> Any:
        def update(rule: DynamicScale, state: ScaleState, found_inf: bool, seen: Any = None) -> ScaleState:
            return honest(rule, dataclasses.replace(state, growth_tracker=0), found_inf, seen)

        return update

    for kind in (DynamicScale, LibraryScale):
        patch.setattr(kind, "update", forgetful(kind.update))


@fault
def hysteresis_is_ignored(patch: Patch) -> None:
    def update(rule: DynamicScale, state: ScaleState, found_inf: bool, seen: Any = None) -> ScaleState:
        return PATIENT(rule, ScaleState(state.scale, state.growth_tracker), found_inf, seen)

    patch.setattr(LibraryScale, "update", update)


@fault
def there_is_no_floor(patch: Patch) -> None:
    patch.setattr(DynamicScale, "_limited", lambda self, scale: scale)
    patch.setattr(Tensor, "clamp_", lambda self, *_, **__: self)


@fault
def the_article_reads_the_other_norm(patch: Patch) -> None:
    honest = ArticleRule.update

    def update(rule: ArticleRule, state: ScaleState, found_inf: bool, seen: GradientStats | None = None) -> ScaleState:
        if seen is not None:
            seen = GradientStats(seen.amax, seen.norm * state.scale)
        return honest(rule, state, found_inf, seen)

    patch.setattr(ArticleRule, "update", update)


@fault
def the_article_may_grow(patch: Patch) -> None:
    patch.setattr(ArticleRule, "update", lambda self, state, *_: ScaleState(as_float32(state.scale * 2)))


@fault
def logmax_forgets_the_spread(patch: Patch) -> None:
    honest = LogMaxScale.update
    patch.setattr(LogMaxScale, "update", lambda self, state, *rest: honest(self, self.init(), *rest))


@fault
def the_race_counts_nothing_as_flushed(patch: Patch) -> None:
    patch.setattr(GradientHistory, "flushed", lambda self, scales, fmt=mpkit.FP16: scales * 0.0)


@fault
def statistics_see_scaled_gradients(patch: Patch) -> None:
    honest = GradientPlan.stats

    def stats(plan: GradientPlan, histogram: bool) -> GradientStats:
        seen = honest(plan, histogram)
        return GradientStats(seen.amax * 1024, seen.norm * 1024, seen.histogram)

    patch.setattr(GradientPlan, "stats", stats)
