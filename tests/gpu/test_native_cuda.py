"""The native engine on a GPU: real FP16, BF16 and TF32 agree with emulation, tensor by tensor and run by run."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from oracles.reference_models import SCALE, autoencoder, classifier, conv_net, distance, images, labels
from torch import Tensor, nn

from mpkit import BF16, FP16, TF32, DynamicScale, FloatFormat, LossScaler, Policy, cast, fit
from mpkit.course.nets.models import MLP
from mpkit.course.nets.transformer import Transformer
from mpkit.rounding import round_to
from mpkit.training.batches import Batches

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
PRESETS = ["fp32", "tf32", "fp16-true", "fp16-master", "fp16-mixed", "bf16-true", "bf16-mixed", "article"]
ROUNDING = {"fp32": 1e-5, "tf32": 2 * TF32.epsilon, "bf16-true": 2 * BF16.epsilon, "bf16-mixed": 2 * BF16.epsilon}


def tiny() -> nn.Module:
    return Transformer(20, seed=1)


def gradients(make: Callable[[], nn.Module], policy: str, engine: str) -> Tensor:
    model, inputs, target = make().cuda(), images().cuda(), labels().cuda()
    if make is tiny:
        inputs = target = torch.randint(0, 20, (8, 32), generator=torch.Generator().manual_seed(1)).cuda()
    with Policy.preset(policy).apply(model, engine=engine):
        out = model(inputs)
        if make is tiny:
            out, target = out.flatten(0, 1), target.flatten()
        loss = F.mse_loss(out, inputs.to(out.dtype)) if make is autoencoder else F.cross_entropy(out, target)
        (SCALE * loss).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]) / SCALE


@pytest.mark.parametrize("make", [classifier, autoencoder, conv_net, tiny])
@pytest.mark.parametrize("policy", PRESETS)
def test_gradients_agree_within_the_formats_rounding(make: Callable[[], nn.Module], policy: str) -> None:
    native, emulated = gradients(make, policy, "native"), gradients(make, policy, "emulated")
    limit = ROUNDING.get(policy, 2 * FP16.epsilon)
    print(f"{make.__name__} {policy}: {distance(native, emulated):.1e} of {limit:.1e}")
    assert distance(native, emulated) < limit


@pytest.mark.parametrize("policy", ["tf32", "fp16-mixed", "bf16-mixed", "article", "fp16-true"])
def test_runs_agree_within_the_spread_of_the_seeds(policy: str) -> None:
    draw = torch.Generator().manual_seed(3)
    inputs, targets = torch.randn(512, 64, generator=draw), torch.randint(0, 10, (512,), generator=draw)
    data, ends = Batches(inputs.cuda(), targets.cuda(), 64), {}
    for engine in ("native", "emulated"):
        model = MLP(seeds=range(5)).cuda()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
        run = fit(model, data, optimizer=sgd, steps=150, policy=Policy.preset(policy), engine=engine,
                  scaler=LossScaler(DynamicScale(2.0**12)), measure_flushed=False)  # fmt: skip
        ends[engine] = list(run)[-1].losses
    spread = statistics.stdev(ends["emulated"])
    gap = abs(statistics.fmean(ends["native"]) - statistics.fmean(ends["emulated"]))
    print(f"{policy}: gap {gap:.2g}, spread of the seeds {spread:.2g}")
    assert gap < spread


@pytest.mark.parametrize("fmt", [FP16, BF16])
def test_every_float32_number(fmt: FloatFormat) -> None:
    """All 2^32 of them: `cast`, and the arithmetic that also serves formats without hardware, against the hardware."""
    assert fmt.dtype is not None
    size = 2**26
    for start in range(-(2**31), 2**31, size):
        x = torch.arange(start, start + size, dtype=torch.int32, device="cuda").view(torch.float32)
        hardware = x.to(fmt.dtype).float()
        number = ~x.isnan()
        for mine in (cast(x, fmt), round_to(x, fmt, "nearest", None, "inf")):
            assert torch.equal(mine.isnan(), hardware.isnan())
            assert torch.equal(mine.view(torch.int32)[number], hardware.view(torch.int32)[number])
