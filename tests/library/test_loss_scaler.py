"""LossScaler: the verbs, the results, the misuse messages, the state. The comparison with torch is at the end."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import math
import pickle
import random
import weakref
from collections import namedtuple
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mpkit.histogram import ExponentHistogram
from mpkit.scaling import DynamicScale, NoScaling, ScaleRule, ScaleState, StaticScale, evidence, preset
from mpkit.scaling import gradient_plan as unscaling
from mpkit.scaling.loss_scaler import LossScaler

INF, NAN = math.inf, math.nan


def parameter(*values: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(values))


def sgd(*params: Tensor, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(params, lr=1.0, **options)


def give(scaler: Any, param: Tensor, *gradient: float) -> None:
    """Make `gradient` the true gradient of `param`, through the scaled loss."""
    scaler.scale((param * torch.tensor(gradient)).sum()).backward()


def one_step(scaler: LossScaler, param: Tensor, optimizer: torch.optim.Optimizer, *gradient: float) -> Any:
    give(scaler, param, *gradient)
    result = scaler.step(optimizer)
    scaler.update()
    return result


# --- a step ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
def test_a_clean_step_uses_the_true_gradient(fused: bool) -> None:
    p, scaler = parameter(5.0, 7.0), LossScaler()
    result = one_step(scaler, p, sgd(p, fused=fused), 1.0, 2.0)
    assert p.tolist() == [4.0, 5.0]
    assert (result.stepped, result.found_inf, bool(result)) == (True, False, True)
    assert (result.first_bad, result.inf_count, result.nan_count) == (None, 0, 0)
    assert (result.scale, repr(result), scaler.get_scale()) == (65536.0, "stepped", 65536.0)


@pytest.mark.parametrize("fused", [False, True])
def test_a_bad_step_is_skipped_and_says_why(fused: bool) -> None:
    good, bad, scaler = parameter(5.0), parameter(1.0, 2.0, 3.0, 4.0), LossScaler()
    optimizer = torch.optim.SGD([("head.bias", good), ("encoder.weight", bad)], lr=1.0, fused=fused)
    give(scaler, good, 1.0)
    give(scaler, bad, INF, -INF, NAN, 1.0)
    result = scaler.step(optimizer)
    scaler.update()
    assert (good.item(), bad.tolist()) == (5.0, [1.0, 2.0, 3.0, 4.0])
    assert (result.stepped, result.found_inf, bool(result)) == (False, True, False)
    assert (result.first_bad, result.inf_count, result.nan_count) == ("encoder.weight", 2, 1)
    assert result.reason == repr(result) == "skipped: 2 Inf and 1 NaN, first in encoder.weight"
    assert (result.scale, scaler.get_scale()) == (65536.0, 32768.0)


def test_an_unnamed_parameter_is_described_by_place_and_shape() -> None:
    a, b, scaler = parameter(1.0), torch.nn.Parameter(torch.ones(2, 3)), LossScaler()
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [parameter(0.0), b]}], lr=1.0)
    scaler.scale(b.sum() * INF).backward()
    assert scaler.step(optimizer).first_bad == "param_groups[1]['params'][1], shape (2, 3)"


def test_first_bad_follows_the_optimizers_order_across_dtypes() -> None:
    double, single, scaler = torch.nn.Parameter(torch.ones(1, dtype=torch.float64)), parameter(1.0), LossScaler()
    optimizer = torch.optim.SGD([("x", parameter(0.0)), ("double", double), ("single", single)], lr=1.0)
    scaler.scale(double.sum() * NAN).backward()
    scaler.scale(single.sum() * INF).backward()
    result = scaler.step(optimizer)
    assert (result.first_bad, result.inf_count, result.nan_count) == ("double", 1, 1)


def test_clipping_after_unscale_sees_the_true_norm_and_step_does_not_unscale_again() -> None:
    for fused in (False, True):
        p, scaler = parameter(0.0, 0.0), LossScaler()
        optimizer = sgd(p, fused=fused)
        give(scaler, p, 3.0, 4.0)
        scaler.unscale_(optimizer)
        assert torch.nn.utils.clip_grad_norm_([p], 1.0).item() == 5.0
        assert scaler.step(optimizer).stepped
        assert torch.allclose(p.detach(), torch.tensor([-0.6, -0.8]))


def test_accumulated_gradients_are_summed_before_the_check() -> None:
    p, scaler = parameter(0.0), LossScaler()
    optimizer = sgd(p)
    give(scaler, p, 1.0)
    give(scaler, p, 2.0)
    assert scaler.step(optimizer)
    assert p.item() == -3.0
    scaler.update()
    optimizer.zero_grad()
    give(scaler, p, INF)
    give(scaler, p, 1.0)
    assert not scaler.step(optimizer)
    assert p.item() == -3.0


def test_two_optimizers_share_the_scale_and_only_the_bad_one_is_skipped() -> None:
    a, b, scaler = parameter(0.0), parameter(0.0), LossScaler()
    first, second = sgd(a), sgd(b)
    give(scaler, a, INF)
    give(scaler, b, 1.0)
    assert [scaler.step(first).stepped, scaler.step(second).stepped] == [False, True]
    scaler.update()
    assert (a.item(), b.item(), scaler.get_scale()) == (0.0, -1.0, 32768.0)


def test_parameters_without_a_gradient_are_left_out() -> None:
    a, frozen, scaler = parameter(1.0), parameter(1.0), LossScaler()
    assert one_step(scaler, a, sgd(frozen, a), 1.0).stepped
    assert (a.item(), frozen.item()) == (0.0, 1.0)


def test_update_after_unscale_alone_is_allowed() -> None:
    """Someone who saw a bad norm and left out step() must still be able to end the iteration."""
    p, scaler = parameter(0.0), LossScaler()
    give(scaler, p, INF)
    scaler.unscale_(sgd(p))
    scaler.update()
    assert scaler.get_scale() == 32768.0


def test_parameters_added_or_converted_later_are_seen() -> None:
    a, b, scaler = parameter(0.0), parameter(0.0), LossScaler()
    optimizer = sgd(a)
    one_step(scaler, a, optimizer, 1.0)
    optimizer.add_param_group({"params": [b]})
    give(scaler, b, 1.0)
    scaler.step(optimizer)
    scaler.update()
    assert b.item() == -1.0
    for p in (a, b):
        p.data, p.grad = p.data.double(), None
    one_step(scaler, b, optimizer, 1.0)
    assert (b.item(), b.dtype) == (-2.0, torch.float64)


def test_one_parameter_that_is_converted_later_is_seen() -> None:
    """The first one stays as it was: every one has to be looked at."""
    a, b, scaler = parameter(0.0), parameter(0.0), LossScaler()
    optimizer = sgd(a, b)
    b.grad = torch.zeros_like(b)
    one_step(scaler, a, optimizer, 1.0)
    b.data, b.grad = b.data.half(), None
    b.grad = torch.ones_like(b)
    give(scaler, a, 1.0)
    with pytest.raises(ValueError, match="float16"):
        scaler.unscale_(optimizer)


def test_a_plan_that_is_sorted_anew_keeps_its_flag() -> None:
    """A step that was captured in a graph writes into that tensor."""
    a, scaler = parameter(0.0), LossScaler()
    optimizer = sgd(a)
    one_step(scaler, a, optimizer, 1.0)
    (plan,) = scaler._iteration.plans
    flag, plan.captured = plan.found_inf, True
    a.data, a.grad = a.data.double(), None
    one_step(scaler, a, optimizer, 1.0)
    (again,) = scaler._iteration.plans
    assert again is not plan
    assert again.found_inf is flag
    assert again.captured


def test_a_constant_rule_skips_and_keeps_its_scale() -> None:
    for rule, scale in ((NoScaling(), 1.0), (StaticScale(128.0), 128.0)):
        p, scaler = parameter(3.0), LossScaler(rule)
        optimizer = sgd(p)
        assert not one_step(scaler, p, optimizer, NAN).stepped
        optimizer.zero_grad()
        assert one_step(scaler, p, optimizer, 1.0).stepped
        assert (p.item(), scaler.get_scale()) == (2.0, scale)


@pytest.mark.parametrize("fused", [False, True])
def test_a_rule_may_choose_not_to_skip(fused: bool) -> None:
    class Reckless(DynamicScale):
        skips = False

    p, scaler = parameter(1.0, 1.0), LossScaler(Reckless())
    result = one_step(scaler, p, sgd(p, fused=fused), INF, 1.0)
    assert p.tolist() == [-INF, 0.0]
    assert (result.stepped, result.found_inf) == (True, True)
    assert result.reason == "stepped: 1 Inf and 0 NaN, first in param_groups[0]['params'][0], shape (2,)"
    assert scaler.get_scale() == 32768.0


@pytest.mark.parametrize("unscale", [False, True])
def test_a_users_own_grad_scale_multiplies_in_as_in_torch(unscale: bool) -> None:
    weights = []
    for scaler in (LossScaler(preset("torch")), torch.amp.GradScaler("cpu")):
        p = parameter(0.0)
        optimizer: Any = sgd(p, fused=True)
        optimizer.grad_scale = torch.tensor(4.0)
        give(scaler, p, 8.0)
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        assert not hasattr(optimizer, "grad_scale")
        weights.append(p.item())
    assert weights == [-2.0, -2.0]


# --- the second test, after the division ------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("check", "stepped"), [(True, False), (False, True)])
def test_finite_before_and_inf_after_the_division(check: bool, stepped: bool, fused: bool) -> None:
    rule = DynamicScale(init_scale=2.0**-10, min_scale=None, check_unscaled=check)
    p, scaler = parameter(1.0), LossScaler(rule)
    scaler.scale(torch.ones(()))
    p.grad = torch.tensor([1e38])  # as it stands after backward: 1e38 / 2**-10 is beyond float32
    result = scaler.step(sgd(p, fused=fused))
    assert result.stepped is stepped
    assert bool(p.isfinite().all()) is not stepped
    if check:
        assert (result.inf_count, result.nan_count) == (1, 0)


@pytest.mark.parametrize(("fused", "overflows", "scale"), [(False, 144, 2.0**-128), (True, 166, 0.0)])
@pytest.mark.parametrize(("name", "healthy"), [("torch", False), ("mpkit", True)])
def test_the_trap_of_144_overflows(name: str, healthy: bool, fused: bool, overflows: int, scale: float) -> None:
    """At 2**-128 the reciprocal is Inf, and torch's rule writes Inf or NaN into the weights on a clean step.

    A fused optimizer divides by the scale instead, so it goes wrong only when the scale is 0.
    """
    p, scaler = parameter(1.0, 1.0), LossScaler(preset(name))
    optimizer = torch.optim.Adam([p], lr=0.1, fused=fused)
    for _ in range(overflows):
        optimizer.zero_grad()
        assert not one_step(scaler, p, optimizer, INF, 1.0).stepped
    assert scaler.get_scale() == (1.0 if healthy else scale)
    optimizer.zero_grad()
    assert one_step(scaler, p, optimizer, 1.0, 0.0).stepped
    assert bool(p.isfinite().all()) is healthy


def test_without_a_floor_the_second_test_still_guards_the_weights() -> None:
    p, scaler = parameter(1.0), LossScaler(DynamicScale(init_scale=2.0**-128, min_scale=None))
    assert not one_step(scaler, p, sgd(p), 1.0).stepped
    assert p.item() == 1.0


# --- scale() ---------------------------------------------------------------------------------------------------


def test_scale_keeps_the_structure() -> None:
    Pair = namedtuple("Pair", "left right")
    scaler, one = LossScaler(StaticScale(8.0)), torch.ones(())
    got = scaler.scale({"a": [one, (one, one)], "b": Pair(one, one * 2)})
    assert got == {"a": [8.0, (8.0, 8.0)], "b": Pair(8.0, 16.0)}
    assert type(got["b"]) is Pair


def test_a_half_loss_is_scaled_in_float32() -> None:
    scaler = LossScaler()
    for shape in ((), (3,)):
        scaled = scaler.scale(torch.ones(shape, dtype=torch.float16))
        assert scaled.dtype == torch.float32
        assert bool((scaled == 65536.0).all())
    assert scaler.scale(torch.ones(3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert scaler.scale(torch.ones((), dtype=torch.float64)).dtype == torch.float64


def test_scale_is_out_of_reach_of_function_modes() -> None:
    class Zero(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return torch.zeros(()) if func in (Tensor.mul, torch.mul) else func(*args, **(kwargs or {}))

    scaler = LossScaler()
    with Zero():
        assert (torch.ones(()) * 2).item() == 0.0
        scaled = scaler.scale(torch.ones(()))
    assert scaled.item() == 65536.0


def test_the_state_is_float32_whatever_the_default_dtype() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        p, scaler = torch.nn.Parameter(torch.zeros(1, dtype=torch.float32)), LossScaler(StaticScale(0.1))
        scaler.scale(p.sum()).backward()
        assert scaler.step(sgd(p)).stepped
        scaler.update()
    finally:
        torch.set_default_dtype(torch.float32)
    tensors = scaler._memory.tensors
    assert tensors is not None
    assert (tensors.scale.dtype, tensors.one.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize(
    ("loss", "got"), [(torch.ones((), dtype=torch.int64), "a tensor of torch.int64"), (1.0, "float"), ("x", "str")]
)
def test_scale_refuses_what_is_no_float_tensor(loss: object, got: str) -> None:
    with pytest.raises(TypeError, match=rf"scale\(\) needs a floating-point tensor, or a list.*, got {got}"):
        LossScaler().scale(loss)


# --- sparse, bfloat16 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("huge", [1.0, 3e38])
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_gradients_are_coalesced_then_tested(huge: float) -> None:
    """3e38 twice in the same row is finite each time and Inf in the sum."""
    table = torch.nn.Parameter(torch.zeros(4, 1))
    scaler, optimizer = LossScaler(NoScaling()), sgd(table)
    scaler.scale(torch.ones(()))
    table.grad = torch.sparse_coo_tensor(torch.tensor([[1, 1, 2]]), torch.tensor([[huge], [huge], [1.0]]), (4, 1))
    result = scaler.step(optimizer)
    assert result.stepped is (huge == 1.0)
    assert table.flatten().tolist() == ([0.0, -2.0, -1.0, 0.0] if result.stepped else [0.0] * 4)
    assert result.inf_count == (0 if result.stepped else 1)


def test_sparse_gradients_are_unscaled() -> None:
    layer = torch.nn.Embedding(4, 2, sparse=True)
    torch.nn.init.zeros_(layer.weight)
    scaler = LossScaler()
    scaler.scale(layer(torch.tensor([1, 1, 3])).sum()).backward()
    assert scaler.step(sgd(layer.weight)).stepped
    assert layer.weight.tolist() == [[0, 0], [-2, -2], [0, 0], [-1, -1]]


@pytest.fixture
def no_bfloat16_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A torch whose kernel lacks bfloat16, as CUDA builds of torch 2.11 do."""
    kernel = torch._amp_foreach_non_finite_check_and_unscale_

    def refuses(grads: list[Tensor], found_inf: Tensor, inv_scale: Tensor) -> None:
        if grads[0].dtype == torch.bfloat16:
            raise NotImplementedError("not implemented for 'BFloat16'")
        kernel(grads, found_inf, inv_scale)

    monkeypatch.setattr(torch, "_amp_foreach_non_finite_check_and_unscale_", refuses)
    unscaling._kernel_supports.cache_clear()
    yield
    unscaling._kernel_supports.cache_clear()


