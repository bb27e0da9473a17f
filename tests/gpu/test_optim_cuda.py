"""Wrappers around optimizers on a GPU: fused kernels, real 16-bit weights, both scalers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpkit
from mpkit import BF16, FP16, FP32
from mpkit.optim.wrappers import Kahan, MasterWeights, Rounded

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

KEEPERS: dict[str, Any] = {
    "master": MasterWeights,
    "nearest": Rounded,
    "stochastic": lambda optimizer, fmt: Rounded(optimizer, fmt, "stochastic"),
    "kahan": Kahan,
}


def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16)).to("cuda", dtype)


def batch(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    draw = torch.Generator("cuda").manual_seed(0)
    return (torch.randn(32, n, generator=draw, device="cuda").to(dtype) for n in (64, 16))  # type: ignore[return-value]


def train(model: nn.Module, optimizer: Any, steps: int, scaler: Any = None) -> list[float]:
    inputs, targets = batch(next(model.parameters()).dtype)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs).float(), targets.float())
        (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        losses.append(loss.item())
    return losses


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("keeper", KEEPERS)
@pytest.mark.parametrize("settings", [{"fused": True}, {"foreach": True}, {"foreach": False}], ids=str)
def test_in_fp32_every_wrapper_is_the_plain_optimizer(keeper: str, settings: dict[str, bool]) -> None:
    plain, wrapped = net(), net()
    train(plain, torch.optim.Adam(plain.parameters(), lr=0.01, **settings), 6)
    train(wrapped, KEEPERS[keeper](torch.optim.Adam(wrapped.parameters(), lr=0.01, **settings), FP32), 6)
    assert same(plain, wrapped)


@pytest.mark.parametrize("keeper", KEEPERS)
@pytest.mark.parametrize("fmt", [BF16, FP16])
def test_a_run_with_real_16_bit_weights_resumes_to_the_bit(keeper: str, fmt: Any) -> None:
    models = [net(fmt.dtype) for _ in range(3)]
    first, second, third = (KEEPERS[keeper](torch.optim.Adam(m.parameters(), lr=1e-3, fused=True), fmt) for m in models)
    train(models[0], first, 8)
    train(models[1], second, 5)
    models[2].load_state_dict(models[1].state_dict())
    third.load_state_dict(copy.deepcopy(second.state_dict()))
    train(models[2], third, 3)
    assert same(models[0], models[2])
    assert next(models[0].parameters()).dtype == fmt.dtype


def test_stochastic_rounding_is_right_in_the_mean() -> None:
    param = nn.Parameter(torch.ones(100_000, device="cuda", dtype=torch.bfloat16))
    optimizer = Rounded(torch.optim.SGD([param], lr=1.0), BF16, "stochastic")
    for _ in range(20):
        param.grad = torch.full_like(param, -BF16.epsilon / 4)
        optimizer.step()
    spacings = (param.detach().float() - 1) / BF16.epsilon
    assert abs(spacings.mean().item() - 5) < 5 * (20 * 3 / 16 / 100_000) ** 0.5
    assert abs(optimizer.updates.lost_share - 0.75) < 0.005


@pytest.mark.parametrize("keeper", ["master", "kahan", "stochastic"])
def test_a_real_fp16_model_learns_with_either_scaler(keeper: str) -> None:
    """Model, activations and gradients in FP16 all the way; the wrapper alone knows FP32."""
    ends = []
    for scaler in (mpkit.LossScaler(), torch.amp.GradScaler("cuda")):
        model = net(torch.float16)
        optimizer = KEEPERS[keeper](torch.optim.Adam(model.parameters(), lr=1e-3), FP16)
        losses = train(model, optimizer, 200, scaler)
        assert losses[-1] < 0.05 * losses[0]
        ends.append(model)
    assert same(*ends)
