"""The rows that run on a CPU: casts, counts, the scaler, the emulated policy, and the time to import."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit.bench.measure import Case, Sampler, timed
from mpkit.casting import cast
from mpkit.formats import BF16, E4M3, E5M2, FP16, TF32, FloatFormat
from mpkit.scaling.divider import Divider

E5M7 = FloatFormat("e5m7", exponent_bits=5, mantissa_bits=7)
# The bars are multiples of x.clone(), the least that any rounding can cost. What stands in their way, on one core of a
# Zen 3 server: torch's two conversions take 1.5 (FP16) to 1.7 (BF16), of which 0.7 to 0.9 are arithmetic in the cache;
# of a stochastic cast the random numbers alone take 2 to 3.
CAST_BARS = {FP16: 1.5, BF16: 1.5, TF32: 4.0, E4M3: 4.0, E5M2: 4.0, E5M7: 4.0}
STOCHASTIC_BAR = 10.0
HISTOGRAM_BAR = 4.0
IMPORT_BAR = 1.05


def cases(elements: int) -> list[Case]:
    """Every CPU row, for tensors of `elements` float32 values."""
    return [
        *_cast_cases(elements),
        Case("exponent histogram", "x.clone()", lambda: _histogram(elements), HISTOGRAM_BAR),
        Case("found_inf", "isnan().any() + isinf().any()", lambda: _found_inf(elements)),
        Case(
            "LossScaler.unscale_, 64 tensors",
            'GradScaler("cpu").unscale_',
            lambda: unscale_pair("cpu", _split(elements), explicit=True),
        ),
        Case("MLP step with LossScaler", 'the same with GradScaler("cpu")', lambda: step_pair("cpu", False)),
        Case("emulated fp16-mixed MLP step", 'torch.autocast("cpu", float16)', lambda: _policy_pair("autocast")),
        Case("emulated fp16-mixed MLP step", "FP32", lambda: _policy_pair("fp32")),
        Case("import mpkit", "import torch", _import_pair, IMPORT_BAR),
    ]


def _cast_cases(elements: int) -> list[Case]:
    def against_clone(fmt: FloatFormat, rounding: Any) -> tuple[Sampler, Sampler]:
        x = torch.randn(elements)
        return timed(lambda: cast(x, fmt, rounding)), timed(x.clone)

    def against_torch(fmt: FloatFormat) -> tuple[Sampler, Sampler]:
        x = torch.randn(elements)
        assert fmt.dtype is not None
        return timed(lambda: cast(x, fmt)), timed(lambda: x.to(fmt.dtype).float())

    nearest = [
        Case(f"cast to {fmt}", "x.clone()", partial(against_clone, fmt, "nearest"), bar)
        for fmt, bar in CAST_BARS.items()
    ]
    own = [
        Case(f"cast to {fmt}", f"x.to({fmt.dtype}).float()", partial(against_torch, fmt)) for fmt in (FP16, E4M3, E5M2)
    ]
    stochastic = [
        Case(f"cast to {fmt}, stochastic", "x.clone()", partial(against_clone, fmt, "stochastic"), STOCHASTIC_BAR)
        for fmt in CAST_BARS
    ]
    return [*nearest, *own, *stochastic]


def _histogram(elements: int) -> tuple[Sampler, Sampler]:
    from mpkit.histogram import ExponentHistogram

    x = torch.randn(elements)
    return timed(lambda: ExponentHistogram.of(x)), timed(x.clone)


def _found_inf(elements: int) -> tuple[Sampler, Sampler]:
    from mpkit.overflow import found_inf

    x = torch.randn(elements)
    return timed(lambda: bool(found_inf([x]))), timed(lambda: bool(x.isnan().any() + x.isinf().any()))


def _split(elements: int) -> list[tuple[int, ...]]:
    return [(max(1, elements // 64),)] * 64


def scalers(device: str, init_scale: float) -> tuple[Any, Any]:
    """Our scaler and torch's, with the same rule and start."""
    from mpkit.scaling import DynamicScale, preset
    from mpkit.scaling.loss_scaler import LossScaler

    rule = preset("torch")
    assert isinstance(rule, DynamicScale)
    return LossScaler(replace(rule, init_scale=init_scale)), torch.amp.GradScaler(device, init_scale=init_scale)


def parameters(device: str, shapes: list[tuple[int, ...]]) -> list[nn.Parameter]:
    """Parameters of these shapes, each with a gradient."""
    params = [nn.Parameter(torch.randn(shape, device=device)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p) * 1e-3
    return params


def unscale_pair(device: str, shapes: list[tuple[int, ...]], explicit: bool = False) -> tuple[Sampler, Sampler]:
    """Time check and division alone: both scalers forget between two calls that they did it, which costs nothing.

    GradScaler's `step` calls its `unscale_`. Ours does less than its own `unscale_`, which also notes for every
    parameter what was in its gradient, since somebody may clip before the step; with `explicit` that is timed.
    The scale is 1, so that the gradients stay what they are however often they are unscaled.
    """
    ours, theirs = scalers(device, 1.0)
    optimizer = torch.optim.SGD(parameters(device, shapes), lr=1e-6)
    for scaler in (ours, theirs):
        scaler.scale(torch.zeros((), device=device))

    def our_call() -> None:
        if explicit:
            ours.unscale_(optimizer)
        else:
            tensors, plan = ours._plan(optimizer, "step()")
            ours._check(tensors, plan, optimizer, Divider.SCALER, "step()")
        ours._iteration.abandon()

    def their_call() -> None:
        theirs.unscale_(optimizer)
        theirs._per_optimizer_states.clear()

    return timed(our_call), timed(their_call)


def mlp(device: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A small network with a batch of 256."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)).to(device)
    return model, torch.randn(256, 256, device=device), torch.randint(10, (256,), device=device)


def step_pair(device: str, fused: bool) -> tuple[Sampler, Sampler]:
    """Time a whole step (forward, scale, backward, unscale_, step, update) of a small MLP under either scaler.

    On a GPU the forward pass runs under autocast to float16; on a CPU in FP32, where float16 would hide the scaler.
    """

    def step(scaler: Any) -> Callable[[], None]:
        model, x, y = mlp(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, fused=fused)

        def call() -> None:
            with torch.autocast(device, torch.float16, enabled=device == "cuda"):
                loss = F.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

        return call

    ours, theirs = scalers(device, 2.0**10)
    return timed(step(ours)), timed(step(theirs))


def _policy_pair(peer: str) -> tuple[Sampler, Sampler]:
    from mpkit.policy.policy import Policy

    policy = Policy.preset("fp16-mixed")

    def step(under: Callable[[nn.Module], Any]) -> Callable[[], None]:
        model, x, y = mlp("cpu")
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

        def call() -> None:
            with under(model):
                loss = F.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

        return call

    autocast = torch.autocast("cpu", torch.float16, enabled=peer == "autocast")
    return timed(step(policy.apply)), timed(step(lambda _: autocast))


def _import_pair() -> tuple[Sampler, Sampler]:
    def sampler(module: str) -> Sampler:
        code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        run = [sys.executable, "-c", code]
        return lambda: float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)

    return sampler("mpkit"), sampler("torch")