def test_bfloat16_gradients() -> None:
    check_bfloat16()


def test_bfloat16_gradients_without_torchs_kernel(no_bfloat16_kernel: None) -> None:
    assert not unscaling._kernel_supports("cpu", torch.bfloat16)
    check_bfloat16()


def check_bfloat16() -> None:
    values = torch.randn(500).bfloat16()
    p = torch.nn.Parameter(torch.zeros(500, dtype=torch.bfloat16))
    scaler, optimizer = LossScaler(StaticScale(3.0)), sgd(p)
    scaler.scale(torch.ones(()))
    p.grad = values.clone()
    scaler.unscale_(optimizer)
    assert torch.equal(p.grad, (values.float() * torch.tensor(1 / 3)).bfloat16())
    assert scaler.step(optimizer).stepped
    scaler.update()
    p.grad = values.clone()
    p.grad[7] = NAN
    assert scaler.step(optimizer).nan_count == 1


def test_many_parameters_of_all_kinds_are_each_unscaled_once() -> None:
    """More than one bucket of parameters, some frozen, some float64, in an order that the sizes do not follow."""
    shapes = [(i % 7 + 1, i % 5 + 1) for i in range(150)]
    params = [
        torch.nn.Parameter(torch.zeros(s, dtype=[torch.float32, torch.float64][i % 3 == 0]))
        for i, s in enumerate(shapes)
    ]
    scaler, optimizer = LossScaler(), sgd(*params)
    for bad in (None, 149, 0):
        scaler.scale(torch.ones(()))
        for i, p in enumerate(params):
            p.grad = None if i % 11 == 1 else torch.full_like(p, 65536.0 * i)
        if bad is not None:
            params[bad].grad[-1, -1] = NAN
        result = scaler.step(optimizer)
        assert result.stepped is (bad is None)
        assert bad is None or result.first_bad.startswith(f"param_groups[0]['params'][{bad}],")
        for i, p in enumerate(params):
            assert bool((p == (0.0 if i % 11 == 1 else -float(i))).all())
        scaler.update()
        scaler.load_state_dict({**scaler.state_dict(), "scale": 65536.0})


