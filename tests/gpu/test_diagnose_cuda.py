"""`diagnose` and `guard` on a CUDA device: the same patients, and a captured step that is withheld."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpkit import BF16, CapturedStep, DynamicScale, LossScaler, Policy, diagnose, guard
from mpkit.course.clinic import PATIENTS
from mpkit.course.clinic.follow import follow
from mpkit.training.step import TrainStep

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("name", [name for name, patient in PATIENTS.items() if patient.form != "checkpoint"])
def test_patients_have_the_same_illness_on_a_gpu(name: str) -> None:
    patient = PATIENTS[name]
    case = patient.build(True, 0, "cuda")
    follow(case, patient.after)
    with case.around():
        found = diagnose(case.step, model=case.model, optimizer=case.optimizer, scaler=case.scaler,
                         scheduler=case.scheduler, ema=case.ema, batch=case.batch)  # fmt: skip
    assert (found.kind, patient.where in found.where) == (patient.kind, True), str(found)


def captured(policy: str = "fp16-mixed") -> tuple[TrainStep, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, fused=True)
    scaler = LossScaler(DynamicScale(1024.0))
    step = TrainStep(model, optimizer, Policy.preset(policy), scaler, nn.functional.cross_entropy, "native")
    return step, torch.randn(64, 16, device="cuda"), torch.randint(0, 4, (64,), device="cuda")


def test_a_captured_step_is_withheld_and_run_again_uncaptured() -> None:
    work, inputs, targets = captured()
    step = CapturedStep(work, inputs, targets)
    guarded = guard(step, work.model, work.optimizer, work.scaler)
    guarded(inputs, targets)
    before = {k: v.clone() for k, v in work.model.state_dict().items()}
    bad = inputs.clone()
    bad[3] = 1e6
    guarded(bad, targets)
    [event] = guarded.events
    assert (event.step, event.scale) == (1, 1024.0)
    assert event.first is not None
    assert event.first.module == "0"
    assert all(torch.equal(v, before[k]) for k, v in work.model.state_dict().items())
    guarded(inputs, targets)
    assert len(guarded.events) == 1
    assert not torch.equal(work.model[0].weight, before["0.weight"])  # type: ignore[index, union-attr]


def test_a_captured_step_goes_on_as_without_a_guard() -> None:
    ends: list[Any] = []
    for guarded in (False, True):
        work, inputs, targets = captured()
        step: Any = CapturedStep(work, inputs, targets)
        if guarded:
            step = guard(step, work.model, work.optimizer, work.scaler)
        for _ in range(5):
            step(inputs, targets)
        ends.append(work.model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ends[0].values(), ends[1].values(), strict=True))


def test_bf16_weights_on_a_gpu_are_diagnosed_too() -> None:
    model = nn.Linear(64, 1, bias=False).cuda().to(BF16.dtype)
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    x = torch.randn(128, 64, device="cuda", dtype=BF16.dtype)

    def step(batch: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(batch).float().square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    found = diagnose(step, model=model, optimizer=optimizer, batch=x)
    assert (found.kind, found.where) == ("lost update", "parameter weight"), str(found)
