"""A lesson is only worth running if it notices a broken library: each fault must change what some cell shows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lesson_cells import Difference, cells, first_difference, without_training
from pytest import MonkeyPatch
from torch import Tensor

import mpkit
from mpkit import casting, loss_scaler, models, overflow, recording, scaling, step_result
from mpkit.formats import FloatFormat
from mpkit.loss_scaler import LossScaler
from mpkit.policy import Policy
from mpkit.scaling import DynamicScale
from mpkit.unscaling import GradientPlan, reciprocal, step_fused
from mpkit.widgets import gradient_histogram

TRAINERS = ("watch", "compare")  # what they train takes half a minute; no fault here needs it

Fault = Callable[[MonkeyPatch], None]


class NoPicture:
    """Stands for the panel's figure: these tests compare text, and drawing is the slowest part of a cell."""

    def __init__(self, *_: object) -> None:
        pass

    def show(self, *_: object) -> None:
        """Draw nothing."""

    def png(self) -> bytes:
        """An empty picture."""
        return b""


@pytest.fixture(autouse=True)
def strict_and_unpainted(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("MPKIT_STRICT", "1")
    monkeypatch.setattr(gradient_histogram, "GradientHistogramFigure", NoPicture)


def replay() -> Difference | None:
    """Lesson 04 without its long training cells; the first cell that shows something else than was stored."""
    return first_difference(without_training(cells("04"), TRAINERS))


def swap(patch: MonkeyPatch, original: Any, new: Any) -> None:
    """Put `new` in the place of `original` in every module of mpkit that has imported it."""
    places = [
        (module, name)
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").split(".")[0] == "mpkit"
        for name, value in list(vars(module).items())
        if value is original
    ]
    assert places, f"nothing in mpkit is {original!r}"
    for module, name in places:
        patch.setattr(module, name, new)


# --- the scaler --------------------------------------------------------------------------------------------------


def never_unscaled(patch: MonkeyPatch) -> None:
    swap(patch, reciprocal, torch.ones_like)
    swap(patch, step_fused, lambda optimizer, _, found_inf: step_fused(optimizer, None, found_inf))


def unscaled_twice(patch: MonkeyPatch) -> None:
    swap(patch, step_fused, lambda opt, scale, flag: step_fused(opt, None if scale is None else scale * scale, flag))


def loss_never_scaled(patch: MonkeyPatch) -> None:
    patch.setattr(LossScaler, "_scaled", lambda self, outputs: (self._on_device(outputs.device), outputs)[1])


def scale_is_always_one(patch: MonkeyPatch) -> None:
    patch.setattr(scaling.StaticScale, "init", lambda self: scaling.ScaleState(1.0))


def check_always_clean(patch: MonkeyPatch) -> None:
    honest = GradientPlan.check_and_unscale

    def clean(plan: GradientPlan, inv_scale: Tensor) -> bool:
        result = honest(plan, inv_scale)
        plan.found_inf.zero_()
        return result

    patch.setattr(GradientPlan, "check_and_unscale", clean)


def skipped_step_is_applied(patch: MonkeyPatch) -> None:
    swap(patch, step_fused, lambda opt, scale, flag: step_fused(opt, scale, torch.zeros_like(flag)))


def never_grows(patch: MonkeyPatch) -> None:
    honest = DynamicScale.update_tensors

    def update(self: DynamicScale, scale: Tensor, tracker: Tensor, found_inf: Tensor) -> None:
        tracker.zero_()
        honest(self, scale, tracker, found_inf)

    patch.setattr(DynamicScale, "update_tensors", update)


def never_backs_off(patch: MonkeyPatch) -> None:
    honest = DynamicScale.update_tensors
    patch.setattr(
        DynamicScale, "update_tensors", lambda self, scale, tracker, flag: honest(self, scale, tracker, flag * 0)
    )


# --- rounding ----------------------------------------------------------------------------------------------------


def cast_cuts_off(patch: MonkeyPatch) -> None:
    swap(patch, casting.cast, lambda x, fmt, rounding="zero", *rest: HONEST_CAST(x, fmt, "zero", *rest))


def cast_saturates(patch: MonkeyPatch) -> None:
    swap(patch, casting.cast, lambda x, fmt, *_: HONEST_CAST(x, fmt, overflow="saturate"))


def cast_flushes_subnormals(patch: MonkeyPatch) -> None:
    def flush(x: Tensor, fmt: FloatFormat, *rest: Any) -> Tensor:
        return torch.where(x.abs() < fmt.smallest_normal, 0.0, HONEST_CAST(x, fmt, *rest))

    swap(patch, casting.cast, flush)


HONEST_CAST, HONEST_FAKE_CAST = casting.cast, casting.fake_cast


def emulation_cuts_off(patch: MonkeyPatch) -> None:
    swap(patch, casting.fake_cast, lambda x, forward=None, backward=None, observe=None: HONEST_FAKE_CAST(
        x, forward, backward, rounding="zero", observe=observe))


def emulation_saturates(patch: MonkeyPatch) -> None:
    swap(patch, casting.fake_cast, lambda x, forward=None, backward=None, observe=None: HONEST_FAKE_CAST(
        x, forward, backward, overflow="saturate", observe=observe))


def gradients_never_rounded(patch: MonkeyPatch) -> None:
    swap(patch, casting.fake_cast, lambda x, forward=None, backward=None, observe=None: HONEST_FAKE_CAST(x, forward, None, rounding="nearest", observe=lambda *_: None))


def operands_never_rounded(patch: MonkeyPatch) -> None:
    swap(patch, casting.fake_cast, lambda x, forward=None, backward=None, observe=None: HONEST_FAKE_CAST(x, None, backward, observe=observe))


def policy_does_nothing(patch: MonkeyPatch) -> None:
    import contextlib
    patch.setattr(Policy, "apply", lambda self, model, engine="emulated", meter=None: contextlib.nullcontext(model))


# --- formats and counts ------------------------------------------------------------------------------------------


def flush_at_the_smallest_subnormal(patch: MonkeyPatch) -> None:
    patch.setattr(FloatFormat, "flush_at", property(lambda fmt: fmt.smallest_subnormal))


def overflow_at_max(patch: MonkeyPatch) -> None:
    patch.setattr(FloatFormat, "overflow_at", property(lambda fmt: fmt.max))


def bf16_is_fp16(patch: MonkeyPatch) -> None:
    bf = mpkit.BF16
    swap(patch, bf, mpkit.FP16)
    patch.setitem(gradient_histogram.FORMATS, "BF16", mpkit.FP16)


def fp16_is_bf16(patch: MonkeyPatch) -> None:
    swap(patch, mpkit.FP16, mpkit.BF16)
    patch.setitem(gradient_histogram.FORMATS, "FP16", mpkit.BF16)


def tally_flushed_over_all(patch: MonkeyPatch) -> None:
    patch.setattr(overflow.RangeReport, "_share", lambda self, count: count / self.total)

def tally_flushed_is_subnormal(patch: MonkeyPatch) -> None:
    patch.setattr(overflow.RangeReport, "flushed", property(lambda self: self._share(self.flushed_count + self.subnormal_count)))

def tally_flushed_with_zeros(patch: MonkeyPatch) -> None:
    patch.setattr(overflow.RangeReport, "flushed", property(lambda self: self._share(self.flushed_count + self.zeros)))


def seeds_share_weights(patch: MonkeyPatch) -> None:
    init = models.SeedsLinear.__init__
    patch.setattr(models.SeedsLinear, "__init__", lambda self, i, o, seeds, *rest: init(self, i, o, [0]*len(seeds), *rest))

def layers_share_weights(patch: MonkeyPatch) -> None:
    init = models.SeedsLinear.__init__
    patch.setattr(models.SeedsLinear, "__init__", lambda self, i, o, seeds, layer=0, *rest: init(self, i, o, seeds, 0, *rest))


def loss_is_a_sum(patch: MonkeyPatch) -> None:
    import torch.nn.functional as F
    patch.setattr(models.Autoencoder, "loss", lambda self, output, target: F.mse_loss(output, target.expand_as(output), reduction="none").sum((1, 2)))


def always_says_stepped(patch: MonkeyPatch) -> None:
    patch.setattr(step_result.StepResult, "stepped", property(lambda self: True))


def cosine_of_the_wrong(patch):
    patch.setattr(recording, "cosine", lambda a, b: 1.0)

FAULTS = {k: v for k, v in list(globals().items()) if callable(v) and getattr(v, "__module__", "") == __name__ and k not in ("NoPicture", "strict_and_unpainted", "replay", "swap")}


def test_a_healthy_library_shows_what_is_stored() -> None:
    assert replay() is None


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_library_changes_the_lesson(name: str, monkeypatch: MonkeyPatch) -> None:
    FAULTS[name](monkeypatch)
    difference = replay()
    print(f"{name}: {difference}")
    assert difference is not None
