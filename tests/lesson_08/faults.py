"""Faults that lesson 08 must notice: in attention, in sums, in scaling, in the masks, in the recorded figures."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from harness.fault import Fault, Patch, collector, swap
from torch import Tensor

from mpkit.casting import cast
from mpkit.course.arithmetic.accumulate import total
from mpkit.course.lesson_08 import attention as panel
from mpkit.course.lesson_08 import trial as attention_trial
from mpkit.course.nets import attention, text
from mpkit.course.nets.attention import ATTENTION
from mpkit.course.nets.text import TextBatches
from mpkit.course.recorded.transformer import TransformerRecord
from mpkit.formats import BF16, FP16, FloatFormat
from mpkit.policy.policy import PRESETS
from mpkit.scaling import loss_scaler
from mpkit.scaling.loss_scaler import LossScaler

FAULTS: dict[str, Fault] = {}
fault = collector(FAULTS)
UNSEEN: set[str] = set()
UNPAINTED = [(panel, "AttentionFigure")]
assert (attention.ATTENTION, loss_scaler.LossScaler) == (ATTENTION, LossScaler)


def forget(patch: Patch) -> None:
    """Keep results that a fault has spoiled out of the cache, and those that were kept out of the fault."""
    swap(patch, attention_trial.attention_trial, attention_trial.attention_trial.__wrapped__)


@fault
def dividing_first_divides_last(patch: Patch) -> None:
    patch.setitem(ATTENTION, "scale before", ATTENTION["scale after"])


@fault
def nobody_divides_by_the_root(patch: Patch) -> None:
    def undivided(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
        root = query.shape[-1] ** 0.5
        return ATTENTION["scale before"](query * root, key, value, causal)

    patch.setitem(ATTENTION, "scale after", undivided)
    patch.setitem(ATTENTION, "fused", ATTENTION["scale before"])


@fault
def normalized_queries_are_not(patch: Patch) -> None:
    patch.setattr(F, "rms_norm", lambda x, size: x)


@fault
def the_softmax_keeps_its_largest_score(patch: Patch) -> None:
    honest = attention_trial._rounded_softmax
    patch.setattr(attention_trial, "_rounded_softmax", lambda s, softmax, fmt: honest(s, "in 16 bits, no max", fmt))
    forget(patch)


@fault
def sums_are_always_wide(patch: Patch) -> None:
    def wide(terms: Tensor, fmt: FloatFormat, how: Any = "sequential") -> Tensor:
        return total(terms, fmt, "fp32")

    swap(patch, total, wide)
    forget(patch)


@fault
def kahan_forgets(patch: Patch) -> None:
    def forgetful(terms: Tensor, fmt: FloatFormat, how: Any = "sequential") -> Tensor:
        return total(terms, fmt, "sequential" if how == "kahan" else how)

    swap(patch, total, forgetful)


@fault
def overflow_saturates(patch: Patch) -> None:
    patch.setattr(attention_trial, "cast", lambda x, fmt: cast(x, fmt, overflow="saturate"))
    forget(patch)


@fault
def bf16_is_fp16(patch: Patch) -> None:
    patch.setitem(PRESETS, "bf16-mixed", PRESETS["fp16-mixed"])


@fault
def fp16_is_bf16(patch: Patch) -> None:
    patch.setitem(PRESETS, "fp16-mixed", PRESETS["bf16-mixed"])


@fault
def the_backward_pass_is_not_rounded(patch: Patch) -> None:
    patch.setitem(PRESETS, "fp16-mixed", PRESETS["article"])


@fault
def nobody_unscales(patch: Patch) -> None:
    patch.setattr(LossScaler, "unscale_", lambda self, optimizer: None)


@fault
def every_character_counts(patch: Patch) -> None:
    patch.setattr(text, "CHOSEN", 0.5)


@fault
def masks_hide_nothing(patch: Patch) -> None:
    honest = TextBatches.batch

    def shown(self: TextBatches, step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = honest(self, step)
        return torch.where(targets >= 0, targets, inputs), targets

    patch.setattr(TextBatches, "batch", shown)


@fault
def the_record_mixes_up_two_rows(patch: Patch) -> None:
    honest = TransformerRecord.load.__func__  # type: ignore[attr-defined]

    def load(cls: Any, *arguments: Any) -> TransformerRecord:
        record = honest(cls, *arguments)
        speed = {model: {**rows, "fp16-mixed": rows["tf32"]} for model, rows in record.speed.items()}
        return dataclasses.replace(record, speed=speed)

    patch.setattr(TransformerRecord, "load", classmethod(load))


assert FP16 != BF16
