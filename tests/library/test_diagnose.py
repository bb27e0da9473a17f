"""`diagnose` on the clinic's patients, sick and cured; that it changes nothing; and what it says to bad input."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import Diagnosis, LossScaler, StaticScale, diagnose, diagnose_checkpoint
from mpkit.course.clinic import PATIENTS
from mpkit.course.clinic.follow import follow
from mpkit.diagnosis import KINDS

# Cured, they live with a batch that overflows: it is withheld as it should be, and it still does overflow.
STILL = {"poisoned-batch-norm": "linear in inner", "clipped-inf": "gradient of float"}


def diagnosed(name: str, sick: bool, seed: int) -> Diagnosis:
    patient = PATIENTS[name]
    case = patient.build(sick, seed)
    follow(case, patient.after)
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
    assert found.steps <= 8
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
    assert torch.Tensor.backward.__module__ == "torch._tensor"


def regression(width: int = 8) -> tuple[nn.Module, torch.optim.Optimizer, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = nn.Linear(width, 1)
    x = torch.randn(64, width)
    return model, torch.optim.SGD(model.parameters(), lr=0.05), (x, x.sum(1, keepdim=True))


def amp_step(model: nn.Module, optimizer: Any, scaler: Any, clip: Callable[[], object] = lambda: None,
             finish: Callable[[], object] | None = None) -> Callable[[Any], Tensor]:  # fmt: skip
    """The usual iteration in FP16; `clip` is called after backward, and `finish` in place of the scaler's two calls."""

    def through_the_scaler() -> None:
        scaler.step(optimizer)
        scaler.update()

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = F.mse_loss(model(batch[0]).float(), batch[1])
        scaler.scale(loss).backward()
        clip()
        (finish or through_the_scaler)()
        return loss

    return step


def test_a_loop_that_steps_past_its_scaler() -> None:
    """optimizer.step() in place of scaler.step(optimizer): gradients still carry the scale."""
    model, optimizer, batch = regression()
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)

    step = amp_step(model, optimizer, scaler, finish=optimizer.step)
    found = diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=batch)
    assert (found.kind, found.where) == ("order", "scaler.step (missing)")
    assert "still carry the loss scale, 256" in found.cause


def test_a_static_scale_that_is_too_high() -> None:
    model, optimizer, batch = regression()
    scaler = LossScaler(StaticScale(2.0**24))

    step = amp_step(model, optimizer, scaler)
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
    assert found.kind == "data"  # which the step has closed over
    found = diagnose(lambda batch: step(), model=model, optimizer=optimizer, batch=(x, y))
    assert (found.kind, found.where) == ("data", "the batch")
    assert "1 value that is" in found.cause

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
    assert "  cause: An eps of 1e-12 is added to FP16, where it is 0; div makes" in said
    assert "  proof: In FP32 the same step is finite." in said
    assert "  cure:  An eps that the format can hold" in said
    assert "eps = 1e-5" in said
    assert said.endswith("runs of the step)")
    healthy = str(Diagnosis("healthy"))
    said = str(diagnosed("own-softmax", True, 0))
    assert "exp makes 50 Inf in float16, which ends at 65,504, from inputs up to 21." in said
    assert "tried: as it is: Inf or NaN in the loss; again: Inf or NaN in the loss; in FP32: finite; exp in\n" in said
    assert max(map(len, said.splitlines())) <= 100
    said = str(diagnosed("zero-grad-after-skip", True, 0))
    assert "cause: The gradient of weight held Inf or NaN before this step began" in said
    assert "100 % of the average weight did not move" in str(diagnosed("ema-in-bf16", True, 0))
    assert "tried: names, values and states compared (0 runs of the step)" in str(diagnosed("bf16-checkpoint", True, 0))
    assert healthy == f"healthy: {KINDS['healthy']}\n  tried: nothing (0 runs of the step)"


@pytest.mark.parametrize("name", ["eps-in-norm", "own-softmax", "where-sqrt", "attention-scores"])
def test_the_line_is_one_of_the_patients_script(name: str) -> None:
    """Not of whoever runs it."""
    found = diagnosed(name, True, 0)
    file, line = re.search(r"\((\w+\.py):(\d+)\)", found.where).groups()  # type: ignore[union-attr]
    path = Path(inspect.getfile(PATIENTS[name].build))
    operation = found.where.removeprefix("gradient of ").split(" ")[0]
    assert file == path.name
    assert {"div": "/", "matmul": "@"}.get(operation, operation) in path.read_text(encoding="utf8").splitlines()[
        int(line) - 1
    ]


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


# ---- what a hostile reader found ----


def halves(dtype: torch.dtype = torch.float16) -> tuple[nn.Module, torch.optim.Optimizer, Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(8, 8, bias=False).to(dtype)
    return model, torch.optim.SGD(model.parameters(), lr=1e-3), torch.randn(16, 8).to(dtype)


def test_an_fp32_rerun_that_raises_is_no_verdict_on_fp32() -> None:
    """A model that insists on its dtype: the overflow is one of FP16 all the same."""
    model, optimizer, x = halves()

    def step(batch: Tensor) -> Tensor:
        y = model(batch) * 60000
        assert y.dtype == torch.float16
        loss = (y * 10).float().mean()
        loss.backward()
        return loss

    found = diagnose(step, model=model, optimizer=optimizer, batch=x)
    assert found.kind == "overflow", str(found)
    assert "could not be tried" in found.proof


def test_a_scale_of_zero_is_said() -> None:
    model, optimizer, batch = regression()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(()))
    scaler._scale.fill_(0)  # type: ignore[union-attr]

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    found = diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=batch)
    assert (found.kind, found.where) == ("loss scale", "scaler"), str(found)


