"""trace against hand-made failures whose cause is known."""

from __future__ import annotations

import gc
import inspect
import math
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from mpkit.casting import cast, fake_cast
from mpkit.formats import BF16, E4M3, FP16, FloatFormat
from mpkit.histogram import ExponentHistogram
from mpkit.overflow import found_inf, tally
from mpkit.policy.policy import Policy
from mpkit.scaling import GradientStats, LossScaler, StaticScale
from mpkit.scaling.gradient_plan import GradientPlan
from mpkit.tracing import glance as reading
from mpkit.tracing import ledger as trace_ledger
from mpkit.tracing.event import TraceEvent, judge
from mpkit.tracing.watch import Trace, trace
from mpkit.trees import tensors_in

INF, NAN = math.inf, math.nan


class Step(nn.Module):
    """A model of one line: whatever function it is given."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def linear(model: nn.Module, path: str) -> nn.Linear:
    layer = model.get_submodule(path)
    assert isinstance(layer, nn.Linear)
    return layer


def weight(model: nn.Module, path: int | str) -> Tensor:
    return linear(model, str(path)).weight


class Encoder(nn.Module):
    """Two levels of names, and an exp that overflows in float32 beyond 88."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), Step(lambda x: x.exp()), nn.Linear(4, 4))
        nn.init.eye_(weight(self.layers, 0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        return x


def only(watched: Trace) -> TraceEvent:
    """The first event, which must be the only cause."""
    assert [e for e in watched.events if e.kind != "propagated"] == [watched.first]
    assert watched.first is not None
    return watched.first


def line_of(function: Any, offset: int) -> str:
    return f"test_tracing.py:{inspect.getsourcelines(function)[1] + offset}"


def test_a_clean_step_has_no_first_event() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.LayerNorm(8), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters())
    with trace(model) as watched:
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(torch.randn(5, 4)), torch.tensor([0, 1, 0, 1, 1])).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert watched.first is None
    assert watched.events == []
    assert repr(watched) == "Trace(nothing went wrong)"


def test_half_matmul_overflow() -> None:
    model = nn.Sequential(nn.Linear(64, 4, bias=False), nn.Tanh()).half()
    nn.init.constant_(weight(model, 0), 10.0)
    with trace(model) as watched:
        model(torch.full((2, 64), 200.0, dtype=torch.float16))  # 64 * 2000 = 128000 > 65504
    event = only(watched)
    assert (event.kind, event.phase, event.module, event.operation) == ("overflow", "forward", "0", "linear")
    assert (event.shape, event.dtype, event.inf_count, event.nan_count) == ((2, 4), "float16", 8, 0)
    assert (event.input_amax, event.output_amax) == (200.0, INF)


def test_source_line_and_nested_module_path() -> None:
    model = Encoder()
    with trace(model) as watched:
        model(torch.full((1, 4), 100.0)).sum().backward()
    event = only(watched)
    assert (event.kind, event.module, event.operation) == ("overflow", "layers.1", "exp")
    assert event.line == line_of(Encoder, 5)  # the lambda in __init__
    assert str(event) == (
        f"overflow in the forward pass: exp in layers.1 ({event.line}) makes 4 Inf of 4 values; "
        f"float32 (1, 4), largest input {event.input_amax:.3g}, largest output inf."
    )


def test_the_line_is_the_one_in_forward() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            return torch.exp(y)

    model = Model()
    with trace(model) as watched:
        model(torch.full((1,), 100.0))
    assert only(watched).line == line_of(Model, 3)
    assert only(watched).module == "(model)"


def test_log_of_a_negative_number_is_invalid() -> None:
    model = nn.Sequential(nn.Identity(), Step(torch.log), nn.Linear(3, 2))
    with trace(model) as watched:
        model(torch.tensor([[1.0, -1.0, 2.0]])).sum().backward()
    event = only(watched)
    assert (event.kind, event.module, event.operation, event.nan_count) == ("invalid", "1", "log", 1)


def test_nan_in_backward_of_sqrt_at_zero_times_zero() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Step(torch.sqrt), Step(lambda x: x * 0.0))
    nn.init.zeros_(weight(model, 0))
    nn.init.zeros_(linear(model, "0").bias)
    with trace(model) as watched:
        loss = model(torch.ones(1, 2)).sum()
        loss.backward()
    assert loss.isfinite()
    event = only(watched)  # the linear layer's NaN gradients are consequences
    assert (event.kind, event.phase, event.module, event.operation) == ("invalid", "backward", "1", "sqrt")
    assert event.nan_count == 2
    assert "invalid in the backward pass: the gradient of sqrt in 1" in str(event)


