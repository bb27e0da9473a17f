"""`diagnose` on models in the manner of the big families: quiet on healthy ones, right where a fault is planted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from real.families import FAMILIES, make
from real.test_planted import FAULTS
from torch import Tensor, nn

from mpkit import Diagnosis, LossScaler, Policy, diagnose
from mpkit.scaling import DynamicScale

CONTEXTS: dict[str, Callable[[nn.Module], AbstractContextManager[Any]]] = {
    "fp32": lambda model: nullcontext(),
    "fp16 autocast": lambda model: torch.autocast("cpu", torch.float16),
    "bf16 autocast": lambda model: torch.autocast("cpu", torch.bfloat16),
    "fp16 emulated": lambda model: Policy.preset("fp16-mixed").apply(model),
}
# What is wrong with each; where FP32 has no value either, it is mathematics, whatever the trace calls it.
EXPECTED = {
    "a linear layer overflows": ("overflow", "layers.0.up"),
    "attention scores overflow": ("overflow", "layers.1.attention"),
    "a row is masked fully": ("invalid", "softmax in attention"),
    "log(0) reaches the loss": ("invalid", "log in (model)"),
    "sqrt at 0 in backward": ("invalid", "gradient of sqrt in norm"),
    "sqrt at 0 in backward, emulated": ("invalid", "gradient of sqrt in blocks.1.norm2"),
    "a norm divides by 0": ("invalid", "div in blocks.0.norm1"),
    "pow overflows in RMSNorm": ("overflow", "(model)"),  # the words themselves overflow first
    "a step grows without bound": ("invalid", "exp in (model)"),
    "a convolution overflows": ("poisoned state", "low.1.running_mean"),  # batch norm keeps what it made
    "attention in one function overflows": ("invalid", "blocks.1.attention"),
    "a user's backward pass": ("invalid", "gradient of Steep in words.1"),
}


def diagnosed(family: str, mode: str, plant: Callable[[nn.Module], object] | None, ours: bool) -> Diagnosis:
    """The usual loop, with clipping, a scheduler and a scaler."""
    model, batch = make(family)
    if plant is not None:
        plant(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    half = "fp16" in mode
    scaler: Any = (LossScaler(DynamicScale(1024.0), enabled=half) if ours
                   else torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=half))  # fmt: skip

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        with CONTEXTS[mode](model):
            loss: Tensor = model(*batch)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() >= before:
            scheduler.step()
        return loss

    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = diagnose(step, model=model, optimizer=optimizer, scaler=scaler, scheduler=scheduler, batch=batch)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    return found


@pytest.mark.parametrize("mode", CONTEXTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_quiet_on_healthy_runs(family: str, mode: str) -> None:
    found = diagnosed(family, mode, None, ours=mode == "fp16 emulated")
    assert found.healthy, str(found)


@pytest.mark.parametrize("mode", ["fp16 autocast", "fp16 emulated"])
@pytest.mark.parametrize("name", EXPECTED)
def test_a_planted_fault_is_named_with_its_kind_and_place(name: str, mode: str) -> None:
    fault = FAULTS[name]
    found = diagnosed(fault.family, mode, fault.plant, ours=mode == "fp16 emulated")
    kind, where = EXPECTED[name]
    assert (found.kind, where in found.where) == (kind, True), str(found)
    assert "FP32" in found.proof
