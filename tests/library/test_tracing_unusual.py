"""trace in unusual programs: torch.func, sparse and nested tensors, integers, hooks, kernels that no mode sees."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.formats import FP16
from mpkit.policy.policy import Policy
from mpkit.tracing import glance as reading
from mpkit.tracing.names import role_of
from mpkit.tracing.watch import Trace, trace

pytestmark = pytest.mark.filterwarnings(
    "ignore:Sparse CSR", "ignore:The PyTorch API of nested", "ignore:.*non-writable"
)
BIG, WIDTH = 1e30, 4
BOTH = pytest.mark.parametrize("at_once", [True, False], ids=["at once", "in batches"], indirect=True)


@pytest.fixture
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches: as on a GPU, where many looks are judged together."""
    if not request.param:
        monkeypatch.setattr(reading, "IMMEDIATE", set())


class Step(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Net(nn.Module):
    """A linear layer, the function under test, another linear layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.step, self.last = nn.Linear(WIDTH, WIDTH), Step(function), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.step(self.first(x))).square().mean()


def seen(watched: Trace) -> tuple[str, str, str, str] | None:
    first = watched.first
    return first and (first.kind, first.phase, first.module, first.operation)


def run(function: Callable[[Tensor], Tensor]) -> tuple[str, str, str, str] | None:
    torch.manual_seed(0)
    model = Net(function)
    with trace(model) as watched:
        model(torch.randn(3, WIDTH)).backward()
    return seen(watched)


def root(x: Tensor) -> Tensor:
    """Its derivative at 0 is Inf."""
    return (x - x.detach()).square().sum(-1, keepdim=True).sqrt()


# ---- tensors that are not plain ----

EYE = torch.eye(3)


def jagged(x: Tensor) -> Tensor:
    rows = torch.nested.nested_tensor_from_jagged(x, torch.tensor([0, 1, 3]))
    return (rows * BIG * BIG).values()  # type: ignore[no-any-return]


FAULTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "vmap": (torch.vmap(lambda x: x * BIG * BIG), "mul"),
    "vmap of a layer": (torch.vmap(lambda x: F.linear(x.abs() * BIG, torch.full((WIDTH, WIDTH), BIG))), "linear"),
    "vmap of vmap": (torch.vmap(torch.vmap(lambda x: (x * 0).log())), "log"),
    "jvp": (lambda x: x + torch.func.jvp(lambda y: y * BIG * BIG, (x,), (x,))[0], "mul"),
    "func.grad": (lambda x: x + torch.func.grad(lambda y: (y * BIG * BIG).sum())(x), "mul"),
    "sparse": (lambda x: torch.sparse.mm((EYE * BIG).to_sparse(), x.abs() * BIG), "_sparse_mm"),
    "values of a sparse tensor": (lambda x: torch.sparse.mm((EYE * BIG * BIG).to_sparse(), x.abs()), "mul"),
    "sparse operand": (lambda x: torch.sparse.mm(EYE.to_sparse() * BIG * BIG, x.abs()), "mul"),
    "csr": (lambda x: (EYE * BIG).to_sparse_csr() @ (x.abs() * BIG), "matmul"),
    "jagged": (jagged, "mul"),
    "complex in place": (lambda x: torch.view_as_real(torch.complex(x, x).mul_(BIG).mul_(BIG)).sum(-1), "mul_"),
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_unusual_tensors_is_named(name: str, at_once: None) -> None:
    function, operation = FAULTS[name]
    assert run(function) == ("overflow", "forward", "step", operation)


@BOTH
def test_a_derivative_under_vmap_is_named(at_once: None) -> None:
    assert run(lambda x: x + torch.vmap(root)(x)) == ("overflow", "backward", "step", "sqrt")


@BOTH
def test_unusual_tensors_of_a_healthy_run_are_quiet(at_once: None) -> None:
    models = [nn.Linear(WIDTH, WIDTH) for _ in range(3)]
    weights, _ = torch.func.stack_module_state(models)
    base, x = models[0], torch.randn(3, WIDTH)

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(base, weights, (x,)).square().mean()

    embed = nn.Embedding(5, WIDTH, sparse=True)
    optimizer = torch.optim.SparseAdam(embed.parameters())
    with trace(base) as watched:
        torch.vmap(loss, (0, None))(weights, x).sum().backward()
        torch.vmap(torch.func.grad(loss), (None, 0))(dict(base.named_parameters()), x)
        torch.func.jacrev(base)(x)
        base(torch.nested.nested_tensor([x, x[:2]], layout=torch.jagged)).values().sum().backward()
        base(torch.nested.nested_tensor([x, x[:2]])).to_padded_tensor(0.0).sum().backward()
        (torch.sparse.mm(EYE.to_sparse(), base(x)) + EYE.to_sparse_csr() @ x).sum().backward()
        embed(torch.tensor([1, 1])).sum().backward()
        optimizer.step()
    assert watched.first is None, str(watched.first)


# ---- operations that take no floating-point values ----

EMPTY: dict[str, tuple[Callable[[Tensor], Tensor], str, str]] = {
    "mean of nothing": (lambda x: x + x[x > 1e9].mean(), "invalid", "mean"),
    "0 of 0": (lambda x: x + (x > 1e9).sum() / (x > 1e9).sum(), "invalid", "div"),
    "1 over an integer": (lambda x: x + 1 / (x > 1e9).sum(), "overflow", "div"),
    "log of an integer": (lambda x: x + torch.log(torch.arange(WIDTH)), "overflow", "log"),
}


@BOTH
@pytest.mark.parametrize("name", EMPTY)
def test_an_operation_without_floating_operands_is_named(name: str, at_once: None) -> None:
    function, kind, operation = EMPTY[name]
    assert run(function) == (kind, "forward", "step", operation)


# ---- what is overwritten before a batch is judged ----


@BOTH
@pytest.mark.parametrize("name", ["add_", "copy_", "setitem"])
def test_an_operand_is_judged_as_it_was(name: str, at_once: None) -> None:
    def function(x: Tensor) -> Tensor:
        with torch.no_grad():
            y = x.clone()
            if name == "setitem":
                y[0] = (y * 1e39)[0]
            else:
                getattr(y, name)(y * 1e39)
        return x + y

    assert run(function) == ("overflow", "forward", "step", "mul")


@BOTH
def test_weights_that_a_step_breaks_are_judged_as_they_were(at_once: None) -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))
    last: Any = model[1]
    nn.init.eye_(model[0].weight)  # type: ignore[arg-type]
    nn.init.constant_(last.weight, BIG)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with trace(model) as watched:
        for _ in range(2):
            model(torch.ones(2, WIDTH) * 1e10).square().sum().backward()
            optimizer.step()
    assert not last.weight.isfinite().any(), "the step has broken it"
    assert seen(watched) == ("overflow", "forward", "1", "linear")


# ---- a write into another dtype ----


@BOTH
def test_a_write_that_rounds_is_read(at_once: None) -> None:
    def function(x: Tensor) -> Tensor:
        half = torch.zeros(x.shape, dtype=torch.float16)
        half[:, 0] = x[:, 0] * 1e6
        return x + half.float()

    assert run(function) == ("overflow", "forward", "step", "setitem")


# ---- what no mode sees ----


class Kernel(torch.autograd.Function):
    """A kernel of one's own: what it computes, no mode sees."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(np.full(x.shape, np.inf, np.float32))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


@BOTH
@pytest.mark.parametrize("function", [Kernel.apply, lambda x: Kernel.apply(x) * 2], ids=["its own module", "inside"])
def test_a_kernel_that_no_mode_sees_is_named(function: Callable[[Tensor], Tensor], at_once: None) -> None:
    assert run(function) == ("overflow", "forward", "step", "Kernel")


@BOTH
def test_a_hook_that_breaks_a_gradient_does_not_blame_the_layer(at_once: None) -> None:
    def function(x: Tensor) -> Tensor:
        x.register_hook(lambda grad: grad * BIG * BIG)
        return x

    assert run(function) == ("overflow", "backward", "first", "sum of gradients at linear")


@BOTH
def test_a_hook_of_torch_has_the_users_line(at_once: None) -> None:
    model = Net(torch.relu)
    model.last.register_full_backward_hook(lambda _, given, __: (given[0] * BIG * BIG,))
    with trace(model) as watched:
        model(torch.randn(3, WIDTH)).backward()
    assert watched.first is not None
    assert watched.first.line.startswith("test_tracing_unusual.py:"), str(watched.first)


@BOTH
def test_a_hook_before_a_module_belongs_to_it(at_once: None) -> None:
    """As the old spectral_norm, which computes a weight there."""
    model = Net(torch.relu)
    model.last.register_forward_pre_hook(lambda _, args: (args[0] * BIG * BIG,))
    with trace(model) as watched:
        model(torch.randn(3, WIDTH).abs() + 1).backward()
    assert seen(watched) == ("overflow", "forward", "last", "mul")


@BOTH
@pytest.mark.parametrize("late", [False, True])
def test_a_hook_after_a_module_belongs_to_it(late: bool, at_once: None) -> None:
    """If it was there when the trace began; one that comes later runs when the module is done."""
    model = Net(torch.relu)

    def enlarge(_: nn.Module, args: Any, out: Tensor) -> Tensor:
        return out.abs() * BIG * BIG

    if not late:
        model.first.register_forward_hook(enlarge)
    with trace(model) as watched:
        if late:
            model.first.register_forward_hook(enlarge)
        model(torch.randn(3, WIDTH)).backward()
    assert seen(watched) == ("overflow", "forward", "(model)" if late else "first", "mul")


@BOTH
def test_modules_of_other_models_are_not_the_models_own(at_once: None) -> None:
    model, other = Net(torch.relu), nn.Linear(WIDTH, WIDTH)
    nn.init.constant_(other.weight, BIG)
    with trace(model) as watched:
        other(torch.full((3, WIDTH), BIG))
        model(torch.randn(3, WIDTH)).backward()
    assert [event.module for event in [*watched.events, *watched.harmless]] == ["(outside the model)"]


@BOTH
def test_a_module_that_stands_twice_in_the_model_ends_twice(at_once: None) -> None:
    shared = nn.Linear(WIDTH, WIDTH)
    model = nn.Sequential(shared, nn.ReLU(), shared, Step(lambda x: x.abs() * BIG * BIG))
    with trace(model) as watched:
        model(torch.randn(3, WIDTH)).sum().backward()
    assert seen(watched) == ("overflow", "forward", "3", "mul")


@BOTH
@pytest.mark.parametrize("whole", [False, True])
def test_a_compiled_model_is_watched_as_it_is_written(whole: bool, at_once: None) -> None:
    """No mode is asked about compiled code, and a compiler that met our hooks would stumble over them."""
    compiled = torch.compile(Net(lambda x: x.abs() * BIG * BIG), backend="eager", fullgraph=True)
    x = torch.randn(3, WIDTH)
    with torch.no_grad():
        compiled(x)
    with trace(compiled if whole else compiled._orig_mod) as watched:
        compiled(x).backward()
    assert seen(watched) == ("overflow", "forward", "_orig_mod.step" if whole else "step", "mul")
    with torch.no_grad():
        compiled(x)  # compiled again


# ---- conversions on the way back ----


@pytest.mark.parametrize(
    ("dtype", "to", "role"),
    [
        (torch.float32, torch.float16, "hands on"),
        (torch.float32, torch.bfloat16, "hands on"),
        (torch.float64, torch.float32, "hands on"),
        (torch.float16, torch.float32, "makes"),
        (torch.bfloat16, torch.float16, "makes"),
        (torch.float16, torch.bfloat16, "makes"),
    ],
)
def test_a_gradient_that_only_gets_more_room_is_handed_on(dtype: torch.dtype, to: torch.dtype, role: str) -> None:
    """The weights' conversions under autocast, for one. The gradient goes the other way."""
    converted = torch.ones(2, dtype=dtype, requires_grad=True).to(to)
    assert role_of(converted.grad_fn) == role
    deeper = (torch.ones(2, dtype=dtype, requires_grad=True) * 2).to(to)
    assert role_of(deeper.grad_fn) == role


@BOTH
def test_what_is_bad_goes_through_a_conversion_to_its_parameter(at_once: None) -> None:
    """Inf in a BF16 gradient of FP32 weights is in their gradient, so it counts, and the layer made it."""
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH))
    with trace(model) as watched:
        with torch.autocast("cpu", torch.bfloat16):
            loss = (model(torch.full((3, WIDTH), 1e30)).float() * 1e-20).sum()
        loss.backward(torch.tensor(1e35))
    assert seen(watched) == ("overflow", "backward", "0", "linear"), str(watched.first)
    assert not watched.harmless