def test_infinite_gradient_where_detect_anomaly_is_silent() -> None:
    model = nn.Sequential(nn.Linear(1, 1), Step(torch.sqrt))
    nn.init.zeros_(weight(model, 0))
    nn.init.zeros_(linear(model, "0").bias)
    with warnings.catch_warnings(), torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("ignore")
        model(torch.ones(1, 1)).sum().backward()  # no error, though the gradient is Inf
    assert [grad.item() for grad in (linear(model, "0").bias.grad,) if grad is not None] == [INF]
    with trace(model) as watched:
        model(torch.ones(1, 1)).sum().backward()
    assert (only(watched).kind, only(watched).phase, only(watched).operation) == ("overflow", "backward", "sqrt")


def test_forward_overflow_where_detect_anomaly_is_silent() -> None:
    model = nn.Sequential(Step(lambda x: x * 300))
    x = torch.full((3,), 300.0, dtype=torch.float16, requires_grad=True)
    with warnings.catch_warnings(), torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("ignore")
        model(x).sum().backward()
    with trace(model) as watched:
        model(x).sum().backward()
    assert (only(watched).kind, only(watched).operation, only(watched).inf_count) == ("overflow", "mul", 3)


def test_softmax_of_inf_is_propagation_when_the_inf_was_named() -> None:
    model = nn.Sequential(Step(torch.exp), nn.Softmax(-1), nn.Linear(2, 2))
    with trace(model) as watched:
        model(torch.tensor([[1.0, 100.0]], requires_grad=True)).sum().backward()
    assert [(e.kind, e.operation) for e in watched.events] == [("overflow", "exp"), ("propagated", "softmax")]
    assert only(watched).module == "0"


def test_loss_scale_overflow_outside_the_model() -> None:
    model = nn.Linear(2, 1).half()
    with trace(model) as watched:
        loss = model(torch.ones(1, 2, dtype=torch.float16)).square().sum() + 2
        (loss * 65536.0).backward()
    assert (only(watched).operation, only(watched).module) == ("mul", "(outside the model)")
    assert only(watched).line == line_of(test_loss_scale_overflow_outside_the_model, 4)


def test_scaled_gradient_overflow_is_found_in_backward() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)).half()
    nn.init.constant_(weight(model, 1), 100.0)
    with trace(model) as watched:
        out = model(torch.ones(1, 2, dtype=torch.float16))
        (out.float() * 1024.0).sum().backward()  # 1024 * 100 > 65504
    event = only(watched)
    assert (event.kind, event.phase, event.module, event.operation) == ("overflow", "backward", "1", "linear")
    assert event.input_amax == 1024.0


@pytest.mark.parametrize("bad", [INF, NAN])
def test_bad_data_is_named(bad: float) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with trace(model) as watched:
        model(torch.tensor([[1.0, bad]])).sum().backward()
    assert (only(watched).kind, only(watched).operation, only(watched).count) == ("input", "input 0", 1)


def test_bad_parameter_and_target_are_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        weight(model, 1)[0, 0] = NAN
    with trace(model) as watched:
        for _ in range(2):
            model(torch.ones(1, 2))
    assert only(watched).operation == "parameter 1.weight"
    nn.init.ones_(weight(model, 1))
    with trace(model) as watched:
        F.mse_loss(model(torch.ones(1, 2)), torch.tensor([[1.0, NAN]])).backward()  # type: ignore[no-untyped-call]
    assert (only(watched).kind, only(watched).operation) == ("input", "tensor 1 of mse_loss")


def test_a_sum_of_gradients_that_overflows() -> None:
    w = torch.ones(1, dtype=torch.float16, requires_grad=True)
    model = Step(lambda x: x * w)
    with trace(model) as watched:
        y = model(torch.ones(1, dtype=torch.float16))
        a, b = y * 40000, y * 40000  # each gradient fits, their sum does not
        (a.float() + b.float()).sum().backward()
    event = only(watched)
    assert (event.kind, event.phase, event.operation) == ("overflow", "backward", "sum of gradients at mul")


