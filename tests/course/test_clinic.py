"""The patients of the clinic: each shows its symptom when sick and not when cured, whatever the seed."""

from __future__ import annotations

import ast
import difflib
import functools
import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

import mpkit.__main__ as command
from mpkit.course.clinic import PATIENTS, Case, Patient, follow, script
from mpkit.diagnosis import KINDS

SEEDS = range(5)
Curves = dict[str, list[float]]


@functools.cache
def run(name: str, sick: bool, seed: int) -> Curves:
    patient = PATIENTS[name]
    return follow(patient.build(sick, seed), patient.steps)


def bad(curve: list[float]) -> list[int]:
    """Steps at which a curve is NaN or Inf."""
    return [step for step, value in enumerate(curve) if not math.isfinite(value)]


def learns(curves: Curves, to: float) -> bool:
    """The loss is finite at every step, and in the end at most `to` of what it was."""
    loss = curves["loss"]
    return not bad(loss) and loss[-1] <= to * loss[0]


def flat(curve: list[float]) -> bool:
    return max(curve) - min(curve) <= 0.05 * abs(curve[0])


def from_step(first: int, steps: int) -> list[int]:
    return list(range(first, steps))


# What a sick case shows and a cured one does not; the other way round each of these fails.
SYMPTOMS: dict[str, Callable[[Curves], bool]] = {
    "poisoned-batch-norm": lambda c: bad(c["eval loss"]) == from_step(12, 40) and c["stepped"].count(0) == 1,
    "one-autocast": lambda c: len(set(c["loss"])) == 1 and not flat(c["weight"]),
    "ema-in-bf16": lambda c: len(set(c["eval loss of the average"])) == 1 and learns(c, to=0.1),
    "adam-in-bf16": lambda c: set(c["second moment"]) == {0.5},
    "colliding-positions": lambda c: c["right up to 256"][-1] - c["right from 512"][-1] > 0.2 and c["loss"][-1] > 0.5,
    "zero-norm": lambda c: set(c["gradient of the head"]) == {0.0} and c["loss"][-1] > 0.9 * c["loss"][0],
    "micro-batches-in-bf16": lambda c: c["gradient"][0] == 4,  # 6 is due
    "other-parameters": lambda c: len(set(c["loss"])) == 1 and c["gradient of the head"][-1] > 1,
    "no-scaler": lambda c: set(c["largest gradient"]) == {0.0} and len(set(c["loss"])) == 1,
    "double-unscale": lambda c: flat(c["loss"]) and 0 not in c["stepped"],
    "clip-before-unscale": lambda c: flat(c["loss"]) and min(c["norm before clipping"]) > 1000,
    "zero-grad-after-skip": lambda c: c["stepped"].index(0) > 10 and not any(c["stepped"][c["stepped"].index(0) :]),
    "scheduler-drift": lambda c: sum(c["stepped"]) < 30 and c["learning rate"][-1] == pytest.approx(0.05 * 0.9**40),
    "scaler-not-saved": lambda c: not any(c["stepped"][:10]) and c["scale"][0] == 32768,
    "scale-to-zero": lambda c: c["scale"][-1] == 0 and len(set(c["loss"])) == 1 and not any(c["stepped"]),
    "attention-scores": lambda c: bad(c["loss"]) == from_step(0, 40),
    "own-softmax": lambda c: 5 < (bad(c["loss"]) or [0])[0] < 30,
    "sum-before-mean": lambda c: c["loss"][0] == math.inf and not bad(c["loss"][-3:]),
    "masked-twice": lambda c: bad(c["loss"]) == from_step(0, 40),
    "eps-in-norm": lambda c: bad(c["loss"]) == from_step(0, 40),
    "adam-eps": lambda c: bad(c["loss"]) == from_step(1, 40),
    "clipped-inf": lambda c: bad(c["loss"]) == from_step(13, 40) and c["loss"][12] > 1e9,
    "bf16-checkpoint": lambda c: bad(c["loss"]) == from_step(0, 3),
    "stale-scale": lambda c: c["share at 448"][-1] > 0.5 and c["largest weight"][-1] > 4 and c["loss"][-1] > 5,
    "left-over-memory": lambda c: c["loss"][-1] > 0.008 * c["loss"][0],
    "where-sqrt": lambda c: bad(c["largest weight"]) == from_step(0, 40) and c["loss"][1] > 2 * c["loss"][0],
    "ignored-labels": lambda c: bad(c["loss"]) == from_step(12, 40),
    "probing-scaler": lambda c: 3 <= c["stepped"].count(0) <= 8 and learns(c, to=0.15),
    "discarded-log": lambda c: False,  # there is nothing to see, which is the point; it has a test of its own
}
# How far the cured cases get: the last loss over the first.
CURED = {
    "adam-in-bf16": 1.2, "scheduler-drift": 0.35, "ignored-labels": 0.5, "bf16-checkpoint": 1.0, "masked-twice": 0.4,
    "micro-batches-in-bf16": 0.15, "sum-before-mean": 0.35, "scaler-not-saved": 0.3,
}  # fmt: skip

