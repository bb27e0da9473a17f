"""trace follows what is bad: to an output, the loss or a gradient, where it counts, or to where it is discarded."""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mpkit.casting import cast
from mpkit.formats import E4M3, FP16
from mpkit.policy.policy import Policy
from mpkit.tracing import glance as reading
from mpkit.tracing import ledger as trace_ledger
from mpkit.tracing.look import modules_of
from mpkit.tracing.watch import Trace, trace

INF, BIG = math.inf, 1e30


class Step(nn.Module):
    """A model of one line: whatever function it is given."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def seen(watched: Trace) -> tuple[str, str, str] | None:
    first = watched.first
    return first and (first.kind, first.module, first.operation)


# ---- views of something new ----

BIG_23, BIG_34, BIG_4 = torch.full((2, 3), BIG), torch.full((3, 4), BIG), torch.full((4,), BIG)
IMAGE, KERNEL = torch.full((1, 4, 4), BIG), torch.full((2, 1, 3, 3), BIG)
EYE = torch.eye(4)


def attention(x: Tensor) -> Tensor:
    wide = torch.full((12, 4), BIG)
    out = F.multi_head_attention_forward(
        x.reshape(1, 2, 4), x.reshape(1, 2, 4), x.reshape(1, 2, 4), 4, 2, wide, torch.zeros(12), None, None, False, 0.0,
        EYE * BIG, torch.zeros(4), need_weights=False,
    )  # fmt: skip
    return out[0]


# Every function of torch 2.13's own list of samples (op_db, 702 entries) whose result is a view of something new and
# can be larger than its input, each with an input that overflows; the name is the one under which trace sees it.
VIEWS: dict[str, Callable[[], Tensor]] = {
    "linear": lambda: F.linear(torch.full((2, 3, 4), BIG), torch.full((3, 4), BIG), torch.ones(3)),
    "einsum": lambda: torch.einsum("ij,jk->ki", BIG_23, BIG_34),
    "inner": lambda: torch.inner(BIG_23, BIG_23),
    "tensordot": lambda: torch.tensordot(BIG_23, BIG_34, dims=1),
    "bilinear": lambda: F.bilinear(BIG_23, BIG_23, torch.full((2, 3, 3), BIG)),
    "multi_dot": lambda: torch.linalg.multi_dot([BIG_4, BIG_34.mT, BIG_23.mT]),
    "conv1d": lambda: F.conv1d(IMAGE[0, :1], KERNEL[:, :, 0]),
    "conv2d": lambda: F.conv2d(IMAGE, KERNEL),
    "conv3d": lambda: F.conv3d(IMAGE[None], KERNEL[:, :, None]),
    "conv_transpose1d": lambda: F.conv_transpose1d(IMAGE[0, :1], KERNEL[:1, :, 0]),
    "conv_transpose2d": lambda: F.conv_transpose2d(IMAGE, KERNEL[:1]),
    "conv_transpose3d": lambda: F.conv_transpose3d(IMAGE[None], KERNEL[:1, :, None]),
    "cov": lambda: torch.cov(torch.tensor([[BIG, -BIG, BIG], [1.0, 2.0, 3.0]])),
    "matrix_norm": lambda: torch.linalg.matrix_norm(torch.full((1, 3, 3), 2e38), ord=1, keepdim=True),
    "tensorinv": lambda: torch.linalg.tensorinv(EYE.reshape(4, 2, 2) * 1e-44, ind=1),
    "avg_pool1d": lambda: F.avg_pool1d(torch.full((1, 1, 4), 3e38), 2),
    "stft": lambda: torch.stft(torch.full((16,), 3e38), 4, return_complex=True, window=torch.ones(4)),
    "multi_head_attention_forward": lambda: attention(torch.ones(2, 4)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_of_something_new_is_looked_at(name: str) -> None:
    with trace(model := Step(lambda x: VIEWS[name]())) as watched:
        out = model(torch.zeros(1))
    assert not out.isfinite().all()
    assert watched.first is not None
    assert (watched.first.operation, watched.first.module) in {(name, "(model)"), (f"linalg_{name}", "(model)")}
    assert watched.first.kind in ("overflow", "invalid")


def test_a_linear_with_bias_is_not_blamed_on_what_follows() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU()).half()
    nn.init.constant_(model[0].weight, 200.0)  # type: ignore[arg-type]
    with trace(model) as watched:
        model(torch.full((2, 3, 4), 200.0, dtype=torch.float16))
    assert seen(watched) == ("overflow", "0", "linear")


def test_a_view_of_an_input_is_not_looked_at() -> None:
    x = torch.tensor([1.0, -INF])
    with trace(model := Step(lambda x: x.view(2, 1).detach()[1:])) as watched:
        model(x)
    assert (watched.first, watched.harmless) == (None, [])


@pytest.mark.parametrize("keep_grad", [False, True])
def test_out_into_a_view(keep_grad: bool) -> None:
    def fill(x: Tensor) -> Tensor:
        buffer = torch.full((2, 3), math.nan)  # as uninitialised memory may be
        torch.mul(x, BIG, out=buffer[0])
        torch.mul(x, 1.0, out=buffer[1])
        return buffer

    with torch.set_grad_enabled(keep_grad), trace(model := Step(fill)) as watched:
        model(torch.full((3,), BIG))
    assert seen(watched) == ("overflow", "(model)", "mul")
    with trace(model := Step(lambda x: torch.mul(x, x, out=x))) as watched:
        model(torch.full((3,), BIG))
    assert watched.first is not None
    assert watched.first.input_amax == pytest.approx(BIG), "an operand that is overwritten was read before"


# ---- what reaches nothing ----


def buckets(x: Tensor) -> Tensor:
    """T5's: the logarithm of a distance that may be 0, which `where` discards."""
    far = (torch.log(x / 8) / math.log(16) * 8).to(torch.long)
    return torch.where(x < 8, x.long(), far.clamp(max=15)).float() + x