# ---- copies ----


def test_a_copy_made_inside_is_a_plain_model() -> None:
    model, x = Net(torch.relu), torch.randn(3, WIDTH)
    with trace(model, FP16) as watched:
        copied = copy.deepcopy(model)
        model.step = nn.ReLU()  # type: ignore[assignment]
        torch.save(model, file := io.BytesIO())
        pickled = pickle.loads(pickle.dumps(model))
        nn.init.constant_(copied.last.weight, math.nan)
        copied(x)
    assert watched.first is not None
    assert watched.first.module == "(outside the model)"  # of a model that is not traced
    pickled(x)
    file.seek(0)
    torch.load(file, weights_only=False)(x)


# ---- masks beside an overflow ----


def masked_layer(x: Tensor) -> Tensor:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(WIDTH, 1)
    nn.init.constant_(layer.out_proj.weight, 1e38)
    nn.init.constant_(layer.in_proj_weight, 10.0)
    rows = x.abs().unsqueeze(1)
    mask = torch.tensor([[0.0, 0.0, -math.inf]])
    return layer(rows, rows, rows, key_padding_mask=mask, need_weights=False)[0].squeeze(1)  # type: ignore[no-any-return]


@BOTH
def test_a_mask_does_not_explain_what_overflows_beside_it(at_once: None) -> None:
    found = run(masked_layer)
    assert found == ("overflow", "forward", "step", "multi_head_attention_forward")


