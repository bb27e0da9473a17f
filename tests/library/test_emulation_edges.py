"""Where emulation meets the rest of torch: closures, checkpointing, compilers, nesting, other optimizers' tricks."""

from __future__ import annotations

import copy
import gc
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import mpkit
from mpkit import FP16, FP32, TF32, LossScaler, Meter, Policy, StaticScale, cast, fake_cast, fit
from mpkit.course.nets.models import MLP
from mpkit.formats import BF16, FloatFormat
from mpkit.training.batches import Batches

MIXED = Policy.preset("fp16-mixed")


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8))


def is_rounded(x: Tensor) -> bool:
    return torch.equal(x, x.half().float())


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_recomputes_in_the_low_format(reentrant: bool) -> None:
    model, x = small_net(), torch.randn(4, 8, requires_grad=True)

    def gradient(use: bool) -> tuple[Tensor, Meter]:
        model.zero_grad()
        meter = Meter()
        with MIXED.apply(model, meter=meter):
            y = checkpoint(model, x, use_reentrant=reentrant) if use else model(x)
            y.float().pow(2).sum().backward()
        assert model[0].weight.grad is not None
        return model[0].weight.grad.clone(), meter

    (plain, seen), (again, seen_again) = gradient(False), gradient(True)
    assert torch.equal(plain, again)
    assert seen._nonzero == seen_again._nonzero > 0


def test_a_closure_is_emulated_and_so_is_what_follows_a_failed_step() -> None:
    model, x = small_net(), torch.randn(4, 8)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)
    rounded: list[bool] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        y = model(x)
        rounded.append(is_rounded(y.detach()))
        loss = y.float().pow(2).sum()
        loss.backward()
        return loss

    def failing() -> float:
        raise RuntimeError("no")

    with MIXED.apply(model):
        optimizer.step(closure)
        with pytest.raises(RuntimeError, match="no"):
            optimizer.step(failing)
        assert is_rounded(model(x).detach())
    assert rounded
    assert all(rounded)


def test_what_is_only_added_stays_fp32_where_the_format_feeds_multipliers() -> None:
    layer = nn.Linear(2, 2)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, 1 + 2.0**-15)
    for policy in (Policy.preset("tf32"), Policy(forward=mpkit.E4M3, backward=mpkit.E5M2)):
        with policy.apply(layer):
            assert torch.equal(layer(torch.ones(1, 2)), layer.bias[None])
    with MIXED.apply(layer):
        assert torch.equal(layer(torch.ones(1, 2)), torch.ones(1, 2))


def test_a_model_stored_low_reads_low_weights_in_every_operation() -> None:
    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.tensor([1.0004]))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gamma

    model = Gain()
    with Policy.preset("fp16-master").apply(model):
        out = model(torch.tensor([1.5]))
    assert out.item() == (torch.tensor([1.5]).half() * torch.tensor([1.0004]).half()).item() == 1.5
    assert model.gamma.item() == pytest.approx(1.0004, abs=1e-7)  # the master weight itself is FP32


def test_an_inner_policy_replaces_the_outer_one() -> None:
    model, x = small_net(), torch.randn(4, 8)
    counts = []
    for nested in (False, True):
        meter = Meter()
        model.zero_grad()
        with MIXED.apply(model, meter=meter):
            if nested:
                with MIXED.apply(model, meter=meter):
                    loss = model(x).float().pow(2).sum()
            else:
                loss = model(x).float().pow(2).sum()
        loss.backward()
        counts.append(int(meter._nonzero))
    assert counts[0] == counts[1] > 0
    with MIXED.apply(model):
        low = model[0](x)
        with Policy.preset("bf16-mixed").apply(model):
            assert torch.equal(model[2](low), model[2](cast(low, BF16)))


def test_apply_without_with_says_so() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MIXED.apply(small_net())
        gc.collect()
    assert any("was called without `with`" in str(w.message) for w in caught)
    with pytest.raises(TypeError, match=r"a torch\.nn\.Module is asked for, but a Tensor came"):
        MIXED.apply(torch.ones(2))  # type: ignore[arg-type]


def test_a_compiler_may_not_remove_the_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1000)
    expected = fake_cast(x, FP16, FP16)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(Tensor, "to", lambda self, *_args, **_kw: self)  # what a compiler makes of the pair
    assert torch.equal(fake_cast(x, FP16, FP16), expected)


