"""Ordinary modules that know nothing of mpkit, and their gradients under any context."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 1024.0


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def autoencoder() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise((64, 64, 32, 16, 32, 64, 64)):
        layer = nn.Linear(fan_in, fan_out)
        nn.init.xavier_uniform_(layer.weight)
        layers += [layer, nn.Sigmoid()]
    return nn.Sequential(*layers)


class ConvNet(nn.Module):
    """Convolutions, batch norm, pooling, dropout, an activation in place, and a residual that is added in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first_norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.body, self.second_norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.pool, self.relu, self.dropout = nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.first_norm(self.stem(x.view(-1, 1, 8, 8)))))
        out = self.second_norm(self.body(x))
        out += x
        pooled = F.adaptive_avg_pool2d(self.relu(out), 1).flatten(1)
        return self.head(self.dropout(pooled))


def conv_net() -> nn.Module:
    torch.manual_seed(0)
    return ConvNet().eval()


def images() -> Tensor:
    return torch.rand(64, 64, generator=torch.Generator().manual_seed(1))


def labels() -> Tensor:
    return torch.randint(0, 10, (64,), generator=torch.Generator().manual_seed(2))


def loss_of(make: Callable[[], nn.Module], output: Tensor) -> Tensor:
    """In FP32, whatever the output is stored in."""
    return F.mse_loss(output.float(), images()) if make is autoencoder else F.cross_entropy(output.float(), labels())


def gradients(
    make: Callable[[], nn.Module], context: Callable[[nn.Module], AbstractContextManager[object]], dtype: torch.dtype
) -> Tensor:
    """All gradients of one backward pass at a loss scale of 1024, unscaled, as one float32 vector."""
    model = make().to(dtype)
    with context(model):
        loss = loss_of(make, model(images().to(dtype)))
    (SCALE * loss).backward()
    return torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None]) / SCALE


def distance(a: Tensor, b: Tensor) -> float:
    """Euclidean distance as a share of b's length."""
    return float((a - b).norm() / b.norm())
