"""LossScaler on a CUDA device: no wait for the host, capture in a graph, every gradient dtype."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from mpkit.scaling import DynamicScale, preset
from mpkit.scaling.loss_scaler import LossScaler

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture
def no_wait() -> Iterator[None]:
    """Make every wait for the device an error."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def parameter(*values: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(values, device="cuda"))


@pytest.mark.parametrize("rule", [preset("mpkit"), preset("torch"), DynamicScale(min_scale=None, max_scale=2.0**20)])
def test_a_fused_step_never_waits(rule: Any, no_wait: None) -> None:
    p, gradient = parameter(1.0, 1.0), torch.tensor([1.0, math.inf], device="cuda")
    scaler, optimizer = LossScaler(rule), torch.optim.SGD([p], lr=1.0, fused=True)
    for attempt in range(3):
        if attempt:
            torch.cuda.set_sync_debug_mode("error")
        optimizer.zero_grad()
        scaler.scale((p * gradient).sum()).backward()
        result = scaler.step(optimizer)
        scaler.update()
    torch.cuda.set_sync_debug_mode("default")
    assert (result.stepped, result.inf_count, result.scale) == (False, 1, 2.0**14)
    assert p.tolist() == [1.0, 1.0]


def clipped_steps(values: list[list[float]]) -> Any:
    """unscale_, clip_grad_norm_ and a fused step with each of these gradients; after the first, a wait is an error."""
    p, q = parameter(*[1.0] * len(values[0])), parameter(1.0)
    scaler, optimizer = LossScaler("cuda"), torch.optim.Adam([("q", q), ("p", p)], lr=0.1, fused=True)
    all_given = torch.tensor([[1.0] * len(values[0]), *values], device="cuda").unbind()
    for attempt, given in enumerate(all_given):
        torch.cuda.set_sync_debug_mode("error" if attempt else "default")
        optimizer.zero_grad()
        scaler.scale((p * given).sum() + q.sum()).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_([p, q], 1.0)
        result = scaler.step(optimizer)
        scaler.update()
    torch.cuda.set_sync_debug_mode("default")
    return result, p, scaler


@pytest.mark.parametrize(("bad", "kind"), [(math.inf, "Inf"), (math.nan, "NaN")])
def test_name_and_kind_outlive_clipping_without_a_wait(bad: float, kind: str, no_wait: None) -> None:
    result, p, scaler = clipped_steps([[1.0, 2.0], [1.0, bad]])
    assert result.reason.startswith(f"skipped: {kind}, first in p; how many is not known")
    assert scaler.get_scale() == 2.0**15
    with pytest.raises(RuntimeError, match="how many is not known"):
        _ = result.inf_count
    assert bool(p.isfinite().all())


def test_a_clean_clipped_step_never_waits(no_wait: None) -> None:
    result, *_ = clipped_steps([[1.0, 2.0], [0.5, -1.0]])
    assert (result.reason, result.first_bad) == ("stepped", None)


def test_counts_are_exact_while_nobody_clips(no_wait: None) -> None:
    p, scaler = parameter(1.0, 1.0, 1.0), LossScaler("cuda")
    optimizer = torch.optim.SGD([("p", p)], lr=1.0, fused=True)
    scaler.scale((p * torch.tensor([1.0, math.inf, math.nan], device="cuda")).sum()).backward()
    scaler.unscale_(optimizer)
    result = scaler.step(optimizer)
    scaler.update()
    assert result.reason == "skipped: 1 Inf and 1 NaN, first in p"


def test_a_scaler_that_is_not_enabled_never_waits(no_wait: None) -> None:
    p, scaler = parameter(1.0), LossScaler("cuda", enabled=False)
    optimizer = torch.optim.SGD([p], lr=1.0)
    p.grad = torch.ones_like(p)
    scaler.step(optimizer)
    torch.cuda.set_sync_debug_mode("error")
    result = scaler.step(optimizer)
    scaler.update()
    torch.cuda.set_sync_debug_mode("default")
    assert (result.stepped, result.scale, p.item()) == (True, 1.0, -1.0)


