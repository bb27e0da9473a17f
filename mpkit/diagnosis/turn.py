"""What a step does with the gradients of one optimizer, from backward to its step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

SCALER = ("scale", "unscale_", "step", "update")  # what a loop calls of its scaler


def same_optimizer(a: Any, b: Any) -> bool:
    """The same, or one that wraps the other: a wrapper has the groups of what it wraps."""
    return a is b or a.param_groups is b.param_groups


@dataclass
class Turn:
    """One optimizer, and which calls concerned it.

    Attributes:
        optimizer: as it was given. own: the ids of its parameters.
        unscaled: unscale_ was called with it. unscaled_other: unscale_ got another object that holds its parameters.
        clip: the call that clipped its gradients first, or None. clip_scaled: they carried the scale then.
        clip_norm, max_norm: what clipping measured, and what it allowed.
        ended: it was about to step, or to skip. stepped: its step was taken.
    """

    optimizer: Any
    own: set[int] = field(init=False)
    unscaled: bool = False
    unscaled_other: bool = False
    clip: str | None = None
    clip_scaled: bool = False
    clip_norm: float | None = None
    max_norm: float = math.inf
    ended: bool = False
    stepped: bool = False

    def __post_init__(self) -> None:
        self.own = {id(p) for group in self.optimizer.param_groups for p in group["params"]}

    def takes(self, optimizer: Any) -> bool:
        """Is it this optimizer?"""
        return same_optimizer(optimizer, self.optimizer)

    def gets(self, optimizer: Any) -> None:
        """unscale_ was called with `optimizer`."""
        self.unscaled |= optimizer is self.optimizer
        groups = getattr(optimizer, "param_groups", [])
        self.unscaled_other |= optimizer is not self.optimizer and any(
            id(p) in self.own for group in groups for p in group["params"]
        )

    def concerns(self, parameters: Iterable[Tensor]) -> bool:
        """Is one of these parameters its own?"""
        return any(id(p) in self.own for p in parameters)

    def clipped(self, call: str, norm: float | None = None, largest: float = math.inf) -> None:
        """Its gradients are clipped by this call."""
        if self.clip is None:
            self.clip, self.clip_scaled = call, not (self.unscaled or self.unscaled_other)
        self.clip_norm, self.max_norm = norm, largest


def gradients(params: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Those of these parameters as float32, divided by the scale; complex ones as pairs, sparse ones dense."""
    kept: dict[str, Tensor] = {}
    for name, parameter in params.items():
        if (grad := parameter.grad) is not None:
            dense = _dense(grad)
            kept[name] = dense.float() / scale if scale else dense.float()
    return kept


def gradient_norm(params: Iterable[Tensor]) -> float:
    """That of all their gradients together, NaN counted as 1. One wait for the device, if there are any."""
    norms = [torch.linalg.vector_norm(_dense(p.grad), dtype=torch.float32) for p in params if p.grad is not None]
    return float(torch.stack(norms).norm().nan_to_num(nan=1.0)) if norms else 0.0


def _dense(grad: Tensor) -> Tensor:
    dense = grad.detach().to_dense() if grad.layout != torch.strided else grad.detach()
    return torch.view_as_real(dense) if dense.is_complex() else dense