def test_the_twelfth_sum_of_gradients_is_named_like_the_first() -> None:
    model = Step(lambda x: x.split(1))
    x = torch.full((12,), 1e-6, requires_grad=True)
    with trace(model) as watched:
        parts = model(x * 1.0)
        loss = sum((part * 1e-30 for part in parts[:-1]), parts[-1] * 3e38 + parts[-1] * 3e38)
        loss.sum().backward()
    assert watched.first is not None
    assert watched.first.operation == "sum of gradients at split"


def test_fp32_run_predicts_the_fp16_overflow_at_the_right_layer() -> None:
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(4)), Step(torch.tanh))
    for place in range(4):
        nn.init.constant_(weight(model, place), 2.0)  # each layer multiplies by 16
    x = torch.full((1, 8), 20.0)  # 20 * 16^3 = 81920
    with trace(model, FP16) as watched:
        model(x).sum().backward()
    event = only(watched)
    assert (event.kind, event.module, event.count, event.inf_count, event.format) == ("overflow", "2", 8, 0, "FP16")
    assert event.output_amax == 81920.0
    assert "makes 8 of 8 values too large for FP16; float32 (1, 8)" in str(event)
    with trace(model.half()) as real:
        model(x.half())
    assert (only(real).module, only(real).operation) == (event.module, event.operation)


def test_e4m3_saturates() -> None:
    model = nn.Sequential(Step(lambda x: x * 464))
    with trace(model, E4M3) as watched:
        model(torch.ones(2))  # 464 rounds back to 448
        model(torch.full((2,), 1.01))
    assert (only(watched).kind, only(watched).count) == ("saturated", 2)


def test_underflow_is_predicted_forward_and_backward() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), Step(lambda x: x * 1e-9), Step(lambda x: x * 1.5))
    with trace(model, FP16) as watched:
        model(torch.ones(1, 2))
    assert (only(watched).kind, only(watched).module, only(watched).count) == ("underflow", "1", 2)
    plain = nn.Linear(2, 2)
    with trace(plain, FP16) as watched:
        (plain(torch.ones(1, 2)).sum() * 2.0**-25).add(1.0).backward()
    assert (watched.events[0].kind, watched.events[-1].phase) == ("underflow", "backward")
    with trace(plain, FP16) as watched:
        (plain(torch.ones(1, 2)).sum() * 2.0**-24).add(1.0).backward()
    assert [e for e in watched.events if e.phase == "backward"] == []


def attention_mask(n: int) -> Tensor:
    return torch.triu(torch.full((n, n), -INF), diagonal=1)


def test_attention_masks_are_no_cause() -> None:
    class Attention(nn.Module):
        mask: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(4, 4)
            self.register_buffer("mask", attention_mask(3))

        def forward(self, x: Tensor, extra: Tensor) -> Tensor:
            x = self.project(x)
            scores = x @ x.mT + self.mask + attention_mask(3) + extra
            scores = scores.masked_fill(self.mask.isinf(), -INF)
            return scores.softmax(-1) @ x + F.scaled_dot_product_attention(x, x, x, attn_mask=extra)

    model = Attention()
    with trace(model) as watched:
        model(torch.randn(2, 3, 4), attention_mask(3)).sum().backward()
    assert watched.first is None
    with trace(model) as watched:
        model(torch.randn(2, 3, 4), torch.full((3, 3), -INF))  # every place is masked: softmax has nothing left
    assert (watched.first and (watched.first.kind, watched.first.operation)) == ("invalid", "softmax")


def test_in_place_operations_are_judged_by_what_was_there_before() -> None:
    def grow(x: Tensor) -> Tensor:
        y = x + 1
        y.mul_(1e30)
        y *= 1e30
        return y

    with trace(Step(grow)) as watched:
        Step(grow)(torch.ones(2))
    assert (only(watched).kind, only(watched).operation) == ("overflow", "mul_")
    assert only(watched).line == line_of(grow, 3)
    assert only(watched).input_amax == pytest.approx(2e30)


def test_operators_have_readable_names() -> None:
    big = torch.full((2, 2), 1e30)
    for name, function in {"matmul": lambda x: x @ x, "mul": lambda x: 1e9 * x, "div": lambda x: 1 / (x - x)}.items():
        model = Step(function)
        with trace(model) as watched:
            model(big)
        assert (only(watched).kind, only(watched).operation) == ("overflow", name)


