"""Healthy runs of models in the manner of the big families: trace names no cause, in any mode."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from real.families import FAMILIES, make
from torch import nn

from mpkit.formats import FP16, FloatFormat
from mpkit.policy.policy import Policy
from mpkit.tracing import glance as reading
from mpkit.tracing.watch import Trace, trace

Mode = tuple[FloatFormat | None, Callable[[nn.Module], AbstractContextManager[Any]], float]

# What the run is held against, what it runs in, and the loss scale, without which small gradients do leave FP16.
MODES: dict[str, Mode] = {
    "fp32": (None, lambda model: nullcontext(), 1.0),
    "fp32 held against FP16": (FP16, lambda model: nullcontext(), 1024.0),
    "fp16 emulated": (None, lambda model: Policy.preset("fp16-mixed").apply(model, engine="emulated"), 1024.0),
    "bf16 emulated": (None, lambda model: Policy.preset("bf16-mixed").apply(model, engine="emulated"), 1.0),
    "fp16 autocast": (None, lambda model: torch.autocast("cpu", torch.float16), 1024.0),
    "bf16 autocast": (None, lambda model: torch.autocast("cpu", torch.bfloat16), 1.0),
}


def run(family: str, mode: str, seed: int = 0, steps: int = 2) -> Trace:
    fmt, context, scale = MODES[mode]
    model, batch = make(family, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01 / scale)
    with trace(model, fmt) as watched:
        for _ in range(steps):
            optimizer.zero_grad()
            with context(model):
                loss = model(*batch)
                (loss * scale).backward()
            optimizer.step()
            assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    return watched


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_healthy_run_is_quiet(family: str, mode: str) -> None:
    watched = run(family, mode)
    assert watched.first is None, str(watched.first)
    assert watched.events == []


@pytest.mark.parametrize("mode", ["fp32", "fp16 emulated"])
@pytest.mark.parametrize("family", ["t5", "mixture", "swin"])
def test_a_healthy_run_is_quiet_in_batches(family: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where many looks are judged together."""
    monkeypatch.setattr(reading, "IMMEDIATE", set())
    watched = run(family, mode)
    assert watched.first is None, str(watched.first)


def test_twenty_runs_of_swin() -> None:
    """Its DropPath takes uninitialised memory; it was named in 8 of 20 runs."""
    assert [str(run("swin", "fp16 emulated", seed, steps=1).first) for seed in range(20)] == ["None"] * 20


def test_what_t5_discards_is_still_there_to_be_seen() -> None:
    harmless = run("t5", "fp32", steps=1).harmless
    assert {(event.module, event.operation) for event in harmless} == {("attention", "log"), ("(model)", "add")}
