"""A third verdict: finite, and not what FP32 gives. What is only noise stays healthy, and is called so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import Diagnosis, diagnose

DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def diagnosed(model: nn.Module, loss_of: Callable[[Any], Tensor], batch: Any, dtype: torch.dtype = torch.bfloat16,
              before: int = 0, lr: float = 0.01) -> Diagnosis:  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr)

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype):
            loss = loss_of(batch).float()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(before):
        step(batch)
    return diagnose(step, model=model, optimizer=optimizer, batch=batch)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("root", [False, True])
def test_a_difference_of_nearly_equal_numbers_is_no_healthy_step(root: bool, seed: int) -> None:
    """The variance as E[x²] - E[x]², far from 0: in BF16 little or nothing of it is left."""
    torch.manual_seed(seed)
    model, x = nn.Linear(8, 1), torch.randn(32, 8)

    def loss(x: Tensor) -> Tensor:
        h = model(x) + (100 if root else 300)  # its bias changes no variance
        v = (h * h).mean() - h.mean() * h.mean()
        return (h / (v.abs() + 1e-3).sqrt()).mean() if root else v

    found = diagnosed(model, loss, x)
    assert (found.kind, found.where.split(".")[0]) in (
        ("lost digits", "gradient weight"),
        ("lost digits", "gradient bias"),
    )
    assert "It is no noise: with every weight moved by one spacing of the 16-bit format" in found.proof
    assert "% from FP32's. The loss is" in found.cause
    control = diagnosed(model, lambda x: (model(x).float() + 300).var(), x)  # in FP32, and no difference of squares
    assert control.healthy, str(control)


@DTYPES
def test_a_model_that_has_learnt_all_is_healthy_and_its_noise_is_called_noise(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    x = torch.randn(32, 8)
    labels = (x[:, 0] > 0).long()
    found = diagnosed(model, lambda x: F.cross_entropy(model(x), labels), x, dtype, before=800, lr=0.5)
    assert found.healthy, str(found)
    assert "Nothing was found" in found.cause
    assert dtype == torch.float16 or "as near the end of a training, and that is noise." in found.proof


@DTYPES
def test_a_regression_at_the_floor_of_its_format_is_healthy(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(8, 1), torch.randn(64, 8)
    found = diagnosed(model, lambda x: F.mse_loss(model(x).float(), x.sum(1, keepdim=True)), x, dtype, 300, 0.1)
    assert found.healthy, str(found)


@DTYPES
def test_gradients_that_are_zero_by_mathematics_are_noise(dtype: torch.dtype) -> None:
    """The bias in front of batch norm, and that of the keys of attention."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
    x, labels = torch.randn(64, 8), torch.randint(0, 3, (64,))
    assert diagnosed(model, lambda x: F.cross_entropy(model(x), labels), x, dtype).healthy
    maps = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
    words = torch.randn(16, 10, 16)

    def attention(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*(one(x) for one in maps)).square().mean()

    attended = diagnosed(maps, attention, words, dtype)
    assert attended.healthy, str(attended)


def test_dropout_is_not_held_against_fp32_and_that_is_said() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 1))
    found = diagnosed(model, lambda x: model(x).square().mean(), torch.randn(16, 8))
    assert found.healthy
    assert "It was not held against FP32: the step draws random numbers" in found.proof
