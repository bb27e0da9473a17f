"""A script that uses torch.amp.GradScaler runs with LossScaler in its place: arguments, names, switch, checkpoints."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp import GradScaler

import mpkit
from mpkit import DynamicScale, LossScaler, NoScaling, Policy, StaticScale
from mpkit.scaling import preset

NUMBERS: dict[str, Any] = {"init_scale": 2.0**10, "growth_factor": 1.5, "backoff_factor": 0.25, "growth_interval": 3}


def build(kind: Any, **numbers: Any) -> Any:
    return kind("cpu", **numbers)


def train(scaler: Any, gradients: list[float], start: float = 0.0) -> tuple[list[float], list[float]]:
    """Weights and scales after each step: a script that knows nothing of mpkit."""
    p = torch.nn.Parameter(torch.tensor([start]))
    optimizer, weights, scales = torch.optim.SGD([p], lr=0.1, momentum=0.9), [], []
    for gradient in gradients:
        optimizer.zero_grad()
        scaler.scale((p * gradient).sum()).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_([p], 0.7)
        scaler.step(optimizer)
        scaler.update()
        weights.append(p.item())
        scales.append(scaler.get_scale())
    return weights, scales


GRADIENTS = [1.0, math.inf, 0.3, -2.0, 1e-6, math.nan, 1.0, 1.0, 1.0, 0.1, -math.inf, 3.0]


# --- the arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (("cuda",), {}), (("cpu",), NUMBERS), ((torch.device("cuda", 0),), NUMBERS), ((), NUMBERS),
        ((), {"device": "cuda"}), ((), {"device": "cpu", "init_scale": 8.0}), (("cuda", 8.0), {}),
        (("cuda", 2.0**10, 1.5, 0.25, 3, True), {}), ((), {"growth_interval": 100, "enabled": True}),
    ],
)  # fmt: skip
def test_grad_scalers_arguments_build_its_rule(args: Any, options: dict[str, Any]) -> None:
    ours = LossScaler(*args, **options)
    theirs = GradScaler("cpu", *args[1:], **{k: v for k, v in options.items() if k != "device"})
    assert {k: v for k, v in ours.state_dict().items() if k in theirs.state_dict()} == theirs.state_dict()
    assert ours.rule.state_dict() == {
        **preset("torch").state_dict(), "init_scale": theirs.get_scale(), "growth_factor": theirs.get_growth_factor(),
        "backoff_factor": theirs.get_backoff_factor(), "growth_interval": theirs.get_growth_interval(),
    }  # fmt: skip


def test_a_rule_is_taken_as_ever() -> None:
    assert LossScaler().rule == LossScaler(enabled=True).rule == DynamicScale()
    for rule in (DynamicScale(8.0), NoScaling(), preset("torch")):
        assert LossScaler(rule).rule == LossScaler(rule=rule, device="cuda").rule == rule


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LossScaler(NoScaling(), init_scale=8.0, growth_interval=2), ValueError,
         r"got the rule NoScaling\(.*\), and init_scale and growth_interval besides. .* set them in the rule"),
        (lambda: LossScaler("cuda", device="cpu"), ValueError,
         r"got two devices, 'cuda' and device='cpu'. Pass one"),
        (lambda: LossScaler("torch"), TypeError, r"such as 'cuda', init_scale=1024.0, got 'torch'. Pass one of these"),
        (lambda: LossScaler(device="gpu"), TypeError, r"got 'gpu'. Pass one of these"),
        (lambda: LossScaler(1024.0), TypeError, r"needs a rule, .* or a device and numbers as .*, got 1024.0"),  # type: ignore[arg-type]
        (lambda: LossScaler("cuda", growth_factor=1.0), ValueError, r"growth_factor must be a finite number above 1"),
        (lambda: LossScaler("cuda", enabled="no"), ValueError, r"enabled must be True or False, got 'no'"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_arguments_without_sense(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# --- the same training ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [{}, NUMBERS])
def test_the_script_trains_to_the_same_bits(numbers: dict[str, Any]) -> None:
    assert train(build(LossScaler, **numbers), GRADIENTS) == train(build(GradScaler, **numbers), GRADIENTS)


@pytest.mark.parametrize("first", [GradScaler, LossScaler])
@pytest.mark.parametrize("second", [GradScaler, LossScaler])
def test_a_checkpoint_of_either_goes_on_in_either(first: Any, second: Any) -> None:
    """Also into a scaler that was built with other numbers: the state's count, as in GradScaler."""
    before = build(first, **NUMBERS)
    train(before, GRADIENTS[:4])
    state = json.loads(json.dumps(before.state_dict()))
    for used in (False, True):
        after, oracle = build(second), build(GradScaler)
        if used:
            train(after, [1.0, math.inf])
            train(oracle, [1.0, math.inf])
        after.load_state_dict(copy.deepcopy(state))
        oracle.load_state_dict({k: state[k] for k in oracle.state_dict()})
        assert train(after, GRADIENTS[4:]) == train(oracle, GRADIENTS[4:])
        assert {k: after.state_dict()[k] for k in oracle.state_dict()} == oracle.state_dict()