HARMLESS: dict[str, Callable[[Tensor], Any]] = {
    "to integers": buckets,
    "where": lambda x: torch.where(x > 0, x.log(), x),
    "minimum": lambda x: torch.minimum(1 / x, x + 1),
    "clamp": lambda x: (1 / x).clamp(max=5.0) + x,
    "nan_to_num": lambda x: torch.nan_to_num((x / x) * 2) + x,
    "setitem": lambda x: set_where_zero(1 / x) * 2,
    "selection": lambda x: (1 / x)[1:] * 2,
    "a mask added twice": lambda x: (x + torch.finfo().min * (x == 0) * 1.5).softmax(0) @ x,
    "max pooling": lambda x: F.max_pool1d(x.log()[None, None], 2) * 2,
    "a metric": lambda x: ((1 / x).sum().detach(), x * 2)[1],
    "another view of its memory": lambda x: split_memory(x),
}


def set_where_zero(x: Tensor) -> Tensor:
    x[x.isinf()] = 0.0
    return x


def split_memory(x: Tensor) -> Tensor:
    both = torch.stack([1 / x, x])
    return both[1] * 2


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_discarded_is_harmless(name: str, at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not at_once:
        monkeypatch.setattr(reading, "IMMEDIATE", set())
    with trace(model := Step(HARMLESS[name])) as watched:
        out = model(torch.arange(4.0))
        assert out.isfinite().all()
    assert watched.first is None, str(watched.first)
    assert watched.events == []
    assert watched.harmless
    assert "harmless, see .harmless" in repr(watched)


def test_the_same_counts_where_it_reaches_the_output() -> None:
    with trace(model := Step(lambda x: x.log().clamp(max=5.0))) as watched:
        model(torch.arange(4.0))
    assert seen(watched) == ("overflow", "(model)", "log")
    assert watched.harmless == []


def test_what_is_bad_in_one_part_of_memory_stays_bad_when_another_is_written() -> None:
    def work(x: Tensor) -> Tensor:
        both = torch.zeros(2, 4)
        both[0] = 1 / x
        both[1].add_(1.0)
        return both * 2

    with trace(model := Step(work)) as watched:
        model(torch.arange(4.0))
    assert seen(watched) == ("overflow", "(model)", "div")


def test_memory_that_is_used_again_is_innocent() -> None:
    def work(x: Tensor) -> Tensor:
        for _ in range(20):
            torch.where(x > 0, x.log(), 0.0)  # freed at once; what comes next gets the same address
        return F.relu(x) * BIG * BIG

    with trace(model := Step(work)) as watched:
        model(torch.arange(4.0))
    assert seen(watched) == ("overflow", "(model)", "mul")
    assert all(event.operation == "log" for event in watched.harmless)


def test_division_by_an_overflow_does_harm() -> None:
    """RMSNorm in FP16: x² is Inf, 1 / sqrt(Inf) is 0, and the result is 0 where it should be 1, without any NaN."""
    with trace(model := Step(lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)))) as watched:
        out = model(torch.full((2, 4), 300.0, dtype=torch.float16))
    assert out.eq(0).all()
    assert seen(watched) == ("overflow", "(model)", "pow")