# --- when a result is looked at ---------------------------------------------------------------------------------


def test_a_result_keeps_its_findings_after_the_gradients_are_gone() -> None:
    p, scaler = parameter(1.0), LossScaler()
    optimizer, results = sgd(p), []
    for gradient in (INF, 1.0, NAN):
        optimizer.zero_grad()
        results.append(one_step(scaler, p, optimizer, gradient))
    give(scaler, p, 1.0)
    assert [r.stepped for r in results] == [False, True, False]
    assert [r.scale for r in results] == [65536.0, 32768.0, 32768.0]
    assert [(r.inf_count, r.nan_count) for r in results] == [(1, 0), (0, 0), (0, 1)]


def test_results_do_not_hold_gradients_beyond_the_next_scale() -> None:
    p, scaler = parameter(1.0), LossScaler()
    optimizer = sgd(p, fused=True)
    result, held = one_step(scaler, p, optimizer, INF), weakref.ref(p.grad)
    optimizer.zero_grad()
    gc.collect()
    assert held() is not None
    scaler.scale(torch.ones(()))
    gc.collect()
    assert held() is None
    assert result.inf_count == 1
    assert all(plan.gathered == [] for plan in scaler._iteration.plans)


def test_a_result_that_was_looked_at_too_late_says_so() -> None:
    """On a GPU with a fused optimizer, letting go of the gradients may not wait for the device."""
    p, scaler = parameter(1.0), LossScaler()
    result = one_step(scaler, p, sgd(p, fused=True), INF)
    result._evidence.release(evidence.GONE)
    assert not result.stepped
    assert result.reason == (
        "skipped: a gradient was not finite (its gradients were let go at the next scale(); "
        "look at a result before that to learn which)"
    )
    with pytest.raises(
        RuntimeError, match=r"this step found a gradient that was not finite, but its gradients were let"
    ):
        _ = result.inf_count


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_that_were_changed_after_the_step(fused: bool) -> None:
    """The host's own decision is exact for good; a fused optimizer's result says that it cannot know any more."""
    p, scaler = parameter(1.0), LossScaler()
    optimizer = sgd(p, fused=fused)
    result = one_step(scaler, p, optimizer, INF)
    optimizer.zero_grad(set_to_none=False)
    assert result.found_inf
    if not fused:
        assert (result.inf_count, result.first_bad) == (1, "param_groups[0]['params'][0], shape (1,)")
        return
    assert result.reason == (
        "skipped: a gradient was not finite (its gradients were changed after the check; "
        "look at a result before that to learn which)"
    )
    for name in ("first_bad", "inf_count", "nan_count"):
        with pytest.raises(RuntimeError, match=r"not finite, but its gradients were changed after the check; look at"):
            getattr(result, name)