class HalfLinear(TorchFunctionMode):
    """A small stand-in for emulation: it rounds what linear returns to FP16."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        return fake_cast(out, FP16, FP16) if getattr(func, "__name__", "") == "linear" else out


@pytest.mark.parametrize("outside", [True, False])
def test_works_inside_and_outside_of_another_mode(outside: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    nn.init.constant_(weight(model, "1.0"), 1e5)
    watched = trace(model)
    first, second = (watched, HalfLinear()) if outside else (HalfLinear(), watched)
    with first, second:
        model(torch.ones(1, 2))
    event = only(watched)
    # From outside the rounding is seen by itself; from inside linear and its rounding are one operation.
    assert (event.kind, event.operation) == ("overflow", "cast to FP16" if outside else "linear")
    assert event.module == "1.0"
    assert event.line == line_of(test_works_inside_and_outside_of_another_mode, 7)


@pytest.mark.parametrize("outside", [True, False])
def test_rounded_gradients_are_seen(outside: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    watched = trace(model)
    first, second = (watched, HalfLinear()) if outside else (HalfLinear(), watched)
    with first, second:
        (model(torch.ones(1, 2)) * 1e5).sum().backward()
    event = only(watched)
    # From inside, a real conversion does not say its format by itself.
    operation = "cast to FP16" if outside else "cast in linear"
    assert (event.kind, event.phase, event.operation, event.module) == ("overflow", "backward", operation, "1")


@pytest.mark.parametrize("outside", [True, False])
def test_watches_emulated_training(outside: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 1))
    policy, watched, x = Policy.preset("fp16-mixed"), trace(model), torch.rand(8, 4) + 1
    for value in (0.1, 1e4):
        nn.init.ones_(weight(model, 0))
        nn.init.constant_(weight(model, 2), value)
        with watched if outside else policy.apply(model), policy.apply(model) if outside else watched:
            F.mse_loss(model(x), torch.zeros(8, 1)).backward()  # type: ignore[no-untyped-call]
        if value == 0.1:
            assert watched.first is None
    event = only(watched)
    expected = ("overflow", "forward", "2", "cast to FP16" if outside else "linear")
    assert (event.kind, event.phase, event.module, event.operation) == expected


@pytest.mark.parametrize("fmt", [None, FP16])
def test_reading_in_batches_finds_the_same(fmt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[str]:
        model = Encoder()
        with trace(model, fmt) as watched:
            for value in (1.0, 100.0):
                out = model(torch.full((2, 4), value))
                (out * 1e5).mean().backward()
            assert watched.first is not None  # reading it inside the block settles what is pending
        return [str(event) for event in watched.events]

    torch.manual_seed(1)
    at_once = run()
    monkeypatch.setattr(reading, "IMMEDIATE", set())
    for patience in (1, 3, 1000):
        monkeypatch.setattr(trace_ledger, "PATIENCE", patience)
        torch.manual_seed(1)
        assert run() == at_once
    assert len(at_once) > 0


@pytest.mark.parametrize("how", ["backward", "grad", "checkpoint"])
def test_other_ways_into_the_backward_pass(how: str) -> None:
    model = nn.Sequential(nn.Linear(1, 1), Step(torch.sqrt))
    nn.init.zeros_(weight(model, 0))
    nn.init.zeros_(linear(model, "0").bias)
    with trace(model) as watched:
        if how == "checkpoint":
            checkpoint(model, torch.ones(1, 1), use_reentrant=False).sum().backward()
        elif how == "grad":
            torch.autograd.grad(model(torch.ones(1, 1)).sum(), list(model.parameters()))
        else:
            torch.autograd.backward([model(torch.ones(1, 1)).sum()])
    assert (only(watched).kind, only(watched).operation) == ("overflow", "sqrt")
    assert watched.first is not None
    assert (watched.first.phase, watched.first.module) == ("backward", "1")


def test_convolutions_in_channels_last() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2), Step(lambda x: x * 1e39))
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    with trace(model.to(memory_format=torch.channels_last)) as watched:  # type: ignore[call-overload]
        model(x).sum().backward()
    assert (only(watched).module, only(watched).operation) == ("3", "mul")


def hooked(model: nn.Module) -> bool:
    def hooks(m: nn.Module) -> list[Any]:
        found = [m._forward_hooks, m._forward_hooks_always_called, m._forward_hooks_with_kwargs]
        return [*found, m._forward_pre_hooks, m._forward_pre_hooks_with_kwargs]

    return any(any(hooks(module)) for module in model.modules())


def test_hooks_are_gone_afterwards_and_a_second_use_starts_from_nothing() -> None:
    model = Encoder()
    watched = trace(model)
    for value, bad in ((100.0, True), (1.0, False), (100.0, True)):
        with watched:
            out = model(torch.full((1, 4), value))
        assert (watched.first is not None) == bad
        assert not hooked(model)
    before = len(watched.events)
    out.sum().backward()
    model(torch.full((1, 4), 100.0))
    assert len(watched.events) == before


def test_exceptions_pass_through_and_leave_nothing_behind() -> None:
    def fail(x: Tensor) -> Tensor:
        raise KeyError("mine")

    model = nn.Sequential(nn.Linear(2, 2), Step(fail))
    with pytest.raises(KeyError, match="mine"), trace(model) as watched:
        model(torch.ones(1, 2))
    assert not hooked(model)
    assert watched.first is None
    with trace(model) as watched:
        with pytest.raises(KeyError):
            model(torch.ones(1, 2))
        torch.ones(1).sub(101).neg().exp()
    assert only(watched).module == "(outside the model)"


def test_a_closure_inside_step_is_watched_and_the_update_is_not() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e38)

    def closure() -> float:
        loss = (model(torch.full((1, 1), 10.0)) * 1e30).square().sum()
        return float(loss.detach())

    with trace(model) as watched:
        optimizer.step(closure)
    assert (only(watched).kind, only(watched).operation) == ("overflow", "square")
    weight(model, "").grad = torch.full((1, 1), 100.0)
    with trace(model) as watched:
        optimizer.step()  # the update overflows; that shows as a bad parameter in the next forward pass
        assert watched.first is None
        model(torch.ones(1, 1))
    assert (only(watched).kind, only(watched).operation) == ("input", "parameter weight")


def test_results_are_untouched() -> None:
    model = Encoder()
    x = torch.randn(3, 4)
    expected = model(x)
    expected.sum().backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    with trace(model, FP16):
        out = model(x)
        out.sum().backward()
    assert torch.equal(out, expected)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True) if p.grad is not None)


def test_no_tensor_is_kept_alive() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Step(torch.log))
    with trace(model) as watched:
        out = model(torch.randn(2, 4))
        out.sum().backward()
        alive = weakref.ref(out)
        del out
        gc.collect()
        assert alive() is None
    assert watched.first is not None


def test_the_ring_keeps_the_last_events_and_the_first() -> None:
    model = Step(torch.exp)
    with trace(model, keep=2) as watched:
        for n in range(1, 5):
            model(torch.full((n,), 100.0))
    assert [e.shape for e in watched.events] == [(3,), (4,)]
    assert watched.first is not None
    assert watched.first.shape == (1,)


def test_misuse_is_explained() -> None:
    with pytest.raises(TypeError, match=r"trace asks for an nn\.Module, but function came"):
        trace(test_misuse_is_explained)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"keep=0 events is asked for; keep at least 1"):
        trace(nn.Linear(1, 1), keep=0)
    with pytest.raises(TypeError, match=r"write mpkit\.FP16"):
        trace(nn.Linear(1, 1), "fp16")  # type: ignore[arg-type]
    watched = trace(nn.Linear(1, 1))
    with watched, pytest.raises(RuntimeError, match="active already"):
        watched.__enter__()


@pytest.mark.parametrize(
    ("outputs", "inputs", "kind"),
    [
        ([1.0], [1.0], None),
        ([INF], [1.0], "overflow"),
        ([NAN], [1.0], "invalid"),
        ([NAN], [INF], "propagated"),
        ([INF], [INF], "consequence"),
        ([NAN], [NAN, 1.0], "consequence"),
        ([65520.0], [1.0], "overflow"),
        ([65519.0], [1.0], None),
        ([65520.0], [65520.0], "consequence"),
        ([2.0**-25], [1.0], "underflow"),
        ([2.0**-25], [2.0**-26], "consequence"),
        ([0.0], [1.0], None),
    ],
)
def test_judgement(outputs: list[float], inputs: list[float], kind: str | None) -> None:
    assert judge(outputs, inputs, FP16, known=True) == kind


# ---- what is no step of the training ----


class Calls(TorchFunctionMode):
    """Notes the name of every torch function that gives new values."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.__name__ != "__get__" and any(t.is_floating_point() for t in tensors_in(out)):
            self.names.append(func.__name__)
        return out