everyone = pytest.mark.parametrize("name", PATIENTS)


def test_every_patient_has_a_symptom() -> None:
    assert list(SYMPTOMS) == list(PATIENTS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", sorted(set(SYMPTOMS) - {"discarded-log"}))
def test_the_sick_show_it_and_the_cured_do_not(name: str, seed: int) -> None:
    assert SYMPTOMS[name](run(name, True, seed))
    assert not SYMPTOMS[name](run(name, False, seed))


@pytest.mark.parametrize("seed", SEEDS)
@everyone
def test_the_cured_learn(name: str, seed: int) -> None:
    assert learns(run(name, False, seed), to=CURED.get(name, 0.2))


@pytest.mark.parametrize("seed", SEEDS)
@everyone
def test_the_silent_never_log_a_nan_and_the_loud_do(name: str, seed: int) -> None:
    assert (bad(run(name, True, seed)["loss"]) == []) is PATIENTS[name].silent


@pytest.mark.parametrize("seed", SEEDS)
def test_the_healthy_train_the_same_either_way(seed: int) -> None:
    for name in ("probing-scaler", "discarded-log"):
        sick, cured = run(name, True, seed)["loss"], run(name, False, seed)["loss"]
        assert sick[-1] == pytest.approx(cured[-1], rel=0.02)
    case = PATIENTS["discarded-log"].build(True, seed)
    distance, _ = case.batch
    assert torch.log(distance / 8).min() == -math.inf  # what frightens the owner is there


@everyone
def test_the_same_seed_makes_the_same_curves(name: str) -> None:
    patient = PATIENTS[name]
    for sick in (True, False):
        again = follow(patient.build(sick, 3), patient.steps)
        pairs = [(x, y) for key in again for x, y in zip(again[key], run(name, sick, 3)[key], strict=True)]
        assert all(x == y or (x != x and y != y) for x, y in pairs)


@pytest.mark.parametrize("seed", SEEDS)
def test_left_over_memory_makes_the_same_step_differ(seed: int) -> None:
    for sick in (True, False):
        case = PATIENTS["left-over-memory"].build(sick, seed)
        first, second = (case.step(case.batch).item() for _ in range(2))
        assert (first != second) is sick


# ---- what they are ----


def test_there_are_enough_of_each() -> None:
    patients = list(PATIENTS.values())
    assert len(patients) >= 20
    assert sum(patient.silent for patient in patients) >= 8
    assert sum(patient.kind == "healthy" for patient in patients) == 2
    assert sum(patient.kind in ("invalid", "data") for patient in patients) == 2
    assert {patient.form for patient in patients} == {"pass", "iteration", "checkpoint"}


@everyone
def test_a_patient_is_complete(name: str) -> None:
    patient = PATIENTS[name]
    assert patient.name == name
    assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", patient.thread)
    assert bool(patient.where) is (patient.kind != "healthy")
    assert patient.complaint[-1] in ".?"
    assert patient.because[-1] in ".)"
    assert "\n" in patient.cure  # a sentence, then code
    case = patient.build(True, 0)
    assert (case.state is not None) is (patient.form == "checkpoint")
    assert case.update is None or patient.form == "pass"
    loss = case.step() if case.batch is None else case.step(case.batch)
    assert isinstance(loss, float | torch.Tensor)


def test_a_kind_of_its_own_is_refused() -> None:
    known = PATIENTS["no-scaler"]
    with pytest.raises(ValueError, match=r"kind must be one of healthy, .*, but 'cold' came\."):
        Patient("x", "X", "o/r#1", "pass", True, "cold", "x", "X", "X", known.build)
    assert len(set(KINDS)) == len(KINDS) == 16


# ---- following a case ----


def test_following_records_the_loss_the_scale_the_steps_and_the_signs() -> None:
    weight = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    given = [1.0, math.inf, 2.0]

    def step(factor: float) -> torch.Tensor:
        optimizer.zero_grad()
        scaler.scale(weight * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        return weight * factor

    case = Case(step, nn.Module(), optimizer, scaler, stream=lambda number: given[number],
                signs=lambda: {"weight": weight.item()})  # fmt: skip
    assert follow(case, 3) == {
        "loss": [0.0, pytest.approx(math.nan, nan_ok=True), -4.0],
        "scale": [4.0, 2.0, 2.0],
        "stepped": [1.0, 0.0, 1.0],
        "weight": [0.0, 0.0, -2.0],
    }
    assert not optimizer._optimizer_step_post_hooks  # nothing is left behind


def test_a_pass_is_followed_by_what_the_owner_does_with_the_gradients() -> None:
    did: list[str] = []
    case = Case(lambda: did.append("step") or 1.0, nn.Module(), update=lambda: did.append("update"))
    assert follow(case, 2) == {"loss": [1.0, 1.0]}
    assert did == ["step", "update"] * 2


def test_the_loop_runs_inside_what_is_around_it_and_leaves_it() -> None:
    case = PATIENTS["one-autocast"].build(True, 0)
    seen: list[bool] = []
    case.signs = lambda: seen.append(torch.is_autocast_enabled("cpu")) or {}
    follow(case, 2)
    assert seen == [True, True]
    assert not torch.is_autocast_enabled("cpu")


# ---- their scripts ----


@everyone
def test_a_script_has_no_switch_and_differs_in_a_line_or_two(name: str) -> None:
    patient = PATIENTS[name]
    sick, cured = script(patient), script(patient, sick=False)
    assert "sick" not in sick + cured
    ast.parse(sick), ast.parse(cured)
    changes = [line for line in difflib.ndiff(sick.splitlines(), cured.splitlines()) if line[0] in "+-"]
    assert 1 <= len(changes) <= 4
    assert sum(line[0] == "+" for line in changes) <= 2


@pytest.mark.parametrize("name", ["other-parameters", "scheduler-drift", "own-softmax", "poisoned-batch-norm"])
@pytest.mark.parametrize("sick", [True, False])
def test_a_script_does_what_the_patient_does(name: str, sick: bool) -> None:
    patient = PATIENTS[name]
    names = dict(patient.build.__globals__)  # type: ignore[attr-defined]
    exec(script(patient, sick), names)
    curves = follow(names["build"](1), patient.steps)
    assert str(curves) == str(run(name, sick, 1))


# ---- the command ----


def test_the_command_lists_the_patients(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["clinic"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("poisoned-batch-norm\n  The training loss falls nicely.")
    for name, patient in PATIENTS.items():
        assert f"{name}\n  " in out
        assert patient.complaint in re.sub(r"\s+", " ", out)
        assert patient.because not in re.sub(r"\s+", " ", out)


def test_the_command_shows_one_patients_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["clinic", "eps-in-norm"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("eps-in-norm\n  NaN as soon as a batch has a padded row.")
    assert "            eps = 1e-12\n" in out
    assert "sick" not in out
    assert "FP16 can hold" not in out  # neither the cause nor the cure


def test_the_command_refuses_a_stranger(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["clinic", "flu"])
    assert stop.value.code == 2
    assert "no patient is called 'flu'. They are poisoned-batch-norm, one-autocast," in capsys.readouterr().err