def counted(name: str, reads: list[str]) -> Callable[[Tensor], Any]:
    original = getattr(Tensor, name)

    def read(self: Tensor) -> Any:
        reads.append(name)
        return original(self)

    return read


def test_a_fused_step_reads_nothing_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    for name in ("item", "__bool__", "__float__", "__int__", "tolist"):
        monkeypatch.setattr(Tensor, name, counted(name, reads))
    p, scaler = parameter(1.0), LossScaler()
    fused, plain = sgd(p, fused=True), sgd(p)
    give(scaler, p, 1.0)
    result = scaler.step(fused)
    scaler.update()
    assert reads == []
    assert result.stepped
    assert len(reads) == 1
    p.grad = torch.ones(1)
    result = scaler.step(plain)
    scaler.update()
    assert len(reads) == 2
    assert result.stepped
    assert len(reads) == 2


# --- misuse: the cause and the cure ------------------------------------------------------------------------------


@pytest.fixture
def ready() -> tuple[LossScaler, torch.optim.SGD]:
    p, scaler = parameter(1.0), LossScaler()
    give(scaler, p, 1.0)
    return scaler, sgd(p)


class Wrapper:
    """What a framework puts around an optimizer: another object over the same parameters."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.inner.param_groups

    def step(self) -> None:
        self.inner.step()


def test_unscale_twice(ready: Any) -> None:
    scaler, optimizer = ready
    scaler.unscale_(optimizer)
    for again in (optimizer, Wrapper(optimizer)):
        with pytest.raises(
            RuntimeError, match=r"unscale_\(\) was called twice .* Call it once an iteration, after the"
        ):
            scaler.unscale_(again)


def test_a_wrapper_and_its_inner_optimizer_unscale_once(ready: Any) -> None:
    scaler, optimizer = ready
    scaler.unscale_(Wrapper(optimizer))
    scaler.step(optimizer)
    assert optimizer.param_groups[0]["params"][0].item() == 0.0
    with pytest.raises(RuntimeError, match=r"step\(\) was called twice on this optimizer \(or on a wrapper of it\)"):
        scaler.step(Wrapper(optimizer))


def test_unscale_after_step(ready: Any) -> None:
    scaler, optimizer = ready
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) was called after step\(\) .* Call unscale_\(\), then clip"):
        scaler.unscale_(optimizer)


def test_step_twice(ready: Any) -> None:
    scaler, optimizer = ready
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"step\(\) was called twice .* Call update\(\) once at the end of every"):
        scaler.step(optimizer)


@pytest.mark.parametrize("verb", ["step", "unscale_", "update"])
def test_before_any_scale(verb: str) -> None:
    arguments = [] if verb == "update" else [sgd(parameter(1.0))]
    with pytest.raises(RuntimeError, match=rf"{verb}\(\) was called before any scale\(\): .* Call backward\(\) on"):
        getattr(LossScaler(), verb)(*arguments)


def test_update_without_step(ready: Any) -> None:
    scaler, optimizer = ready
    with pytest.raises(RuntimeError, match=r"update\(\) has nothing to judge: .* Call step\(optimizer\) first"):
        scaler.update()
    scaler.step(optimizer)
    scaler.update()
    with pytest.raises(RuntimeError, match="nothing to judge"):
        scaler.update()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("verb", ["step", "unscale_"])
def test_no_gradient_at_all(verb: str, fused: bool) -> None:
    scaler = LossScaler()
    scaler.scale(torch.ones(()))
    with pytest.raises(RuntimeError, match=rf"{verb}\(\): no parameter of this optimizer has a gradient. .* frozen"):
        getattr(scaler, verb)(sgd(parameter(1.0), fused=fused))


@pytest.mark.parametrize("fused", [False, True])
def test_float16_parameters(fused: bool) -> None:
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.float16))
    optimizer = torch.optim.SGD([("body", parameter(1.0)), ("head.weight", p)], lr=1.0, fused=fused)
    scaler = LossScaler()
    scaler.scale(torch.ones(()))
    p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match=r"the parameter head.weight is float16. Keep the weights in FP32"):
        scaler.step(optimizer)
    assert p.tolist() == [1.0, 1.0]
    p.grad, optimizer.param_groups[0]["params"][0].grad = None, torch.ones(1)
    assert scaler.step(optimizer).stepped  # frozen half weights take no update, so they are no problem


@pytest.mark.parametrize("fused", [False, True])
def test_a_parameter_group_added_between_unscale_and_step(ready: Any, fused: bool) -> None:
    scaler, _ = ready
    a, b = parameter(0.0), parameter(0.0)
    optimizer = sgd(a, fused=fused)
    give(scaler, a, 1.0)
    scaler.unscale_(optimizer)
    optimizer.add_param_group({"params": [b]})
    give(scaler, b, 1.0)
    with pytest.raises(
        RuntimeError, match=r"step\(\): the gradient of .* already unscaled .* group was added .* before"
    ):
        scaler.step(optimizer)
    assert (a.item(), b.item(), a.grad.item()) == (0.0, 0.0, 1.0)  # type: ignore[union-attr]


@pytest.mark.parametrize("verb", ["step", "unscale_"])
@pytest.mark.parametrize("before", ["step", "unscale_"])
def test_two_optimizers_that_share_a_gradient(before: str, verb: str) -> None:
    p, q, r, scaler = parameter(0.0), parameter(0.0), parameter(0.0), LossScaler()
    first, second = sgd(p, q), torch.optim.SGD([("p", p), ("r", r)], lr=1.0)
    for x in (p, q, r):
        give(scaler, x, 1.0)
    getattr(scaler, before)(first)
    with pytest.raises(RuntimeError, match=rf"{verb}\(\): the gradient of the parameter p was already .* share"):
        getattr(scaler, verb)(second)
    assert (p.grad.item(), r.grad.item()) == (1.0, 65536.0)  # type: ignore[union-attr]


def test_a_shared_parameter_without_a_gradient_is_no_obstacle() -> None:
    """The key is the whole list, so that the same first parameter does not make two optimizers one."""
    p, q, r, scaler = parameter(0.0), parameter(0.0), parameter(0.0), LossScaler()
    give(scaler, q, 1.0)
    give(scaler, r, 2.0)
    assert scaler.step(sgd(p, q))
    assert scaler.step(sgd(p, r))
    assert (p.item(), q.item(), r.item()) == (0.0, -1.0, -2.0)


def test_closures(ready: Any) -> None:
    scaler, optimizer = ready
    for arguments, options in (((lambda: 1.0,), {}), ((), {"closure": lambda: 1.0})):
        with pytest.raises(RuntimeError, match=r"given a closure, .* then step\(optimizer\) alone"):
            scaler.step(optimizer, *arguments, **options)


def test_arguments_of_the_wrong_kind(ready: Any) -> None:
    with pytest.raises(TypeError, match=r"step\(\) needs an optimizer .* got Linear. Pass the optimizer itself"):
        ready[0].step(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"LossScaler needs a rule, such as DynamicScale\(\).*, got 1024"):
        LossScaler(1024)  # type: ignore[arg-type]


def test_abandon_drops_an_interrupted_iteration() -> None:
    class Interrupted(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            raise KeyboardInterrupt

    p, scaler = parameter(0.0), LossScaler()
    bad, good = sgd(p), Interrupted([parameter(0.0)], lr=1.0)
    scaler.abandon()  # with nothing to drop
    give(scaler, p, INF)
    scaler.step(bad)
    bad.zero_grad()
    give(scaler, good.param_groups[0]["params"][0], 1.0)
    with pytest.raises(KeyboardInterrupt):
        scaler.step(good)
    with pytest.raises(RuntimeError, match=r"or abandon\(\) if the iteration was interrupted"):
        scaler.state_dict()
    scaler.abandon()
    assert (scaler.state_dict()["scale"], scaler.state_dict()["growth_tracker"]) == (65536.0, 0)
    assert one_step(scaler, p, bad, 1.0).stepped, "found_inf of the dropped iteration is gone"
    assert (p.item(), scaler.get_scale()) == (-1.0, 65536.0)


def test_a_scaler_lets_go_of_models_that_are_gone() -> None:
    scaler, seen = LossScaler(), []
    for _ in range(4):
        p = parameter(0.0)
        one_step(scaler, p, sgd(p), 1.0)
        assert p.grad is not None
        seen += [weakref.ref(p), weakref.ref(p.grad)]
        del p
    gc.collect()
    assert [ref() for ref in seen[:-2]] == [None] * 6


def test_what_a_cuda_graph_writes_to_is_kept() -> None:
    p, q, scaler = parameter(0.0), parameter(0.0), LossScaler()
    one_step(scaler, p, sgd(p), 1.0)
    (plan,) = scaler._iteration.plans
    plan.captured = True  # as a check inside a capture leaves it
    one_step(scaler, q, sgd(q), 1.0)
    assert plan in scaler._iteration.plans
    plan.captured = False
    one_step(scaler, q, sgd(q), 1.0)
    assert plan not in scaler._iteration.plans


@pytest.mark.parametrize("again", [copy.deepcopy, lambda scaler: pickle.loads(pickle.dumps(scaler))])
def test_copies_between_iterations(ready: Any, again: Callable[[LossScaler], LossScaler]) -> None:
    scaler, optimizer = ready
    p = optimizer.param_groups[0]["params"][0]
    result = scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"a copy or a pickle was asked for between .* Call update\(\) first"):
        again(scaler)
    scaler.update()
    twin = again(scaler)
    assert result.stepped
    assert twin.state_dict() == scaler.state_dict()
    optimizer.zero_grad()
    assert not one_step(twin, p, optimizer, INF).stepped
    assert (twin.get_scale(), scaler.get_scale()) == (32768.0, 65536.0)


# --- saving and resuming ------------------------------------------------------------------------------------------


def test_state_dict_is_plain_and_complete(ready: Any) -> None:
    scaler, optimizer = ready
    scaler.step(optimizer)
    scaler.update()
    state = scaler.state_dict()
    assert json.loads(json.dumps(state)) == state
    assert (state["scale"], state["growth_tracker"]) == (65536.0, 1)
    assert state["rule"]["name"] == "DynamicScale"
    assert state["rule"]["growth_interval"] == 2000


def test_a_new_scaler_has_a_state_too() -> None:
    assert LossScaler(StaticScale(8.0)).state_dict() == {
        "scale": 8.0,
        "growth_tracker": 0,
        "rule": {"name": "StaticScale", "check_unscaled": True, "scale": 8.0},
    }


@pytest.mark.parametrize("verb", ["unscale_", "step"])
def test_no_state_in_the_middle_of_an_iteration(ready: Any, verb: str) -> None:
    scaler, optimizer = ready
    getattr(scaler, verb)(optimizer)
    with pytest.raises(RuntimeError, match=r"state_dict\(\), .* was asked for between .* Call update\(\) first"):
        scaler.state_dict()
    scaler.update()
    assert scaler.state_dict()["growth_tracker"] == 1


def test_loading_drops_the_iteration_in_progress(ready: Any) -> None:
    scaler, optimizer = ready
    state = scaler.state_dict()
    scaler.step(optimizer)
    scaler.load_state_dict({**state, "scale": 4.0, "growth_tracker": 1999})
    give(scaler, optimizer.param_groups[0]["params"][0], 1.0)
    assert scaler.step(optimizer).scale == 4.0
    scaler.update()
    assert scaler.get_scale() == 8.0


def test_loading_into_another_rule_names_both() -> None:
    state = LossScaler(DynamicScale(growth_interval=7)).state_dict()
    with pytest.raises(ValueError, match=r"saved by the rule .*'growth_interval': 7.* runs .*'growth_interval': 2000"):
        LossScaler().load_state_dict(state)
    with pytest.raises(
        ValueError, match=r"saved by the rule .*DynamicScale.* runs .*NoScaling.* Build LossScaler with"
    ):
        LossScaler(NoScaling()).load_state_dict(state)


@pytest.mark.parametrize("change", [{"scale": NAN}, {"scale": -1.0}, {"scale": INF}, {"growth_tracker": 1.5}, None])
def test_a_state_that_is_none_of_ours(change: dict[str, Any] | None) -> None:
    state = {"scale": 1.0, "_growth": 0} if change is None else {**LossScaler().state_dict(), **change}
    with pytest.raises(ValueError, match=r"load_state_dict\(\) needs what LossScaler.state_dict\(\) returns"):
        LossScaler().load_state_dict(state)


def test_the_update_is_the_rules_own() -> None:
    class Tripling(ScaleRule):
        def init(self) -> ScaleState:
            return ScaleState(2.0)

        def update(self, state: ScaleState, found_inf: bool) -> ScaleState:
            return ScaleState(1.0 if found_inf else state.scale * 3)

    p, scaler = parameter(0.0), LossScaler(Tripling())
    optimizer, scales = sgd(p), []
    for gradient in (1.0, 1.0, INF, 1.0):
        optimizer.zero_grad()
        one_step(scaler, p, optimizer, gradient)
        scales.append(scaler.get_scale())
    assert scales == [6.0, 18.0, 1.0, 3.0]
    assert torch.allclose(p.detach(), torch.tensor([-3.0]))


# --- the preset "torch" decides as torch.amp.GradScaler ------------------------------------------------------------


class Side:
    """One of the two scalers, with its own copy of the same training."""

    def __init__(self, scaler: Any, optimizers: list[str]) -> None:
        self.scaler = scaler
        self.params = [parameter(0.5, -0.25, 1.0) for _ in optimizers]
        make = {
            "sgd": lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9, foreach=False),
            "fused": lambda p: torch.optim.SGD([p], lr=0.1, fused=True),
            "adam": lambda p: torch.optim.Adam([p], lr=0.1, foreach=False),
        }
        self.optimizers = [make[kind](p) for kind, p in zip(optimizers, self.params, strict=True)]

    def iterate(self, plan: list[tuple[list[Tensor], bool]]) -> None:
        """Accumulate the given gradients and step every optimizer; `unscale` says whether to unscale first."""
        for optimizer, param, (gradients, unscale) in zip(self.optimizers, self.params, plan, strict=True):
            # What backward() of the scaled loss sum(param * gradient) would write, at a fraction of the time.
            scaled = [self.scaler.scale(gradient) for gradient in gradients]
            param.grad = scaled[0] if len(scaled) == 1 else scaled[0] + scaled[1]
            if unscale:
                self.scaler.unscale_(optimizer)
            self.scaler.step(optimizer)
        self.scaler.update()

    def weights(self) -> Tensor:
        return torch.cat([p.detach() for p in self.params]).view(torch.int32)


def random_gradient(rng: random.Random, bad: float) -> Tensor:
    """Three values over all of float32's range, so that some overflow only because of the scale."""
    values = [rng.choice([-1, 1]) * 10 ** rng.uniform(-12, 3) for _ in range(3)]
    if rng.random() < bad:
        values[rng.randrange(3)] = rng.choice([INF, -INF, NAN, 10 ** rng.uniform(28, 38)])
    return torch.tensor(values)


