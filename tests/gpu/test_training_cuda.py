"""Policies and training on a GPU: autocast's own lists there, gradients, records, resuming to the bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from oracles.autocast_table import OPS, Feed
from oracles.reference_models import SCALE, autoencoder, classifier, conv_net, distance, images, labels
from torch import Tensor, nn

from mpkit import DynamicScale, LossScaler, Policy, StepRecord, fit
from mpkit.course.nets.models import MLP, Autoencoder
from mpkit.policy.emulation import is_low
from mpkit.training.batches import Batches

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


def gradients(make: Callable[[], nn.Module], context: Callable[[nn.Module], AbstractContextManager[object]]) -> Tensor:
    """All gradients of one step on the GPU at a loss scale of 1024, unscaled."""
    model, inputs = make().cuda(), images().cuda()
    target = inputs if make is autoencoder else labels().cuda()
    loss_fn = F.mse_loss if make is autoencoder else F.cross_entropy
    with context(model):
        loss = loss_fn(model(inputs).float(), target)
    (SCALE * loss).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]) / SCALE


@pytest.mark.parametrize(
    ("make", "policy", "limit"),
    [  # limits: a few times what an H200 gave; FP16 rounds by up to 2^-11 = 4.9e-4, BF16 by up to 3.9e-3
        (classifier, "fp16-mixed", 4.9e-4),
        (classifier, "bf16-mixed", 3.9e-3),
        (autoencoder, "fp16-mixed", 4.9e-4),
        (autoencoder, "bf16-mixed", 3.9e-3),
        (conv_net, "fp16-mixed", 4.9e-4),
        (conv_net, "bf16-mixed", 3.9e-3),
    ],
)
def test_emulated_gradients_agree_with_cuda_autocast(make: Callable[[], nn.Module], policy: str, limit: float) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    dtype = torch.float16 if policy == "fp16-mixed" else torch.bfloat16
    native = gradients(make, lambda _: torch.autocast("cuda", dtype=dtype))
    emulated = gradients(make, Policy.preset(policy).apply)
    exact = gradients(make, Policy().apply)
    print(f"{make.__name__} {policy}: emulated {distance(emulated, native):.1e}, FP32 {distance(exact, native):.1e}")
    assert distance(emulated, native) < limit
    assert distance(emulated, native) < distance(exact, native)


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