def test_a_state_of_ours_with_other_numbers_is_taken_over_by_grad_scalers_rule_only() -> None:
    state = LossScaler("cuda", growth_interval=7).state_dict()
    scaler = LossScaler("cuda")
    scaler.load_state_dict(state)
    assert scaler.get_growth_interval() == 7
    for other in (LossScaler(), LossScaler(preset("keras"))):
        with pytest.raises(ValueError, match=r"saved by the rule .*'growth_interval': 7.* runs "):
            other.load_state_dict(state)


def test_grad_scalers_state_and_other_rules() -> None:
    scaler = LossScaler()  # counts as GradScaler does, with the same numbers
    scaler.load_state_dict({**GradScaler("cpu").state_dict(), "scale": 8.0, "_growth_tracker": 1999})
    assert train(scaler, [1.0])[1] == [16.0]
    state = GradScaler("cpu", growth_interval=7).state_dict()
    for rule in (DynamicScale(), NoScaling(), preset("deepspeed"), preset("megatron")):
        with pytest.raises(
            ValueError,
            match=r"saved by a torch.amp.GradScaler with .*'growth_interval': 7.* Build LossScaler\('cuda'\)",
        ):
            LossScaler(rule).load_state_dict(state)
    with pytest.raises(ValueError, match=r"'scale' is 0.5, not a number from 1.0 to 3.4"):
        LossScaler().load_state_dict({**GradScaler("cpu").state_dict(), "scale": 0.5})
    with pytest.raises(ValueError, match=r"'growth_factor' is missing; it has 'scale', '_growth_tracker'"):
        LossScaler("cuda").load_state_dict({"scale": 0.5, "_growth_tracker": 1})


# --- the switch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [("cuda",), (), (DynamicScale(),)])
def test_a_scaler_that_is_not_enabled_only_steps(args: Any) -> None:
    ours, theirs = LossScaler(*args, enabled=False), GradScaler("cpu", enabled=False)
    assert train(ours, [1.0, math.inf, 2.0]) != train(ours, [1.0, 1.0, 2.0])  # nothing is tested
    for name in ("is_enabled", "get_scale", "state_dict"):
        assert getattr(ours, name)() == getattr(theirs, name)()
    assert train(ours, [1.0, 0.5]) == train(theirs, [1.0, 0.5])
    assert ours.scale("anything") == "anything"
    assert repr(ours).endswith(", enabled=False)")
    ours.update()
    ours.load_state_dict({})
    ours.load_state_dict(GradScaler("cpu", init_scale=8.0).state_dict())
    assert (ours.get_scale(), copy.deepcopy(ours).is_enabled()) == (1.0, False)


def test_a_step_that_is_not_scaled_has_a_result_and_may_have_a_closure() -> None:
    p, scaler = torch.nn.Parameter(torch.zeros(1)), LossScaler("cuda", enabled=False)
    optimizer = torch.optim.SGD([p], lr=1.0)

    def closure() -> Tensor:
        p.grad = torch.ones(1)
        return p.sum()

    result = scaler.step(optimizer, closure)
    assert p.item() == -1.0
    assert (bool(result), result.found_inf, result.scale, result.first_bad, repr(result)) == (
        True, False, 1.0, None, "stepped",
    )  # fmt: skip


def test_fit_takes_a_scaler_that_is_not_enabled() -> None:
    def losses(scaler: LossScaler | None) -> list[float]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        data = mpkit.Batches(torch.randn(32, 3), torch.randint(2, (32,)), batch_size=8, seed=0)
        run = mpkit.fit(
            model, data, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), steps=4, scaler=scaler,
            policy=Policy.preset("fp32"),
        )  # fmt: skip
        return [float(record.loss) for record in run]

    assert losses(LossScaler("cuda", enabled=False)) == losses(None)


# --- the names -----------------------------------------------------------------------------------------------------