def race(seed: int, steps: int) -> tuple[int, int]:
    """Run both sides on one random sequence; return how many scales and weights changed, to see that both did."""
    rng = random.Random(seed)
    kinds = [rng.choice(["sgd", "sgd", "fused", "fused", "adam"]) for _ in range(rng.choice([1, 1, 1, 1, 2]))]
    options: dict[str, Any] = {
        "init_scale": rng.choice([2.0**16, 2.0**16, 1000.0, 1.0, 2.0**-120, 2.0**126]),
        "growth_factor": rng.choice([2.0, 2.0, 1.5, 4.0]),
        "backoff_factor": rng.choice([0.5, 0.5, 0.3, 0.9]),
        "growth_interval": rng.choice([1, 3, 10, 50]),
    }
    rule = DynamicScale(**options, min_scale=None, check_unscaled=False)
    bad, accumulate = rng.choice([0.0, 0.05, 0.3, 0.97]), rng.choice([1, 1, 1, 2])
    torchs = Side(torch.amp.GradScaler("cpu", **options), kinds)
    ours = Side(LossScaler(rule), kinds)
    stop, changes, moves = rng.randrange(steps), 0, 0
    now = torchs.scaler.get_scale(), torchs.weights()
    for step in range(steps):
        gradients = [[random_gradient(rng, bad) for _ in range(accumulate)] for _ in kinds]
        plan = [(g, rng.random() < 0.3) for g in gradients]
        torchs.iterate(plan)
        ours.iterate(plan)
        last, now = now, (torchs.scaler.get_scale(), torchs.weights())
        assert torch.equal(ours.weights(), now[1]), (seed, step)
        assert ours.scaler.get_scale() == now[0], (seed, step)
        changes += last[0] != now[0]
        moves += not torch.equal(last[1], now[1])
        if step == stop:
            torchs.scaler, ours.scaler = resumed_torch(torchs.scaler, options), resumed(ours.scaler, rule)
    return changes, moves


