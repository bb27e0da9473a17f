"""Faults that lesson 06 must notice: in the policies, in the scaler's steps, in what is saved."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from harness.fault import Fault, Patch, collector, swap
from torch import Tensor

import mpkit
from mpkit import casting
from mpkit.course.lesson_06 import precision_race
from mpkit.scaling import DynamicScale
from mpkit.scaling.gradient_plan import GradientPlan, reciprocal
from mpkit.scaling.step_result import StepResult

FAULTS: dict[str, Fault] = {}
fault = collector(FAULTS)
UNSEEN: set[str] = set()
UNPAINTED = [(precision_race, "RaceFigure")]

CAST, FAKE_CAST, TENSORS = casting.cast, casting.fake_cast, DynamicScale.update_tensors


@fault
def the_policy_does_nothing(patch: Patch) -> None:
    patch.setattr(mpkit.Policy, "apply", lambda self, model, **_: contextlib.nullcontext(model))


@fault
def gradients_are_never_rounded(patch: Patch) -> None:
    swap(patch, FAKE_CAST, lambda x, forward, _, **__: x + (CAST(x.detach(), forward) - x.detach()))


@fault
def gradients_are_never_unscaled(patch: Patch) -> None:
    swap(patch, reciprocal, torch.ones_like)


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
def the_overflow_check_is_always_clean(patch: Patch) -> None:
    honest = GradientPlan.check_and_unscale

    def clean(plan: GradientPlan, inv_scale: Tensor) -> bool:
        found = honest(plan, inv_scale)
        plan.found_inf.zero_()
        return found

    patch.setattr(GradientPlan, "check_and_unscale", clean)


@fault
def a_skip_is_reported_as_a_step(patch: Patch) -> None:
    patch.setattr(StepResult, "stepped", property(lambda self: True))


@fault
def unscaling_twice_is_allowed(patch: Patch) -> None:
    def unscale_(scaler: mpkit.LossScaler, optimizer: Any) -> None:
        tensors, plan = scaler._plan(optimizer, "unscale_()")
        plan.check_and_unscale(reciprocal(tensors.scale))

    patch.setattr(mpkit.LossScaler, "unscale_", unscale_)


@fault
def a_saved_scaler_forgets_its_scale(patch: Patch) -> None:
    honest = mpkit.LossScaler.state_dict
    patch.setattr(mpkit.LossScaler, "state_dict", lambda self: {**honest(self), "scale": self.rule.init().scale})


@fault
def emulation_saturates_instead_of_inf(patch: Patch) -> None:
    swap(patch, FAKE_CAST, lambda x, forward, backward, **_: FAKE_CAST(x, forward, backward, overflow="saturate"))
