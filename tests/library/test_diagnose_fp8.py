"""Casts below 16 bits in a run in FP32: there are none where mpkit makes them; where torch does, the proof says so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpkit
from mpkit import E4M3, E5M2, FP16, TF32, Policy, diagnose
from mpkit.diagnosis.exam import Exam
from mpkit.diagnosis.run import Subject
from mpkit.scaled import MXFP8

CASTS: dict[str, Callable[[Tensor], Tensor]] = {
    "cast": lambda x: mpkit.cast(x, E4M3),
    "cast to TF32": lambda x: mpkit.cast(x, TF32),
    "fake_cast": lambda x: mpkit.fake_cast(x, E4M3, E5M2),
    "scaled_cast": lambda x: mpkit.scaled_cast(x, MXFP8),
    "of a half": lambda x: mpkit.cast(x.half(), FP16).float(),
}


def training(around: Callable[[Tensor], Tensor] = lambda x: x) -> tuple[nn.Module, Tensor, Callable[[Tensor], Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 32))

    def step(x: Tensor) -> Tensor:
        model.zero_grad()
        loss = model(around(x)).square().mean()
        loss.backward()
        return loss  # type: ignore[no-any-return]

    return model, torch.randn(8, 32), step


def in_fp32() -> list[Tensor]:
    """The gradients without any cast."""
    model, x, step = training()
    step(x)
    return [p.grad for p in model.parameters() if p.grad is not None]


def exam_of(model: nn.Module, step: Any, x: Tensor) -> Exam:
    return Exam(Subject(step, model, None, None, None, None, x))


@pytest.mark.parametrize("name", CASTS)
def test_casts_of_mpkit_are_none(name: str) -> None:
    model, x, step = training(CASTS[name])
    exam = exam_of(model, step, x)
    assert any(not torch.equal(a, b) for a, b in zip(exam.base.grads.values(), in_fp32(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(exam.fp32.grads.values(), in_fp32(), strict=True))
    assert not exam.fp32.left


@pytest.mark.parametrize("where", ["in the step", "around diagnose"])
@pytest.mark.parametrize("policy", ["fp8-mixed", "mxfp8", "int8-mixed", "fp16-mixed", "bf16-true"])
def test_policies_are_none_wherever_they_were_entered(policy: str, where: str) -> None:
    model, x, inner = training()
    chosen = Policy.preset(policy)

    def step(x: Tensor) -> Tensor:
        with chosen.apply(model) if where == "in the step" else nullcontext():
            return inner(x)

    wanted = in_fp32()
    if policy == "bf16-true":  # it rounds the weights in place when it is entered, so compare with rounded ones
        model, x, inner = training()
        chosen.store_(model.parameters())
        inner(x)
        wanted = [p.grad for p in model.parameters() if p.grad is not None]
    with chosen.apply(model) if where == "around diagnose" else nullcontext():
        exam = exam_of(model, step, x)
        assert any(not torch.equal(a, b) for a, b in zip(exam.base.grads.values(), wanted, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(exam.fp32.grads.values(), wanted, strict=True))


@pytest.mark.parametrize("policy", ["bf16-true", "fp16-mixed"])
def test_what_is_put_back_inside_of_a_policy_is_not_rounded(policy: str) -> None:
    model, x, inner = training()
    inner(x)
    before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    with Policy.preset(policy).apply(model):
        diagnose(inner, model=model, batch=x)
    after = [p.grad for p in model.parameters()]
    assert all(b is not None and torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_cast_of_torch_stays_and_the_proof_says_so() -> None:
    """All of its own, as the scales and products of FP8 need it; here it loses half of what it is given."""

    def lossy(x: Tensor) -> Tensor:
        return (x * 1e-4).to(torch.float8_e4m3fn).float() / 1e-4

    model, x, step = training(lossy)

    def whole(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            return step(x * 1e7)

    found = diagnose(whole, model=model, batch=x)
    assert found.kind == "overflow", str(found)
    assert found.proof.endswith("In that run, too, the step casts to float8_e4m3fn by torch's own cast.")