def resumed(old: LossScaler, rule: ScaleRule) -> LossScaler:
    new = LossScaler(rule)
    new.load_state_dict(json.loads(json.dumps(old.state_dict())))
    return new


def resumed_torch(old: Any, options: dict[str, Any]) -> Any:
    new = torch.amp.GradScaler("cpu", **options)
    new.load_state_dict(old.state_dict())
    return new


@pytest.mark.parametrize("block", range(10))
def test_the_torch_preset_decides_as_grad_scaler(block: int) -> None:
    outcomes = [race(seed, steps=200) for seed in range(block * 20, block * 20 + 20)]
    assert sum(changes for changes, _ in outcomes) > 100
    assert sum(moves for _, moves in outcomes) > 100


def test_a_first_step_that_fused_sgd_skips_leaves_no_rubbish_in_its_momentum() -> None:
    """torch.optim.SGD(fused=True) takes its momentum from uninitialized memory, which a skipped step does not write."""

    def train(scaler: Any) -> Tensor:
        p = torch.nn.Parameter(torch.zeros(3))
        optimizer = torch.optim.SGD([p], lr=1.0, momentum=0.9, fused=True)
        for value in (math.inf, 1.0, 1.0):
            optimizer.zero_grad()
            scaler.scale((p * value).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        return p.detach()

    torch.use_deterministic_algorithms(True)  # also fills uninitialized memory, with NaN
    try:
        assert torch.allclose(train(LossScaler(preset("torch"))), torch.tensor(-2.9))
        theirs = train(torch.amp.GradScaler("cpu"))
    finally:
        torch.use_deterministic_algorithms(False)
    print("GradScaler, the same steps:", theirs.tolist())


def test_the_reciprocal_is_that_of_grad_scaler() -> None:
    scales = torch.cat([torch.rand(200_000) * 2.0**k for k in (-20, 0, 5, 16, 40)])
    assert torch.equal(scales.reciprocal(), scales.double().reciprocal().float())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("megatron", {"hysteresis_tracker": 0}), ("megatron", {"hysteresis_tracker": 3}),
        ("megatron", {"hysteresis_tracker": math.nan}), ("megatron", {"hysteresis_tracker": "x"}),
        ("openseq2seq-logmax", {"steps": -1}), ("openseq2seq-logmax", {"mean": math.nan}),
        ("mpkit", {"growth_tracker": 2**40}), ("mpkit", {"scale": 1e300}), ("mpkit", {"scale": True}),
        ("mpkit", {"scale": 1e-40}),
    ],
)  # fmt: skip
def test_a_state_that_no_run_can_have_is_refused(name: str, changes: dict[str, object]) -> None:
    scaler = LossScaler(preset(name))
    state = scaler.state_dict()
    scaler.load_state_dict(state)
    with pytest.raises(ValueError, match=r"load_state_dict\(\) needs what LossScaler.state_dict\(\) returns"):
        scaler.load_state_dict({**state, **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": math.nan}, r"'scale' is nan, not a number from 1.0 to 3.4028\d+e\+38. Take the state from another"),
        ({"scale": "8"}, r"'scale' is '8', not a number from"),
        ({"growth_tracker": 1.5}, r"'growth_tracker' is 1.5, not a whole number from 0 to 2147483647. Take"),
        ({"growth_tracker": -1}, r"'growth_tracker' is -1, not a whole number from"),
        ({"growth_tracker": ...}, r"'growth_tracker' is missing; it has 'scale', 'hysteresis_tracker', 'rule'. Take"),
        ({"hysteresis_tracker": 3}, r"'hysteresis_tracker' is 3, not a whole number from 1 to 2. Take"),
        ({"rule": ...}, r"'rule' is missing; it has 'scale', 'growth_tracker', 'hysteresis_tracker'. Take"),
    ],
)
def test_a_bad_state_names_its_field(change: dict[str, Any], message: str) -> None:
    """`...` takes the field away."""
    scaler = LossScaler(dataclasses.replace(preset("megatron"), min_scale=1.0, grow_to_inf=False))  # type: ignore[type-var, call-arg]
    state = {key: value for key, value in {**scaler.state_dict(), **change}.items() if value is not ...}
    with pytest.raises(ValueError, match=r"needs what LossScaler.state_dict\(\) returns, but " + message):
        scaler.load_state_dict(state)
    assert scaler.state_dict() == LossScaler(scaler.rule).state_dict()