def test_own_stochastic_rounding_is_no_stalled_weight() -> None:
    model, _, x = halves(torch.bfloat16)
    draw = torch.Generator().manual_seed(0)

    def step(batch: Tensor) -> Tensor:
        model.zero_grad()
        loss = model(batch).float().square().mean()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                assert p.grad is not None
                wide = p.float() - 1e-3 * p.grad.float()
                noise = torch.randint(0, 2**16, wide.shape, dtype=torch.int32, generator=draw)
                p.copy_(((wide.view(torch.int32) + noise) & -(2**16)).view(torch.float32))
        return loss

    assert diagnose(step, model=model, batch=x).kind in ("healthy", "not repeatable")


def test_a_head_that_was_replaced_is_not_trained_although_the_rest_is() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[1] = nn.Linear(8, 1)
    x = torch.randn(16, 8)

    def step(batch: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        return loss  # type: ignore[no-any-return]

    found = diagnose(step, model=model, optimizer=optimizer, batch=x)
    assert (found.kind, found.where) == ("not trained", "1.weight, 1.bias"), str(found)
    assert "2 of them not of this model" in found.cause


def test_masters_outside_of_the_model_do_train_it() -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    masters = [p.detach().clone().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.SGD(masters, lr=0.1)
    x = torch.randn(16, 8)

    def step(batch: Tensor) -> Tensor:
        model.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        for master, p in zip(masters, model.parameters(), strict=True):
            master.grad = p.grad
        optimizer.step()
        with torch.no_grad():
            for master, p in zip(masters, model.parameters(), strict=True):
                p.copy_(master)
        return loss  # type: ignore[no-any-return]

    assert diagnose(step, model=model, optimizer=optimizer, batch=x).healthy


def test_buffers_may_hold_inf_on_purpose_and_pixels_may_be_clamped_to_448() -> None:
    class Observed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 1)
            self.register_buffer("least", torch.tensor(float("inf")))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer((x * 400).clamp(0, 448) / 448)  # type: ignore[no-any-return]

    model = Observed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(batch: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    assert diagnose(step, model=model, optimizer=optimizer, batch=torch.randn(32, 8)).healthy


def test_a_wrapped_optimizer_is_the_one_that_it_wraps() -> None:
    class Wrapped:
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.optimizer, self.param_groups, self.state = inner, inner.param_groups, inner.state

        def state_dict(self) -> dict[str, Any]:
            return self.optimizer.state_dict()

    model, optimizer, batch = regression()
    wrapped, scaler = Wrapped(optimizer), torch.amp.GradScaler("cpu", init_scale=1024.0)

    step = amp_step(model, optimizer, scaler, clip=lambda: nn.utils.clip_grad_norm_(model.parameters(), 1.0))
    found = diagnose(step, model=model, optimizer=wrapped, scaler=scaler, batch=batch)
    assert (found.kind, found.where) == ("order", "clip_grad_norm_ (before unscale_)"), str(found)


def test_clipping_values_before_unscale_is_found_too() -> None:
    model, optimizer, batch = regression()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    step = amp_step(model, optimizer, scaler, clip=lambda: nn.utils.clip_grad_value_(model.parameters(), 1.0))
    found = diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=batch)
    assert (found.kind, found.where) == ("order", "clip_grad_value_ (before unscale_)"), str(found)


def test_masks_and_constant_features_are_no_bad_data() -> None:
    """A fault of mathematics beside a mask of -Inf and a feature that is always -1."""
    model = nn.Linear(8, 1)
    mask, ids = torch.tensor([0.0, -torch.inf]).repeat(8), torch.full((16,), -1)

    def step(batch: Any) -> Tensor:
        x, _, _ = batch
        loss = (model(x) - model(x)).square().sum().sqrt()
        loss.backward()
        return loss

    found = diagnose(step, model=model, batch=(torch.randn(16, 8), mask, ids))
    assert found.kind == "invalid", str(found)


def test_a_compiled_model_is_diagnosed_as_it_is_written() -> None:
    model, optimizer, batch = regression()
    compiled = torch.compile(model, fullgraph=True)

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(compiled(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    assert diagnose(step, model=model, optimizer=optimizer, batch=batch).healthy


def test_checkpoints_with_masks_tied_weights_and_flushed_values() -> None:
    model = nn.Module()
    model.embed, model.head = nn.Embedding(4, 4), nn.Linear(4, 4, bias=False)
    model.head.weight = model.embed.weight
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    state = {k: v.clone() for k, v in model.state_dict().items()}
    del state["head.weight"]
    assert diagnose_checkpoint([state][0], model).healthy
    with torch.no_grad():
        model.embed.weight.fill_(1e-9)
    saved = {k: v.clone() for k, v in model.state_dict().items()}
    found = diagnose_checkpoint({"shards": [saved]}, model.half())
    assert found.kind == "checkpoint"
    assert "16 of 16 values of embed.weight are not 0 in the checkpoint (float32), and 0 in the model" in found.cause