def test_a_bad_loss_counts_and_one_that_nobody_uses_does_not() -> None:
    model = nn.Linear(2, 1)
    x = torch.ones(2, 2)
    with trace(model) as watched:
        y = model(x)
        metric = (y.detach() * 0).log().sum()
        assert seen(watched) == ("overflow", "(outside the model)", "log"), "no backward pass yet: in doubt it counts"
        y.square().mean().backward()
    assert metric.isinf()
    assert watched.first is None
    assert [event.operation for event in watched.harmless] == ["log"]
    with trace(model) as watched:
        (model(x).square().mean() * BIG * BIG).backward()
    assert seen(watched) == ("overflow", "(outside the model)", "mul")


def test_nan_gradients_behind_where() -> None:
    """The forward pass discards log(0); the backward pass multiplies 0 by its derivative, Inf."""
    model = nn.Sequential(nn.Linear(2, 2), Step(lambda x: torch.where(x > 0, x.log(), 0.0)))
    nn.init.zeros_(model[0].weight)  # type: ignore[arg-type]
    nn.init.zeros_(model[0].bias)  # type: ignore[arg-type]
    with trace(model) as watched:
        loss = model(torch.ones(1, 2)).sum()
        assert watched.first is None
        loss.backward()
    assert model[0].bias.grad is not None
    assert seen(watched) == ("overflow", "1", "log")


def test_gradients_that_reach_no_parameter_are_harmless() -> None:
    model = nn.Linear(2, 2)

    def discard(grad: Tensor) -> Tensor:
        return torch.nan_to_num(grad, 0.0, 0.0, 0.0)

    for keep, expected in ((False, None), (True, ("overflow", "(outside the model)", "sqrt"))):
        with trace(model) as watched:
            y = model(torch.ones(1, 2))
            x = y * 0.0 + 0.0
            if not keep:
                x.register_hook(discard)
            x.sqrt().sum().backward()
        assert seen(watched) == expected, keep
        assert [event.operation for event in watched.harmless] == ([] if keep else ["sqrt"])


@pytest.mark.parametrize("way", ["sum", "cat", "relu", "checkpoint"])
def test_bad_gradients_are_followed(way: str) -> None:
    def forward(x: Tensor) -> Tensor:
        y = x * 0.0
        y = torch.cat([y, y]) if way == "cat" else y.relu() + y if way == "relu" else y + y.clone()
        return y.abs().sqrt()

    model = nn.Sequential(nn.Linear(2, 2), Step(forward), nn.Linear(2, 2))
    with trace(model) as watched:
        x = torch.ones(1, 2)
        out = checkpoint(model, x, use_reentrant=False) if way == "checkpoint" else model(x)
        out.sum().backward()
    assert seen(watched) == ("overflow", "1", "sqrt")
    assert all(event.kind == "propagated" for event in watched.events[1:])


def test_grad_of_something_inside() -> None:
    model = nn.Linear(2, 2)
    with trace(model) as watched:
        y = model(torch.ones(1, 2)) * 0.0
        (gradient,) = torch.autograd.grad(y.sqrt().sum(), [y])
    assert gradient.isinf().all()
    assert seen(watched) == ("overflow", "(outside the model)", "sqrt")


def test_data_that_nothing_uses() -> None:
    x = torch.tensor([[1.0, math.nan]])
    with trace(model := Step(lambda x: x[:, :1] * 2)) as watched:
        model(x)
    assert watched.first is None
    assert [event.operation for event in watched.harmless] == ["input 0"]
    with trace(model := Step(lambda x: torch.where(x.isnan(), 0.0, x) * 2)) as watched:
        model(x)
        assert watched.first is None
        Step(lambda x: x)(x)
        model.function = lambda x: x * 2
        model(x)
    assert seen(watched) == ("input", "(model)", "input 0"), "named once, and counts from the pass that uses it"


def test_complex_numbers_are_followed() -> None:
    def rotate(x: Tensor) -> Tensor:
        pairs = torch.view_as_complex((x * BIG).reshape(-1, 2))
        return torch.view_as_real(pairs * torch.polar(torch.ones(2), torch.ones(2))).flatten() * 2

    with trace(model := Step(rotate)) as watched:
        model(torch.full((4,), BIG))
    assert seen(watched) == ("overflow", "(model)", "mul")
    assert watched.first is not None
    assert watched.first.inf_count == 4


