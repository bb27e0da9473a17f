"""`diagnose` on the clinic's patients, sick and cured; that it changes nothing; and what it says to bad input."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import Diagnosis, LossScaler, StaticScale, diagnose, diagnose_checkpoint
from mpkit.course.clinic import PATIENTS
from mpkit.course.clinic.follow import follow
from mpkit.diagnosis import KINDS

AFTER = {"zero-grad-after-skip": 60, "stale-scale": 40}  # steps before it shows
# Cured, they live with a batch that overflows: it is withheld as it should be, and it still does overflow.
STILL = {"poisoned-batch-norm": "linear in inner", "clipped-inf": "gradient of float"}


def diagnosed(name: str, sick: bool, seed: int) -> Diagnosis:
    case = PATIENTS[name].build(sick, seed)
    follow(case, AFTER.get(name, 0))
    with case.around():
        if case.state is not None:
            optimizer = case.optimizer if "optimizer" in case.state else None
            return diagnose_checkpoint(case.state, case.model, optimizer, case.scaler)
        return diagnose(case.step, model=case.model, optimizer=case.optimizer, scaler=case.scaler,
                        scheduler=case.scheduler, ema=case.ema, batch=case.batch)  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", PATIENTS)
def test_a_patient_gets_the_right_diagnosis_and_a_healthy_one_none(name: str, seed: int) -> None:
    patient, found = PATIENTS[name], diagnosed(name, True, seed)
    assert (found.kind, patient.where in found.where) == (patient.kind, True), str(found)
    assert found.steps <= 9
    assert found.healthy or ((found.cause and found.proof and "\n" in found.cure) or found.kind == "poisoned state")
    cured = diagnosed(name, False, seed)
    if name in STILL:
        assert (cured.kind, cured.where.startswith(STILL[name])) == ("overflow", True), str(cured)
    else:
        assert cured.healthy, str(cured)


def everything(case: Any) -> dict[str, Any]:
    """All that must be as it was."""
    kept = {f"model {k}": v for k, v in case.model.state_dict().items()}
    kept |= {f"gradient {n}": p.grad for n, p in case.model.named_parameters() if p.grad is not None}
    for name, one in (("optimizer", case.optimizer), ("scaler", case.scaler), ("scheduler", case.scheduler)):
        if one is not None:
            kept[name] = str(one.state_dict())
    if case.ema is not None:
        kept |= {f"ema {k}": v for k, v in case.ema.state_dict().items()}
    return copy.deepcopy(kept) | {"random": torch.get_rng_state()}


@pytest.mark.parametrize("name", [n for n, p in PATIENTS.items() if p.form != "checkpoint"])
def test_everything_is_put_back(name: str) -> None:
    case = PATIENTS[name].build(True, 0)
    follow(case, 3)
    before, addresses = everything(case), [p.data_ptr() for p in case.model.parameters()]
    dtypes = [p.dtype for p in case.model.parameters()]
    with case.around():
        diagnose(case.step, model=case.model, optimizer=case.optimizer, scaler=case.scaler, scheduler=case.scheduler,
                 ema=case.ema, batch=case.batch)  # fmt: skip
    after = everything(case)
    assert before.keys() == after.keys()
    for key, value in before.items():
        same = (
            torch.equal(value.nan_to_num(), after[key].nan_to_num())
            if isinstance(value, Tensor)
            else value == after[key]
        )
        assert same, key
    assert [p.data_ptr() for p in case.model.parameters()] == addresses
    assert [p.dtype for p in case.model.parameters()] == dtypes
    assert torch.optim.Optimizer.zero_grad.__qualname__ == "Optimizer.zero_grad"
    assert torch.autograd.backward.__module__ == "torch.autograd"


def regression(width: int = 8) -> tuple[nn.Module, torch.optim.Optimizer, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = nn.Linear(width, 1)
    x = torch.randn(64, width)
    return model, torch.optim.SGD(model.parameters(), lr=0.05), (x, x.sum(1, keepdim=True))


def test_a_loop_that_steps_past_its_scaler() -> None:
    """optimizer.step() in place of scaler.step(optimizer): gradients still carry the scale."""
    model, optimizer, batch = regression()
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = F.mse_loss(model(batch[0]).float(), batch[1])
        scaler.scale(loss).backward()
        optimizer.step()
        return loss

    found = diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=batch)
    assert (found.kind, found.where) == ("order", "scaler.step (missing)")
    assert "still carry the loss scale, 256" in found.cause


def test_a_static_scale_that_is_too_high() -> None:
    model, optimizer, batch = regression()
    scaler = LossScaler(StaticScale(2.0**24))

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = F.mse_loss(model(batch[0]).float(), batch[1])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    found = diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=batch)
    assert (found.kind, found.where) == ("loss scale", "scaler"), str(found)


def test_a_nan_in_the_data_is_named_and_so_is_a_number_that_fp16_lacks() -> None:
    model, optimizer, (x, y) = regression()
    x[3, 2] = float("nan")

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss

    found = diagnose(step, model=model, optimizer=optimizer)
    assert found.kind == "invalid"  # without a batch, data cannot be told from mathematics
    found = diagnose(lambda batch: step(), model=model, optimizer=optimizer, batch=(x, y))
    assert (found.kind, found.where) == ("data", "the batch")
    assert "1 values" in found.cause

    def masked() -> Tensor:
        scores = model(torch.ones(4, 8)).half().masked_fill(torch.tensor([[True], [False]] * 2), -1e9)
        return scores.float().sum()

    found = diagnose(masked, model=model)
    assert found.kind == "overflow"
    assert "without overflow" in found.cause


def test_what_the_step_raises_is_raised_and_the_state_is_put_back() -> None:
    model, optimizer, _ = regression()
    before = model.weight.detach().clone()  # type: ignore[operator]

    def step() -> None:
        with torch.no_grad():
            model.weight.add_(1)  # type: ignore[operator]
        raise KeyError("labels")

    with pytest.raises(KeyError, match="labels"):
        diagnose(step, model=model, optimizer=optimizer)
    assert torch.equal(model.weight, before)  # type: ignore[arg-type]


@pytest.mark.parametrize(("call", "text"), [
    (lambda: diagnose(3, model=nn.Linear(1, 1)),  # type: ignore[arg-type]
     r"step must be a function that runs forward and backward, but int came; pass the function itself"),
    (lambda: diagnose(print, model=3), r"model must be an nn\.Module, but int came\."),  # type: ignore[arg-type]
    (lambda: diagnose(print, model=nn.Linear(1, 1), ema={}),  # type: ignore[arg-type]
     r"ema must be an nn\.Module, but dict came\."),
    (lambda: diagnose_checkpoint([], nn.Linear(1, 1)),  # type: ignore[arg-type]
     r"state must be the dict that torch\.load gave, but list came\."),
])  # fmt: skip
def test_bad_arguments_are_refused(call: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        call()


def test_a_diagnosis_reads_well() -> None:
    said = str(diagnosed("eps-in-norm", True, 0))
    assert said.startswith("lost eps: div in norm (")
    assert "  cause: an eps of 1e-12 is added to FP16, where it is 0; div makes" in said
    assert "  proof: In FP32 the same step is finite." in said
    assert "  cure:  An eps that the format can hold" in said
    assert "eps = 1e-5" in said
    assert said.endswith("runs of the step)")
    healthy = str(Diagnosis("healthy"))
    assert healthy == f"healthy: {KINDS['healthy']}\n  tried: nothing (0 runs of the step)"


def test_every_patients_kind_is_one_of_ours() -> None:
    assert {patient.kind for patient in PATIENTS.values()} <= KINDS.keys()


# ---- checkpoints ----


def test_checkpoints_of_other_models_and_with_holes() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(
        ValueError, match=r"nothing in the state is a parameter of this model, which has 0\.weight, 0\.bias"
    ):
        diagnose_checkpoint({"head.weight": torch.zeros(1)}, model)
    state = {"epoch": 3, "model": {f"module.{k}": v.clone() for k, v in model.state_dict().items()}}
    assert diagnose_checkpoint(state, model).healthy
    state["model"]["module.0.bias"] = torch.full((4,), float("nan"))  # type: ignore[index]
    found = diagnose_checkpoint(state, model)
    assert (found.kind, found.where) == ("poisoned state", "0.bias")
    del state["model"]["module.0.bias"]  # type: ignore[attr-defined]
    found = diagnose_checkpoint(state, model)
    assert (found.kind, found.where) == ("checkpoint", "0.bias")
    assert "is not in the checkpoint" in found.cause
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    whole = {"model": model.state_dict()}
    assert diagnose_checkpoint(whole, model, optimizer).where == "optimizer (not in the checkpoint)"
    whole["optimizer"] = optimizer.state_dict()
    assert diagnose_checkpoint(whole, model, optimizer).healthy
    assert diagnose_checkpoint(whole, model, optimizer, LossScaler()).kind == "loss scale"
    assert diagnose_checkpoint(whole | {"scaler": LossScaler().state_dict()}, model, optimizer, LossScaler()).healthy
