"""LossScaler and torch's GradScaler train real kinds of models to the same bits: 25 steps, overflows among them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import GradScaler

from mpkit import LossScaler

STEPS, BATCH = 25, 6
# Where a loss becomes Inf or NaN; 3 and 4 in a row, so that the scale shrinks twice between two growths.
PLANTED = {3: math.inf, 4: math.inf, 9: math.nan, 17: -math.inf, 24: math.nan}


class Attention(nn.Module):
    """One block of a causal transformer, with a tied output layer: a parameter that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(11, 8), nn.LayerNorm(8)
        self.qkv, self.out, self.feed = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return F.linear(x + F.gelu(self.feed(x)), self.embed.weight).transpose(1, 2)


class Convolution(nn.Module):
    """Convolutions with batch norm and a skip, as in a residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.stem(images))
        return self.head((x + F.relu(self.norm(self.conv(x)))).mean((2, 3)))


class Recurrent(nn.Module):
    """An LSTM whose last state is classified; its embedding has a frozen neighbour."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.frozen = nn.Embedding(11, 5), nn.Embedding(11, 5).requires_grad_(False)
        self.lstm, self.head = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):  # not every CPU has this layer in bfloat16
            states, _ = self.lstm(self.embed(tokens) + self.frozen(tokens))
        return self.head(states[:, -1])


def words(classes: int, each: bool) -> Callable[[int], tuple[Tensor, Tensor]]:
    def batch(step: int) -> tuple[Tensor, Tensor]:
        draw = torch.Generator().manual_seed(step)
        shape = (BATCH, 7) if each else (BATCH,)
        return torch.randint(11, (BATCH, 7), generator=draw), torch.randint(classes, shape, generator=draw)

    return batch


def images(step: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    return torch.randn(BATCH, 1, 8, 8, generator=draw), torch.randint(3, (BATCH,), generator=draw)


MODELS: dict[str, tuple[type[nn.Module], Callable[[int], tuple[Tensor, Tensor]]]] = {
    "attention": (Attention, words(11, each=True)),
    "convolution": (Convolution, images),
    "recurrent": (Recurrent, words(3, each=False)),
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01),
    "fused adam": lambda params: torch.optim.Adam(params, lr=0.01, fused=True),
}


def train(scaler: Any, model: nn.Module, make: Callable[[Any], torch.optim.Optimizer],
          data: Callable[[int], tuple[Tensor, Tensor]], clip: bool, parts: int) -> list[Any]:  # fmt: skip
    """Per step: did the weights move, the scale after it, and all weights and optimizer state as bytes."""
    optimizer, told = make(p for p in model.parameters() if p.requires_grad), []
    for step in range(STEPS):
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.zero_grad()
        for part, (x, y) in enumerate(zip(*(t.chunk(parts) for t in data(step)), strict=True)):
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(x).float(), y) / parts
            bad = PLANTED.get(step, 1.0) if part == parts - 1 else 1.0
            scaler.scale(loss * bad).backward()
        if clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        state = [v for held in optimizer.state.values() for v in held.values() if isinstance(v, Tensor)]
        moved = any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        bits = b"".join(t.detach().numpy().tobytes() for t in (*model.parameters(), *model.buffers(), *state))
        told.append((moved, scaler.get_scale(), bits))
    return told


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
def test_weights_scale_and_skips_are_grad_scalers(name: str, optimizer: str, clip: bool, parts: int) -> None:
    make, data = MODELS[name]
    model = make()
    numbers: dict[str, Any] = {"init_scale": 2.0**13, "growth_interval": 4}
    theirs = train(GradScaler("cpu", **numbers), copy.deepcopy(model), OPTIMIZERS[optimizer], data, clip, parts)
    ours = train(LossScaler("cpu", **numbers), copy.deepcopy(model), OPTIMIZERS[optimizer], data, clip, parts)
    assert [moved for moved, *_ in theirs] == [step not in PLANTED for step in range(STEPS)], "the oracle skips there"
    assert len({scale for _, scale, _ in theirs}) > 2, "its scale shrinks and grows"
    assert ours == theirs


def test_that_one_bit_would_be_seen() -> None:
    make, data = MODELS["recurrent"]
    model, other = make(), GradScaler("cpu", init_scale=2.0**13, growth_interval=4, backoff_factor=0.25)
    theirs = train(other, copy.deepcopy(model), OPTIMIZERS["sgd"], data, True, 1)
    ours = train(LossScaler("cpu", init_scale=2.0**13, growth_interval=4), model, OPTIMIZERS["sgd"], data, True, 1)
    assert ours[:3] == theirs[:3]
    assert ours[3] != theirs[3]