@pytest.mark.parametrize("fmt", [TF32, BF16, FloatFormat("e8m12", 8, 12)], ids=str)
def test_flush_to_zero_does_not_hurt_normal_numbers(fmt: FloatFormat) -> None:
    x = torch.randn(1000) * 1e-36
    expected = [cast(x, fmt, rounding) for rounding in ("nearest", "zero", "up")]
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        found = [cast(x, fmt, rounding) for rounding in ("nearest", "zero", "up")]
    finally:
        torch.set_flush_denormal(False)
    normal = x.abs() > 2 * FP32.smallest_normal
    assert int(normal.sum()) > 900
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a[normal], b[normal])


def test_a_negated_view_keeps_its_sign_and_sparse_tensors_are_refused() -> None:
    assert cast(torch._neg_view(torch.tensor([1.5, 2.5])), FP16).tolist() == [-1.5, -2.5]
    with pytest.raises(TypeError, match="a dense tensor is asked for"):
        cast(torch.eye(2).to_sparse(), FP16)


def data() -> Batches:
    draw = torch.Generator().manual_seed(1)
    return Batches(torch.rand(64, 64, generator=draw), torch.randint(0, 10, (64,), generator=draw), 32)


def test_grad_norm_is_that_of_the_optimizer_s_parameters() -> None:
    model = MLP()
    head = model.linear_layers()[-1]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.0)
    scaled = [
        r.grad_norm for r in fit(model, data(), optimizer=optimizer, steps=4, scaler=LossScaler(StaticScale(1024.0)))
    ]
    plain = [r.grad_norm for r in fit(model, data(), optimizer=optimizer, steps=4)]
    assert scaled == pytest.approx(plain, rel=1e-5)


def test_an_interrupted_step_does_not_block_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MLP()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = fit(model, data(), optimizer=optimizer, steps=3, scaler=LossScaler(StaticScale(8.0)))
    next(run)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optimizer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(run)
    assert run.state_dict()["step"] == 1
    assert [record.step for record in run] == [1, 2]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("policy", "fp16-mixed", r"policy is asked to be a Policy, but a str came; write mpkit\.Policy\.preset"),
        (
            "scaler",
            mpkit.DynamicScale(),
            r"scaler is asked to be a LossScaler, but a DynamicScale came; write mpkit\.Loss",
        ),
        ("scaler", torch.amp.GradScaler("cpu"), "a LossScaler, but a GradScaler came"),
        ("steps", 1.5, "steps=1.5; use 0 or more, and a whole number"),
    ],
)
def test_fit_names_cause_and_cure(name: str, value: object, text: str) -> None:
    model = MLP()
    settings = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "steps": 1, name: value}
    with pytest.raises((TypeError, ValueError), match=text):
        fit(model, data(), **settings)  # type: ignore[arg-type]


def test_fit_refuses_lbfgs() -> None:
    model = MLP()
    with pytest.raises(TypeError, match="LBFGS needs a closure"):
        fit(model, data(), optimizer=torch.optim.LBFGS(model.parameters()), steps=1)


@pytest.mark.parametrize("engine", ["emulated", "native"])
def test_master_weights_are_copied_as_they_are(engine: str) -> None:
    """Low weights are what the model reads while it computes. Outside of that its FP32 weights are FP32."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    kept = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    with Policy(BF16, BF16, BF16, FP32, FP32).apply(model, engine=engine):
        model(torch.randn(2, 4)).float().sum().backward()
        copied = copy.deepcopy(model)
        cloned = {name: p.detach().clone() for name, p in model.named_parameters()}
    for name, p in copied.named_parameters():
        for found in (p.detach(), cloned[name]):
            assert np.array_equal(found.numpy(), kept[name]), name


class Scaled(nn.Module):
    """Its factor is computed from parameters alone."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.full((8,), 0.3)), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (self.scale * self.scale)


@pytest.mark.parametrize("reentrant", [False, True])
def test_low_weights_are_read_when_a_part_runs_again(reentrant: bool) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(Scaled(), Scaled()), torch.randn(4, 8, requires_grad=True)
    policy = Policy.preset("fp16-master")

    class Whole(nn.Module):
        def __init__(self, inner: nn.Module, use: bool) -> None:
            super().__init__()
            self.inner, self.use = inner, use

        def forward(self, x: Tensor) -> Any:
            return checkpoint(self.inner, x, use_reentrant=reentrant) if self.use else self.inner(x)

    def run(use: bool) -> list[Tensor]:
        whole = Whole(model, use)
        model.zero_grad()
        with policy.apply(whole):
            whole(x).float().pow(2).sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    for a, b in zip(run(True), run(False), strict=True):
        assert torch.equal(a, b)