class Hidden(torch.autograd.Function):
    """Hands its input on where nobody looks, and multiplies the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy().copy())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] * BIG * BIG


def test_what_comes_out_of_a_hidden_operation() -> None:
    model = nn.Sequential(Step(lambda x: x * BIG), Step(Hidden.apply), Step(lambda x: x * 1.0))
    with trace(model) as watched:
        model(torch.full((2,), BIG))
    assert seen(watched) == ("overflow", "0", "mul")
    hidden = Step(lambda x: torch.from_numpy(x.numpy() * INF) * 1.0)
    with trace(hidden) as watched:  # nothing was bad before: then it is that
        hidden(torch.ones(2))
    assert seen(watched) == ("input", "(model)", "tensor 0 of mul")


@pytest.mark.parametrize("last", [True, False])
def test_a_users_function_that_overflows_backward_is_named(last: bool) -> None:
    model = nn.Sequential(
        nn.Linear(2, 2), Step(Hidden.apply if last else lambda x: Hidden.apply(x) + 1), nn.Linear(2, 2)
    )
    with trace(model) as watched:
        model(torch.ones(1, 2)).sum().backward()
    assert seen(watched) == ("overflow", "1", "Hidden")
    assert watched.first is not None
    assert watched.first.phase == "backward"
    assert watched.first.line == f"test_tracing_descent.py:{Hidden.backward.__code__.co_firstlineno}"


def test_before_the_end_of_a_pass_a_finding_counts() -> None:
    def fail(x: Tensor) -> Tensor:
        raise ValueError("mine")

    model = nn.Sequential(Step(lambda x: torch.where(x > 0, x.log(), 0.0)), Step(fail))
    with pytest.raises(ValueError, match="mine"), trace(model) as watched:
        model(torch.zeros(2))
    assert seen(watched) == ("overflow", "0", "log")


def test_tensors_in_an_object_are_outputs() -> None:
    """As a cache of keys and values is, which transformers return beside their results."""

    class Cache:
        def __init__(self, value: Tensor) -> None:
            self.layers, self.myself = [{"keys": value}], self

    with trace(model := Step(lambda x: (x, Cache(x.log())))) as watched:
        model(torch.zeros(2))
    assert seen(watched) == ("overflow", "(model)", "log")
    with trace(model := Step(lambda x: (x, Cache(x.log().clamp(min=0.0))))) as watched:
        model(torch.zeros(2))
    assert watched.first is None
    assert [event.operation for event in watched.harmless] == ["log"]


def test_nothing_is_kept_alive_without_the_garbage_collector() -> None:
    """Hooks hold the nodes after theirs, never their own: that circle no collector sees."""
    kept = []

    def remember(x: Tensor) -> Tensor:
        y = x.sigmoid()  # the graph keeps its result
        kept.append(StorageWeakRef(y.untyped_storage()))  # type: ignore[no-untyped-call]
        return y

    model = nn.Sequential(nn.Linear(4, 4), Step(remember), Step(Hidden.apply), nn.Linear(4, 4))
    gc.collect()
    gc.disable()
    try:
        with trace(model) as watched:
            out = model(torch.ones(2, 4))
            assert not kept[0].expired()
            del out
            assert kept[0].expired()
    finally:
        gc.enable()
    assert watched.first is None


def test_the_first_stays_when_harmless_ones_fill_the_book() -> None:
    def work(x: Tensor) -> Tensor:
        for _ in range(10):
            torch.where(x > 0, x.log(), 0.0)
        return (x + 1) * BIG * BIG

    with trace(model := Step(work), keep=2) as watched:
        for _ in range(3):
            model(torch.zeros(2))
    assert seen(watched) == ("overflow", "(model)", "mul")
    assert [event.operation for event in watched.events] == ["mul", "mul"]
    assert [event.operation for event in watched.harmless] == ["log", "log"]


def test_another_thread_says_that_it_is_not_seen() -> None:
    model, said = nn.Linear(2, 2), []

    def run() -> None:
        with pytest.warns(UserWarning, match="runs in another thread, where trace sees nothing; enter the trace in"):
            said.append(model(torch.full((1, 2), INF)))

    with trace(model) as watched:
        worker = threading.Thread(target=run)
        worker.start()
        worker.join()
    assert len(said) == 1
    assert watched.first is None


@pytest.fixture
def memory_full_of_nan() -> Iterator[None]:
    """In torch's deterministic mode uninitialised memory holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("memory_full_of_nan")
@pytest.mark.parametrize("preset", ["fp16-mixed", "fp16-true"])
def test_uninitialised_memory_is_not_rounded(preset: str) -> None:
    """DropPath: new_empty, then bernoulli_."""
    assert torch.ones(1).new_empty(1).isnan()
    model = nn.Sequential(nn.Linear(4, 4), Step(lambda x: x * x.new_empty(2, 1).bernoulli_(0.9).div_(0.9)))
    with trace(model) as watched, Policy.preset(preset).apply(model):
        out = model(torch.ones(2, 4))
    assert (watched.first, watched.harmless) == (None, [])
    assert torch.equal(cast(out, FP16), out), "the result is stored in FP16, as under autocast"


