"""Lesson 02's tables on a CUDA device: what its text says of every device, asked of the GPU's own kernels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mpkit.course.lesson_02.kernel_survey import by_hand, hard_inputs, planted, survey

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch.cuda.is_available() is False"),
]
GPU = "cuda"


def test_ordinary_inputs_and_limits_are_the_cpus() -> None:
    assert repr(survey(GPU)) == repr(survey())
    assert repr(by_hand(GPU)) == repr(by_hand())
    assert repr(planted(GPU)) == repr(planted())


def test_fp32_inside_is_right_to_a_rounding_for_hard_inputs() -> None:
    for row in hard_inputs(GPU):
        assert row.runs
        assert row.widened is not None
        if row.name == "matmul":  # its 4,096 products nearly cancel: sums in FP32 round too, though far less
            assert row.widened.spacings < row.spacings
        else:
            assert row.widened.spacings < 1.5, row


def test_a_sure_model_s_loss_survives_in_fp32_and_not_in_fp16_steps() -> None:
    sure, right = torch.tensor([8.0, 0.0], dtype=torch.float16, device=GPU), torch.tensor([0], device=GPU)
    assert float((sure - sure.max()).exp().sum().log()) == 0
    assert float(F.cross_entropy(sure.float()[None], right)) == pytest.approx(math.log1p(math.exp(-8)), rel=1e-3)


def test_under_autocast_the_loss_is_taken_in_fp32_in_one_call_and_in_two() -> None:
    logits, right = torch.tensor([[9.0, 0.0]], dtype=torch.float16, device=GPU), torch.tensor([0], device=GPU)
    with torch.autocast(GPU, dtype=torch.float16):
        for loss in (F.cross_entropy(logits, right), F.nll_loss(logits.log_softmax(-1), right)):
            assert float(loss) == pytest.approx(math.log1p(math.exp(-9)), rel=1e-2)
        assert torch.addcmul(logits, logits, logits.float()).dtype == torch.float32, "the widest"
        assert logits.mean().dtype == logits.var().dtype == torch.float16, "on no list"
        with pytest.raises(RuntimeError, match="binary_cross_entropy_with_logits"):
            F.binary_cross_entropy(logits.sigmoid(), torch.ones_like(logits))