def test_getters_and_setters() -> None:
    ours, theirs = build(LossScaler), build(GradScaler)
    for scaler in (ours, theirs):
        scaler.set_growth_factor(4.0)
        scaler.set_backoff_factor(0.25)
        scaler.set_growth_interval(2)
    for name in ("get_growth_factor", "get_backoff_factor", "get_growth_interval", "get_scale", "is_enabled"):
        assert getattr(ours, name)() == getattr(theirs, name)()
    assert train(ours, GRADIENTS) == train(theirs, GRADIENTS)
    with pytest.raises(ValueError, match=r"backoff_factor must be above 0 and below 1, got 2"):
        ours.set_backoff_factor(2.0)
    for verb in (StaticScale(8.0), NoScaling()):
        with pytest.raises(ValueError, match=r"has no growth_interval. Build LossScaler with DynamicScale, or as"):
            LossScaler(verb).set_growth_interval(3)
        with pytest.raises(ValueError, match=r"has no growth_factor"):
            LossScaler(verb).get_growth_factor()


@pytest.mark.parametrize("new", [8.0, torch.tensor(8.0), torch.tensor([8.0])])
def test_the_scale_may_be_set(new: Any) -> None:
    ours, theirs = build(LossScaler, growth_interval=3), build(GradScaler, growth_interval=3)
    for scaler in (ours, theirs):
        train(scaler, [1.0, 1.0])
        p = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([p], lr=1.0)
        scaler.scale((p * math.inf).sum()).backward()
        scaler.step(optimizer)
        scaler.update(new if scaler is ours else float(new))  # torch fails on a tensor of shape (1,)
    assert ours.get_scale() == theirs.get_scale() == 8.0
    assert train(ours, GRADIENTS) == train(theirs, GRADIENTS)  # the count of clean steps goes on


def test_a_scale_that_may_not_be_set() -> None:
    for rule, new, message in (
        (DynamicScale(), 0.5, r"new_scale=0.5\): the rule .* keeps the scale from 1.0 to the largest of float32. Take"),
        (DynamicScale(max_scale=2.0**16), 2.0**17, r"keeps the scale from 1.0 to 65536.0"),
        (StaticScale(8.0), 9.0, r"keeps the scale at 8.0"),
        (DynamicScale(), math.nan, r"new_scale must be a positive number"),
        (DynamicScale(), "big", r"new_scale must be a positive number"),
        (DynamicScale(), torch.ones(2), r"new_scale must be a number or a tensor with one element, got .* \(2,\)"),
    ):
        scaler = LossScaler(rule)
        scaler.scale(torch.ones(()))
        with pytest.raises(ValueError, match=message):
            scaler.update(new)  # type: ignore[arg-type]
        assert scaler.get_scale() == rule.init().scale
    with pytest.raises(RuntimeError, match=r"update\(\) was called before any scale\(\)"):
        LossScaler().update(8.0)


def test_the_private_names_that_scripts_use() -> None:
    ours, theirs = build(LossScaler, **NUMBERS), build(GradScaler, **NUMBERS)
    for scaler in (ours, theirs):
        assert (scaler._scale, scaler._growth_tracker, scaler._enabled) == (None, None, True)
        scaler._lazy_init_scale_growth_tracker(torch.device("cpu"))
        assert (scaler._scale.item(), scaler._growth_tracker.item(), scaler._get_growth_tracker()) == (1024.0, 0, 0)
        assert (scaler._scale.dtype, scaler._growth_tracker.dtype) == (torch.float32, torch.int32)
        train(scaler, [1.0, 1.0])
        assert scaler._get_growth_tracker() == 2


def test_found_inf_may_be_agreed_on_by_hand() -> None:
    """As scripts do that all-reduce it themselves between unscale_ and step."""
    for scaler in (build(LossScaler), build(GradScaler)):
        p = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([p], lr=1.0)
        scaler.scale(p.sum()).backward()
        scaler.unscale_(optimizer)
        for flag in scaler._found_inf_per_device(optimizer).values():
            flag.fill_(1.0)
        scaler.step(optimizer)
        scaler.update()
        assert (p.item(), scaler.get_scale()) == (0.0, 2.0**15)
        assert scaler._found_inf_per_device(optimizer) == {}


def test_what_a_step_is_given_reaches_the_optimizer() -> None:
    class Asking(torch.optim.SGD):
        def step(self, closure: Any = None, *, mood: str = "") -> None:  # type: ignore[override]
            moods.append(mood)
            super().step()

    for scaler in (build(LossScaler), build(GradScaler), build(LossScaler, enabled=False)):
        for fused in (False, True):
            moods: list[str] = []
            p = torch.nn.Parameter(torch.zeros(1))
            optimizer = Asking([p], lr=1.0, fused=fused)
            scaler.scale(p.sum()).backward()
            scaler.step(optimizer, mood="good")
            scaler.update()
            assert (moods, p.item()) == (["good"], -1.0)