# ---- predictions ----

MASK = torch.tensor([1.0, 0.0, 1.0])
QUIET: dict[str, Callable[[Tensor], Any]] = {
    "finfo.min times": lambda x: (x + (1 - MASK) * torch.finfo().min).softmax(-1) @ x,
    "finfo.min filled": lambda x: x.masked_fill(MASK == 0, torch.finfo().min).softmax(-1) @ x,
    "finfo.min chosen": lambda x: torch.where(MASK == 0, torch.full((), torch.finfo().min), x).softmax(-1) @ x,
    "-inf filled": lambda x: x.masked_fill(MASK == 0, -INF).softmax(-1) @ x,
    "where": lambda x: torch.where(x > 9, x * 1e6, x) * 2,
    "minimum": lambda x: torch.minimum(x * 1e6, x + 1) * 2,
    "clamp": lambda x: (x * 1e6).clamp(max=100.0) * 2,
}
LOUD: dict[str, Callable[[Tensor], Any]] = {
    "used": lambda x: x * 1e6 * 1e-6,
    "normalised": lambda x: F.layer_norm(x * 1e6, (3,)),
    "softmax": lambda x: (x * -1e6).softmax(-1) @ x,
    "returned": lambda x: x * 1e6,
}


@pytest.mark.parametrize("name", QUIET)
def test_a_prediction_that_is_a_mask_or_discarded(name: str) -> None:
    with trace(model := Step(QUIET[name]), FP16) as watched:
        model(torch.arange(1.0, 4.0))
    assert watched.first is None, str(watched.first)


@pytest.mark.parametrize("name", LOUD)
@pytest.mark.parametrize("fmt", [FP16, E4M3])
def test_a_prediction_counts_in_doubt(name: str, fmt: Any) -> None:
    with trace(model := Step(LOUD[name]), fmt) as watched:
        model(torch.arange(1.0, 4.0))
    assert seen(watched) == ("overflow" if fmt == FP16 else "saturated", "(model)", "mul")
    assert ("would overflow in the forward pass" in str(watched.first)) == (fmt == FP16)


def test_a_gradient_that_is_zero_in_mathematics_is_no_underflow() -> None:
    """A bias of attention's keys moves all scores of a row together, which softmax does not see."""
    torch.manual_seed(0)
    query, key, value = (nn.Linear(8, 8) for _ in range(3))
    model = nn.ModuleDict({"query": query, "key": key, "value": value})
    x = torch.randn(2, 16, 8)
    with trace(model, FP16) as watched:
        y = (query(x) @ key(x).mT).softmax(-1) @ value(x)
        y.square().sum().backward()
    assert key.bias.grad is not None
    assert 0 < key.bias.grad.abs().max() < 1e-4 * query.bias.grad.abs().max()  # type: ignore[union-attr]
    assert watched.first is None, str(watched.first)
    with trace(model, FP16) as watched:
        y = (query(x) @ key(x).mT).softmax(-1) @ value(x)
        (y.square().sum() * 1e-4).backward()  # now FP16 would lose it, and nothing else
    assert watched.first is None, str(watched.first)
    assert {(event.kind, event.module) for event in watched.harmless} == {("underflow", "key")}


def test_what_is_followed_is_the_same_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[list[str]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), Step(lambda x: torch.where(x > 0, (x * 0).log() * x, x)), nn.ReLU())
        with trace(model) as watched:
            model(torch.randn(3, 4)).sum().backward()
            model(torch.randn(3, 4) * 0).sqrt().sum().backward()
        return [[str(e) for e in watched.events], [str(e) for e in watched.harmless]]

    at_once = run()
    monkeypatch.setattr(reading, "IMMEDIATE", set())
    for patience in (1, 3, 1000):
        monkeypatch.setattr(trace_ledger, "PATIENCE", patience)
        assert run() == at_once
    assert at_once[0]


def test_modules_are_those_of_torch_in_its_order() -> None:
    shared = nn.Linear(1, 1)
    model = nn.Sequential(nn.Sequential(shared, nn.ReLU()), shared, nn.ModuleDict({"a": shared, "b": nn.Tanh()}))
    model.register_module("none", None)
    for prefix in ("", "net"):
        assert modules_of(model, prefix) == list(model.named_modules(prefix=prefix))