@pytest.mark.parametrize("enabled", [True, False])
def test_an_empty_state(enabled: bool) -> None:
    """That is what a scaler saves that is not enabled; GradScaler refuses it too."""
    scaler = LossScaler("cuda", enabled=enabled)
    if not enabled:
        scaler.load_state_dict({})
        return
    with pytest.raises(ValueError, match=r"this state is empty: a scaler that was not enabled saved it. Leave load_"):
        scaler.load_state_dict({})
    with pytest.raises(RuntimeError, match="state dict is empty"):
        torch.amp.GradScaler("cpu").load_state_dict({})
    for wrong in (None, [1.0]):
        with pytest.raises(ValueError, match=r"returns, a dict, but (NoneType|list) came. Pass that dict."):
            scaler.load_state_dict(wrong)  # type: ignore[arg-type]


def test_a_rule_that_grows_to_inf_can_resume_there() -> None:
    scaler = LossScaler(preset("keras"))
    scaler.load_state_dict({**scaler.state_dict(), "scale": math.inf})
    assert scaler.get_scale() == math.inf


def test_statistics_are_those_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank's numbers, as all_reduce would bring them: 4 for amax and norm, one more of every count."""

    def all_reduce(tensor: Tensor, op: Any, group: Any) -> None:
        if op == dist.ReduceOp.MAX:
            tensor.clamp_(min=4.0)
        else:
            tensor.add_(1)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    groups: Any = [SimpleNamespace(_device_types=[torch.device("cpu")])]
    plan = unscaling.GradientPlan([p := torch.nn.Parameter(torch.zeros(2))], torch.device("cpu"))
    p.grad = torch.tensor([0.0, 8.0])
    plan.check_and_unscale(torch.ones(()))
    seen, alone = plan.stats(histogram=True).over_ranks(torch.device("cpu"), groups), ExponentHistogram.of(p.grad)
    assert (seen.amax, seen.norm) == (8.0, 8.0)
    assert seen.histogram is not None
    assert torch.equal(seen.histogram.counts, alone.counts + 1)
    assert (seen.histogram.zeros, seen.histogram.inf, seen.histogram.nan) == (2, 1, 1)
    for bad in (math.nan, math.inf):
        p.grad = torch.tensor([0.0, bad])
        plan.check_and_unscale(torch.ones(()))
        assert plan.stats(histogram=False).over_ranks(torch.device("cpu"), groups).amax == math.inf