def test_a_gradient_that_a_policy_computes_by_itself_is_the_operations() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH))
    with trace(model) as watched, Policy.preset("article").apply(model, engine="native"):
        model(torch.full((2, WIDTH), 1e4)).backward(torch.full((2, WIDTH), 1e36))
    assert seen(watched) == ("overflow", "backward", "0", "linear")


@BOTH
def test_a_cast_under_torch_func_is_a_cast(at_once: None) -> None:
    model = Step(lambda x: torch.vmap(lambda row: F.linear(row * 1e6, torch.eye(WIDTH)))(x))
    with trace(model) as watched, Policy.preset("fp16-mixed").apply(model):
        model(torch.ones(2, WIDTH, requires_grad=True))
    assert seen(watched) == ("overflow", "forward", "(model)", "cast to FP16")
    model = Step(torch.vmap(lambda row: F.linear(row, torch.eye(WIDTH))))
    with trace(model) as watched, Policy.preset("fp16-mixed").apply(model):
        (model(torch.ones(2, WIDTH, requires_grad=True)) * 1e6).sum().backward()
    assert seen(watched) == ("overflow", "backward", "(model)", "cast to FP16")


class Gathers(nn.Module):
    """Makes its weight when it needs it and gives the memory back, as a sharded model does."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.part, self.by = nn.Parameter(torch.full((4, 4), 2.0), requires_grad=False), by

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.cat([self.part[:2], self.part[2:]]) * self.by
        y = x @ weight
        weight.untyped_storage().resize_(0)
        return y / 0


@BOTH
def test_memory_that_was_given_back_is_not_read(at_once: None) -> None:
    """On a GPU that would be an illegal access, which no program survives; a CPU reads whatever lies there."""
    model = Gathers(1.0)
    with trace(model) as watch:
        model(torch.ones(2, 4))
    assert watch.first is not None
    assert watch.first.operation == "div"
    assert len(watch.events) == 1


def test_of_memory_that_was_given_back_one_bad_value_is_known() -> None:
    model = Gathers(3e38)
    with trace(model) as watch:
        model(torch.ones(2, 4))
    assert watch.first is not None
    assert (watch.first.operation, watch.first.shape, watch.first.inf_count) == ("mul", (4, 4), 16)
