"""Faults that lesson 04 must notice: in the scaler, in rounding, in counting, in the models."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from harness.fault import Fault, Patch, collector, swap
from torch import Tensor

import mpkit
from mpkit import casting
from mpkit.course.lesson_04 import gradient_histogram
from mpkit.course.nets import models
from mpkit.formats import FloatFormat
from mpkit.overflow import RangeReport
from mpkit.scaling import DynamicScale, ScaleState, StaticScale
from mpkit.scaling.divider import step_fused
from mpkit.scaling.gradient_plan import GradientPlan, reciprocal
from mpkit.scaling.step_result import StepResult

FAULTS: dict[str, Fault] = {}
fault = collector(FAULTS)
# Faults that no cell of lesson 04 shows yet. When one does, its test fails: then take the name out.
UNSEEN = {
    "a_skipped_step_is_applied",
    "a_dynamic_scale_never_grows",
    "a_dynamic_scale_never_backs_off",
}
UNPAINTED = [(gradient_histogram, "GradientHistogramFigure")]

# --- the scaler ------------------------------------------------------------------------------------------------------


@fault
def gradients_are_never_unscaled(patch: Patch) -> None:
    swap(patch, reciprocal, torch.ones_like)
    swap(patch, step_fused, lambda optimizer, _, *rest: step_fused(optimizer, None, *rest))


@fault
def gradients_are_unscaled_twice(patch: Patch) -> None:
    swap(patch, step_fused, lambda opt, scale, *rest: step_fused(opt, None if scale is None else scale * scale, *rest))


@fault
def the_loss_is_never_scaled(patch: Patch) -> None:
    def keep(scaler: mpkit.LossScaler, outputs: Tensor) -> Tensor:
        scaler._memory.on_device(outputs.device)
        return outputs

    patch.setattr(mpkit.LossScaler, "_scaled", keep)


@fault
def a_static_scale_is_always_one(patch: Patch) -> None:
    patch.setattr(StaticScale, "init", lambda self: ScaleState(1.0))


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
def a_skipped_step_is_applied(patch: Patch) -> None:
    swap(patch, step_fused, lambda opt, scale, flag, *rest: step_fused(opt, scale, torch.zeros_like(flag), *rest))


@fault
def a_dynamic_scale_never_grows(patch: Patch) -> None:
    honest = DynamicScale.update_tensors

    def update(rule: DynamicScale, scale: Tensor, growth_tracker: Tensor, found_inf: Tensor) -> None:
        growth_tracker.zero_()
        honest(rule, scale, growth_tracker, found_inf)

    patch.setattr(DynamicScale, "update_tensors", update)


@fault
def a_dynamic_scale_never_backs_off(patch: Patch) -> None:
    honest = DynamicScale.update_tensors
    patch.setattr(DynamicScale, "update_tensors", lambda self, scale, count, _: honest(self, scale, count, scale * 0))


# --- rounding --------------------------------------------------------------------------------------------------------

CAST, FAKE_CAST = casting.cast, casting.fake_cast


@fault
def cast_cuts_off_instead_of_rounding(patch: Patch) -> None:
    swap(patch, CAST, lambda x, fmt, *_: CAST(x, fmt, "zero"))


@fault
def cast_saturates_instead_of_inf(patch: Patch) -> None:
    swap(patch, CAST, lambda x, fmt, *_: CAST(x, fmt, overflow="saturate"))


@fault
def cast_has_no_subnormals(patch: Patch) -> None:
    swap(patch, CAST, lambda x, fmt, *_: torch.where(x.abs() < fmt.smallest_normal, 0.0, CAST(x, fmt)))


@fault
def emulation_cuts_off_instead_of_rounding(patch: Patch) -> None:
    swap(patch, FAKE_CAST, lambda x, forward, backward, **_: FAKE_CAST(x, forward, backward, rounding="zero"))


@fault
def emulation_saturates_instead_of_inf(patch: Patch) -> None:
    swap(patch, FAKE_CAST, lambda x, forward, backward, **_: FAKE_CAST(x, forward, backward, overflow="saturate"))


@fault
def gradients_are_never_rounded(patch: Patch) -> None:
    swap(patch, FAKE_CAST, lambda x, forward, _, **__: x + (CAST(x.detach(), forward) - x.detach()))


@fault
def the_policy_does_nothing(patch: Patch) -> None:
    patch.setattr(mpkit.Policy, "apply", lambda self, model, **_: contextlib.nullcontext(model))


# --- formats, counts, models -----------------------------------------------------------------------------------------


@fault
def fp16_has_the_bits_of_bf16(patch: Patch) -> None:
    """Under its own name, so that only the numbers tell."""
    _replace_format(patch, mpkit.FP16, FloatFormat("FP16", 8, 7, dtype=torch.bfloat16))


@fault
def bf16_has_the_bits_of_fp16(patch: Patch) -> None:
    _replace_format(patch, mpkit.BF16, FloatFormat("BF16", 5, 10, dtype=torch.float16))


def _replace_format(patch: Patch, original: FloatFormat, broken: FloatFormat) -> None:
    patch.setitem(gradient_histogram.FORMATS, original.name, broken)
    swap(patch, original, broken)


@fault
def fp16_flushes_at_its_smallest_subnormal(patch: Patch) -> None:
    patch.setattr(FloatFormat, "flush_at", property(lambda self: self.smallest_subnormal))


@fault
def tally_counts_zeros_as_flushed(patch: Patch) -> None:
    patch.setattr(RangeReport, "flushed", property(lambda self: self._share(self.flushed_count + self.zeros)))


@fault
def tally_counts_subnormals_as_flushed(patch: Patch) -> None:
    patch.setattr(RangeReport, "flushed", property(lambda self: self._share(self.flushed_count + self.subnormal_count)))


@fault
def layers_share_their_random_numbers(patch: Patch) -> None:
    honest = models.SeedsLinear.__init__
    patch.setattr(models.SeedsLinear, "__init__", lambda self, i, o, seeds, _, init: honest(self, i, o, seeds, 0, init))


@fault
def the_loss_is_a_sum_instead_of_a_mean(patch: Patch) -> None:
    def loss(_: Any, output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target.expand_as(output), reduction="none").sum((1, 2))

    patch.setattr(models.Autoencoder, "loss", loss)