@pytest.mark.parametrize("floor", [1e-4, 1e-3, 0.3, 1.0])
def test_a_scale_that_rests_on_its_floor_can_be_saved_and_resumed(floor: float) -> None:
    """1e-4 rounds down in float32, in which the scale is kept."""
    rule = DynamicScale(init_scale=1.0, min_scale=floor)
    scaler, p = LossScaler(rule), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        scaler.scale((p * math.inf).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    resumed = LossScaler(rule)
    resumed.load_state_dict(scaler.state_dict())
    assert resumed.get_scale() == pytest.approx(floor)


# --- a scale that is always 1 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [NoScaling(), StaticScale(1.0), DynamicScale(init_scale=1.0, max_scale=1.0)])
def test_where_the_scale_is_always_1_a_fused_optimizer_divides_nothing(
    rule: ScaleRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's fused kernels write all gradients back where they are told to divide them. The weights stay the same."""
    told: list[Any] = []
    plain = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, closure: Any = None) -> Any:
        told.append(getattr(self, "grad_scale", None))
        return plain(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    draws = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    weights = []
    for scaler in (LossScaler(rule), LossScaler(StaticScale(2.0))):
        weight = torch.nn.Parameter(torch.ones(5))
        optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
        for row, factor in zip(draws, (1.0, math.inf, 1.0, 1.0), strict=True):
            optimizer.zero_grad()
            scaler.scale((weight * row).sum() * factor).backward()
            result = scaler.step(optimizer)
            assert result.stepped == (factor == 1.0)
            scaler.update()
        weights.append(weight.detach())
    assert told[:4] == [None] * 4
    assert all(isinstance(scale, Tensor) for scale in told[4:])
    assert torch.equal(*weights)


def test_a_state_beyond_the_largest_scale_of_a_rule_that_never_changes() -> None:
    for rule in (NoScaling(), StaticScale(8.0)):
        state = LossScaler(rule).state_dict()
        with pytest.raises(ValueError, match=r"'scale' is 1024.0, not a number from"):
            LossScaler(rule).load_state_dict({**state, "scale": 1024.0})