def test_grad_scaler_on_the_same_steps() -> None:
    """Weights and scales to the bit, with two optimizers over one parameter, each with gradients of its own."""
    told = []
    for scaler in (LossScaler("cuda", growth_interval=3), torch.amp.GradScaler("cuda", growth_interval=3)):
        p = parameter(0.5, -0.25)
        optimizers = [torch.optim.SGD([p], lr=0.1, fused=True), torch.optim.Adam([p], lr=0.1)]
        for step in range(12):
            for which, optimizer in enumerate(optimizers):
                optimizer.zero_grad(set_to_none=bool(step % 2))
                bad = math.inf if step % 5 == which + 1 else 1.0
                scaler.scale((p * torch.tensor([0.3 * step, bad], device="cuda")).sum()).backward()
                scaler.step(optimizer)
            scaler.update()
        told.append((p.tolist(), scaler.get_scale()))
    assert told[0] == told[1]


def test_a_captured_step_skips_shrinks_and_grows() -> None:
    p, gradient = parameter(0.0), torch.ones(1, device="cuda")
    scaler = LossScaler(DynamicScale(growth_interval=2))
    optimizer = torch.optim.SGD([p], lr=1.0, fused=True)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        scaler.scale((p * gradient).sum()).backward()
        result = scaler.step(optimizer)
        scaler.update()
        return result

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    seen = []
    for value in (1.0, math.inf, 1.0, 1.0, math.nan):
        gradient.fill_(value)
        graph.replay()
        seen.append((result.stepped, p.item(), result.scale, scaler.get_scale()))
    high, low = 2.0**17, 2.0**16
    assert seen == [
        (True, -2.0, low, high),
        (False, -2.0, high, low),
        (True, -3.0, low, low),
        (True, -4.0, low, high),
        (False, -4.0, high, low),
    ]
    assert result.reason.startswith("skipped: 0 Inf and 1 NaN")


def test_the_first_scale_may_not_be_captured() -> None:
    one, scaler = torch.ones((), device="cuda"), LossScaler()
    with (
        pytest.raises(RuntimeError, match=r"the first scale\(\) happened inside the capture of a CUDA graph"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        scaler.scale(one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_dtype_is_unscaled_and_tested(dtype: torch.dtype) -> None:
    values = torch.randn(1000, device="cuda").to(dtype)
    p = torch.nn.Parameter(torch.zeros_like(values))
    scaler, optimizer = LossScaler(preset("torch")), torch.optim.SGD([p], lr=1.0)
    scaler.scale(torch.ones((), device="cuda"))
    p.grad = values.clone()
    scaler.unscale_(optimizer)
    assert torch.equal(p.grad, values / 65536)
    assert scaler.step(optimizer).stepped
    scaler.update()
    p.grad = values.clone()
    p.grad[7] = math.inf
    assert scaler.step(optimizer).inf_count == 1


def test_gradients_on_two_devices_share_one_decision() -> None:
    here, there, scaler = parameter(1.0), torch.nn.Parameter(torch.ones(1)), LossScaler()
    optimizer = torch.optim.SGD([("gpu", here), ("cpu", there)], lr=1.0)
    for bad, wanted in ((1.0, [0.0, 0.0]), (math.inf, [0.0, 0.0])):
        optimizer.zero_grad()
        scaler.scale([here.sum(), there.sum() * bad])[0].backward()
        scaler.scale(there.sum() * bad).backward()
        result = scaler.step(optimizer)
        scaler.update()
        assert [here.item(), there.item()] == wanted
    assert (result.stepped, result.first_bad) == (False, "cpu")


def test_the_reciprocal_is_that_of_grad_scaler() -> None:
    scales = torch.cat([torch.rand(2**22, device="cuda") * 2.0**k for k in (-20, 0, 5, 16, 40)])
    assert torch.equal(scales.reciprocal(), scales.double().reciprocal().float())
