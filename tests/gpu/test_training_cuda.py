"""Policies and training on a GPU: autocast's own lists there, gradients, records, resuming to the bit."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from autocast_table import OPS, Feed
from torch import Tensor, nn

from mpkit import DynamicScale, LossScaler, Policy, StepRecord, fit
from mpkit.data import Batches
from mpkit.emulation import is_low
from mpkit.models import MLP, Autoencoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch.cuda.is_available() is False"),
]


@pytest.mark.parametrize("name", OPS)
def test_each_operation_has_the_dtype_that_cuda_autocast_gives(name: str) -> None:
    feed = Feed("cuda")
    with torch.autocast("cuda", dtype=torch.float16):
        native = OPS[name](feed)
    with Policy.preset("fp16-mixed").apply(nn.Identity()):
        emulated = OPS[name](feed)
    assert is_low(emulated) == (native.dtype == torch.float16)


def batches(device: str) -> Batches:
    draw = torch.Generator().manual_seed(3)
    images, labels = torch.rand(512, 64, generator=draw), torch.randint(0, 10, (512,), generator=draw)
    return Batches(images.to(device), labels.to(device), 64)


def plain(device: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)


def gradients(context: AbstractContextManager[object], model: nn.Module) -> Tensor:
    inputs, labels = batches("cuda").batch(0)
    with context:
        loss = F.cross_entropy(model(inputs).float(), labels)
    (1024 * loss).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]) / 1024


@pytest.mark.parametrize(("policy", "dtype"), [("fp16-mixed", torch.float16), ("bf16-mixed", torch.bfloat16)])
def test_emulated_gradients_agree_with_cuda_autocast(policy: str, dtype: torch.dtype) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    native = gradients(torch.autocast("cuda", dtype=dtype), plain("cuda"))
    emulated_on, exact_on = plain("cuda"), plain("cuda")
    emulated = gradients(Policy.preset(policy).apply(emulated_on), emulated_on)
    exact = gradients(Policy().apply(exact_on), exact_on)
    distance = float((emulated - native).norm() / native.norm())
    exact_distance = float((exact - native).norm() / native.norm())
    assert distance < 0.25 * exact_distance
    assert distance < 2e-3


def train(
    device: str, steps: int, state: dict[str, object] | None = None
) -> tuple[list[StepRecord], dict[str, object]]:
    model = MLP(seeds=range(3)).to(device)
    model.append(nn.Dropout(0.1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    scaler = LossScaler(DynamicScale(init_scale=2.0**30, growth_interval=5))
    torch.manual_seed(11)
    run = fit(model, batches(device), optimizer=optimizer, steps=steps, scaler=scaler,
              policy=Policy.preset("fp16-mixed"))  # fmt: skip
    if state is not None:
        run.load_state_dict(state)
    return list(run), run.state_dict()


def test_a_run_on_the_gpu_resumes_to_the_bit() -> None:
    whole, _ = train("cuda", 24)
    first, state = train("cuda", 11)
    rest, _ = train("cuda", 24, state)
    assert first + rest == whole
    assert any(record.skipped for record in whole)
    assert all(0 <= record.flushed < 0.5 for record in whole)


def test_the_gpu_tells_the_story_of_the_cpu() -> None:
    """Same data, same weights: the flushed share of the autoencoder without scaling agrees within a percent."""
    shares = []
    for device in ("cpu", "cuda"):
        inputs, _ = batches(device).batch(0)
        model = Autoencoder(seeds=(0, 1)).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        data = dataclasses.replace(batches(device), targets=batches(device).inputs, batch_size=256)
        records = list(fit(model, data, optimizer=optimizer, steps=20, policy=Policy.preset("fp16-mixed")))
        shares.append(records[-1].flushed)
        assert inputs.device.type == device
    assert shares[0] > 0.05
    assert shares[1] == pytest.approx(shares[0], rel=0.02)