LOOKS: dict[str, Callable[[Tensor], object]] = {
    "tally": lambda x: tally(x, FP16),
    "found_inf": lambda x: found_inf([x, x.detach()]),
    "histogram": ExponentHistogram.of,
    "statistics": lambda x: GradientStats.of([x], histogram=True),
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_at_values_is_no_operation(look: str) -> None:
    x = torch.tensor([1e30, INF, NAN, 1e-30])
    with Calls() as calls:
        LOOKS[look](x)
    assert set(calls.names) <= {"detach"}, "only what the caller itself did"
    with trace(Step(lambda x: x)) as watched:
        LOOKS[look](x)
    assert watched.first is None


def test_unscaling_is_no_operation() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([INF, 1.0])
    plan, half = GradientPlan([weight], torch.device("cpu")), torch.tensor(0.5)
    with Calls() as calls:
        assert plan.check_and_unscale(half)
    assert calls.names == []


@pytest.mark.parametrize("fmt", [FP16, E4M3, FloatFormat("own", 3, 2)])
def test_a_cast_is_one_operation_that_names_its_format(fmt: FloatFormat) -> None:
    plain, leaf = torch.ones(3), torch.ones(3, requires_grad=True)
    with Calls() as calls:
        cast(plain, fmt)
        fake_cast(leaf, fmt, fmt)
        cast(leaf, fmt, "stochastic")
    assert calls.names == ["cast", "fake_cast", "cast"]
    x = torch.tensor([1e9, 1.0])
    with trace(Step(lambda x: x)) as watched:
        mine(x, fmt)
    assert watched.first is not None
    assert (watched.first.operation, watched.first.kind) == (f"cast to {fmt}", "overflow" if fmt.has_inf else "invalid")
    assert watched.first.line.endswith(f":{inspect.getsourcelines(mine)[1] + 3}")


def mine(x: Tensor, wanted: FloatFormat) -> Tensor:
    """A user's function; what it calls `fmt` is not what it casts to."""
    fmt = "unrelated"
    return cast(x, wanted, overflow="inf") if fmt else x


def test_nested_modes_are_told_of_a_cast_one_after_the_other() -> None:
    x = torch.tensor([1.0 + 2**-12])
    with Calls() as outer, Calls() as inner:
        out = cast(x, FP16)
    assert (outer.names, inner.names) == (["cast"], ["cast"])
    assert out.item() == 1.0


def test_the_scaler_divides_unwatched_and_unrounded() -> None:
    """1 / scale is no operation of the model: nothing to report where it is small, nothing for a policy to round."""
    for scale, policy in ((2.0**30, "fp16-mixed"), (1000.0, "fp16-true"), (1000.0, "bf16-true")):
        model, scaler = nn.Linear(1, 1, bias=False), LossScaler(StaticScale(scale))
        nn.init.ones_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        scaler.scale(model(torch.ones(1, 1)).sum() * 2.0**-20).backward()
        with trace(model, FP16) as watched, Policy.preset(policy).apply(model):
            scaler.step(optimizer)
        assert watched.first is None
        assert model.weight.grad is not None
        assert model.weight.grad.item() == pytest.approx(2.0**-20, rel=1e-6)


def test_a_lazy_parameter_is_no_healthy_value() -> None:
    lazy = nn.LazyLinear(2).weight
    with pytest.raises(ValueError, match="tensor 0 belongs to a lazy module and has no values yet; run the model once"):
        found_inf([lazy])


def test_found_inf_in_a_compiled_graph() -> None:
    flag = torch.compile(lambda x: found_inf([x]), fullgraph=True, backend="eager")
    assert [flag(torch.tensor([value])).item() for value in (1.0, INF)] == [0.0, 1.0]


def test_a_cast_of_the_users_own_keeps_its_format_under_a_policy() -> None:
    for name in ("fp16-mixed", "fp16-true", "article"):
        model = Step(lambda x: cast(F.linear(x, torch.full((1, 1), 65504.0)), BF16))
        with Policy.preset(name).apply(model):
            assert model(torch.ones(1, 1)).item() == 65536.0  # in BF16; FP16 ends before


def test_glancing_at_float8_in_channels_last() -> None:
    x = torch.ones(1, 2, 2, 2).to(memory_format=torch.channels_last).to(torch.float8_e5m2)
    assert found_inf([x]).item() == 0.0
