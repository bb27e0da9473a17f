"""Tensors and models that are not the usual: under torch.func, sparse, nested, lazy, distributed, complex, mixed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from oracles.reference_models import distance
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor

import mpkit
from mpkit import BF16, E4M3, E5M2, FP16, TF32, Batches, Meter, Policy, cast, fake_cast, fit
from mpkit.policy.emulation import is_low

MIXED = Policy.preset("fp16-mixed")
POLICIES = {name: Policy.preset(name) for name in ("fp16-mixed", "bf16-mixed", "fp16-true", "tf32", "article")}
POLICIES["fp8"] = Policy(forward=E4M3, backward=E5M2)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))


def batch() -> Tensor:
    return torch.randn(6, 8, generator=torch.Generator().manual_seed(1))


def loss_of(model: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    out: Tensor = torch.func.functional_call(model, weights, (x,))
    return out.float().square().sum()


def backward(policy: Policy, x: Tensor, meter: Meter | None = None) -> list[Tensor]:
    """The gradients of the weights by `loss.backward()`: the oracle."""
    model = net()
    with policy.apply(model, meter=meter):
        model(x).float().square().sum().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


# ---- torch.func ----


@pytest.mark.parametrize("name", POLICIES)
def test_func_grad_gives_the_gradients_of_backward(name: str) -> None:
    model = net()
    with POLICIES[name].apply(model):
        weights = dict(model.named_parameters())
        found = torch.func.grad(functools.partial(loss_of, model))(weights, batch())
    expected = backward(POLICIES[name], batch())
    assert all(torch.equal(a, b) for a, b in zip(found.values(), expected, strict=True))
    exact = backward(Policy(), batch())
    assert not any(torch.equal(a, b) for a, b in zip(expected, exact, strict=True))


@pytest.mark.parametrize("name", POLICIES)
def test_vmap_of_grad_gives_each_sample_s_gradients_and_counts_them(name: str) -> None:
    model, meter, alone = net(), Meter(), Meter()
    x = batch() * 1e-3
    with POLICIES[name].apply(model, meter=meter):
        weights = dict(model.named_parameters())
        found = torch.func.vmap(torch.func.grad(functools.partial(loss_of, model)), (None, 0))(weights, x)
    for sample in range(len(x)):
        expected = backward(POLICIES[name], x[sample], alone)
        for a, b in zip(found.values(), expected, strict=True):
            assert torch.allclose(a[sample], b, rtol=1e-2, atol=1e-3 * float(b.abs().max()))
    assert meter.flushed == pytest.approx(alone.flushed, abs=0.01)


@pytest.mark.parametrize("name", POLICIES)
def test_vmap_gives_what_a_loop_gives(name: str) -> None:
    model, x = net(), torch.stack([batch(), 2 * batch()])
    with POLICIES[name].apply(model):
        found = torch.func.vmap(model)(x)
        expected = torch.stack([model(part) for part in x])
    assert torch.allclose(found, expected, rtol=1e-2, atol=1e-3)
    assert not torch.equal(found, torch.stack([net()(part) for part in x]))


@pytest.mark.parametrize(("name", "dtype"), [("fp16-mixed", torch.float16), ("bf16-mixed", torch.bfloat16)])
def test_jvp_agrees_with_torch_autocast(name: str, dtype: torch.dtype) -> None:
    def tangent(block: Any, model: nn.Module) -> Tensor:
        with block, torch.no_grad():
            found: Tensor = torch.func.jvp(model, (batch(),), (torch.ones(6, 8),))[1]
        return found.float()

    native = tangent(torch.autocast("cpu", dtype=dtype), net())
    model = net()
    emulated, exact = tangent(Policy.preset(name).apply(model), model), tangent(nullcontext(), net())
    assert distance(emulated, native) < torch.finfo(dtype).eps
    assert torch.equal(emulated.to(dtype).float(), emulated)
    assert not torch.equal(exact.to(dtype).float(), exact)


@pytest.mark.parametrize("fmt", [FP16, BF16, TF32, E4M3], ids=str)
def test_a_tangent_is_rounded_as_a_conversion_rounds_it(fmt: mpkit.FloatFormat) -> None:
    x, v = batch(), batch().flip(0)
    value, tangent = torch.func.jvp(lambda t: fake_cast(t, fmt, E5M2), (x,), (v,))
    assert torch.equal(value, cast(x, fmt))
    assert torch.equal(tangent, cast(v, fmt))
    assert torch.equal(torch.func.jvp(lambda t: fake_cast(t, None, fmt), (x,), (v,))[1], v)
    assert torch.equal(torch.func.vmap(lambda t: cast(t, fmt), 1)(x), cast(x, fmt).T)
    hessian = torch.func.hessian(lambda t: fake_cast(t, fmt, fmt).square().sum())(x[0])
    assert torch.equal(hessian, 2 * torch.eye(8))


def test_the_article_s_own_engine_says_that_it_cannot() -> None:
    model = net()
    match = r'torch\.func \(grad, vmap, jvp\) is asked for .* use engine="emulated", or another policy'
    with Policy.preset("article").apply(model, engine="native"), pytest.raises(NotImplementedError, match=match):
        torch.func.vmap(model)(torch.stack([batch()]))


# ---- sparse and nested tensors ----


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("make", [Tensor.to_sparse, Tensor.to_sparse_csr], ids=["coo", "csr"])
def test_sparse_products(make: Callable[[Tensor], Tensor]) -> None:
    """torch.sparse.mm is on no list, so it is FP32 for FP32; `@` and torch.mm are matrix work."""
    dense = batch() * (batch() > 0.5)
    weight = torch.randn(8, 3, requires_grad=True)
    with MIXED.apply(nn.Identity()):
        wide, low = torch.sparse.mm(make(dense), weight), make(dense) @ weight
        assert (is_low(wide), is_low(low)) == (False, True)
        assert is_low(torch.sparse.mm(make(dense @ torch.eye(8)), weight @ torch.eye(3)))
        low.sum().backward()
    assert torch.allclose(wide, dense @ weight, atol=1e-6)
    product = dense.half().float() @ weight.half().float()
    assert torch.allclose(low, product.half().float(), rtol=1e-3)
    assert weight.grad is not None
    assert torch.allclose(weight.grad, dense.half().float().sum(0)[:, None].expand(8, 3).half().float(), rtol=2e-3)
    match = r"a sparse_(coo|csr) tensor is to be rounded, forward to TF32, .* make it dense \(x\.to_dense\(\)"
    with Policy.preset("tf32").apply(nn.Identity()), pytest.raises(NotImplementedError, match=match):
        make(dense) @ weight


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors(layout: torch.layout) -> None:
    parts = [batch()[:2], batch()[2:]]
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    with MIXED.apply(model):
        found = model(torch.nested.nested_tensor(parts, layout=layout))
        expected = [model(part) for part in parts]
        assert is_low(found)
    for a, b in zip(found.unbind(), expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)
        assert torch.equal(a.half().float(), a)
    found.unbind()[0].sum().backward()
    match = r"a nested tensor is to be rounded, forward to TF32, .* x\.to_padded_tensor\(0\.0\)\)"
    with Policy.preset("tf32").apply(model), pytest.raises(NotImplementedError, match=match):
        model(torch.nested.nested_tensor(parts, layout=layout))
    with Policy.preset("article").apply(model, engine="native"):
        if layout == torch.jagged:
            assert torch.allclose(
                model(torch.nested.nested_tensor(parts, layout=layout)).values(), found.values(), atol=1e-2
            )
        else:
            with pytest.raises(
                NotImplementedError, match=r"linear of a nested tensor came; make it with layout=torch\.j"
            ):
                model(torch.nested.nested_tensor(parts))


# ---- models ----


@pytest.mark.parametrize("engine", ["emulated", "native"])
@pytest.mark.parametrize("name", ["fp32", "fp16-mixed", "bf16-mixed", "article"])
def test_a_lazy_layer_gets_its_shape_inside_the_block(name: str, engine: str) -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2))
    with Policy.preset(name).apply(model, engine=engine):
        model(batch()).float().sum().backward()
        found = model(batch())
    with Policy.preset(name).apply(model, engine=engine):
        assert torch.equal(model(batch()), found)
    assert all(p.grad is not None and p.shape == p.grad.shape for p in model.parameters())


@pytest.mark.parametrize("engine", ["emulated", "native"])
@pytest.mark.parametrize("name", ["fp16-true", "bf16-true", "fp16-master"])
def test_a_lazy_layer_cannot_be_stored_low(name: str, engine: str) -> None:
    model = nn.Sequential(nn.LazyLinear(4))
    match = r"parameter 0\.weight has no values yet that could be rounded; run the model once: model\(batch\)\."
    with pytest.raises(TypeError, match=match):
        Policy.preset(name).apply(model, engine=engine)
    model(batch())
    with Policy.preset(name).apply(model, engine=engine):
        assert model(batch()).shape == (6, 4)


class Rotation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.phase = nn.Parameter(torch.ones(8, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.phase).abs()


def test_a_complex_parameter_is_named_with_its_cure() -> None:
    match = r"parameter 1\.phase is torch\.complex64, and no policy rounds complex numbers; .* torch\.view_as_complex\."
    with pytest.raises(TypeError, match=match):
        MIXED.apply(nn.Sequential(nn.Linear(8, 8), Rotation()))


# ---- DTensor ----


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Any]:
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("rounding", ["nearest", "zero"])
@pytest.mark.parametrize("fmt", [FP16, TF32, E4M3], ids=str)
def test_a_distributed_tensor_is_rounded_where_it_is(mesh: Any, fmt: mpkit.FloatFormat, rounding: Any) -> None:
    spread = distribute_tensor(batch(), mesh, [Shard(0)])
    found = cast(spread, fmt, rounding)
    assert isinstance(found, DTensor)
    assert found.placements == spread.placements
    assert torch.equal(found.full_tensor(), cast(batch(), fmt, rounding))
    with pytest.raises(TypeError, match=r"a DTensor of partial sums came, and sums are .* x\.full_tensor\(\)"):
        cast(DTensor.from_local(batch(), mesh, [Partial()]), fmt)


@pytest.mark.parametrize("name", ["bf16-true", "fp16-true", "fp16-master", "fp16-mixed"])
def test_a_sharded_model_trains_emulated_as_a_whole_one_does(mesh: Any, name: str) -> None:
    ends = []
    for spread in (False, True):
        model = net()
        if spread:
            for layer in model:
                for key, p in list(layer.named_parameters()):
                    setattr(layer, key, nn.Parameter(distribute_tensor(p.detach().clone(), mesh, [Shard(0)])))
        x = distribute_tensor(batch(), mesh, [Shard(0)]) if spread else batch()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            with Policy.preset(name).apply(model):
                model(x).float().square().mean().backward()
                optimizer.step()
        ends.append([p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()])
    for a, b in zip(*ends, strict=True):
        assert torch.allclose(a, b, rtol=1e-2, atol=1e-4)
        if name.endswith("true"):
            dtype = Policy.preset(name).update.dtype
            assert dtype is not None
            assert torch.equal(b.to(dtype).float(), b)


def test_what_is_not_done_with_distributed_tensors_is_said(mesh: Any) -> None:
    model = nn.Linear(8, 8)
    model.weight = nn.Parameter(distribute_tensor(torch.ones(8, 8), mesh, [Shard(0)]))
    match = r"parameter weight is a DTensor, of which this policy's native engine makes no low copy; let fully_shard"
    with pytest.raises(TypeError, match=match):
        Policy.preset("bf16-true").apply(model, engine="native")
    for wrap in (mpkit.optim.MasterWeights, mpkit.optim.Rounded, mpkit.optim.Kahan):
        with pytest.raises(TypeError, match=r"a parameter of shape \(8, 8\) is a DTensor, .* FSDP2 keep float32 param"):
            wrap(torch.optim.SGD(model.parameters(), lr=0.1), BF16)


# ---- fit ----


def data() -> Batches:
    return Batches(torch.randn(32, 8), torch.randint(0, 2, (32,)), 16)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    ("loss_fn", "came"),
    [
        (lambda out, target: F.cross_entropy(out, target).item(), "a float"),
        (lambda out, target: None, "a NoneType"),
        (lambda out, target: F.cross_entropy(out, target).detach(), "a tensor without a gradient"),
        (lambda out, target: [F.cross_entropy(out, target)], "a list"),
    ],
)
def test_a_loss_without_a_gradient_is_named_with_its_cure(loss_fn: Any, came: str, parts: int) -> None:
    model = net()
    run = fit(
        model, data(), optimizer=torch.optim.SGD(model.parameters()), steps=1, loss_fn=loss_fn, micro_batches=parts
    )
    match = rf"loss_fn is asked for a tensor of shape \(\) or \(seeds,\) that .*, but {came} came; leave out \.item\(\)"
    with pytest.raises(TypeError, match=match):
        next(run)


def test_no_optimizer_is_named_with_its_cure() -> None:
    match = r"optimizer is asked to have param_groups, but a NoneType came; write torch\.optim\.Adam\(model\.parameters"
    with pytest.raises(TypeError, match=match):
        fit(net(), data(), optimizer=None, steps=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["fp32", "fp16-mixed", "bf16-true"])
def test_a_layer_made_half_after_the_first_step_is_named(name: str) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = fit(model, data(), optimizer=optimizer, steps=4, policy=Policy.preset(name))
    next(run)
    model[2].half()
    with pytest.raises(TypeError, match=r"parameter 2\.weight is torch\.float16; a policy starts from float32 param"):
        next(run)
    model[2].float()
    assert [record.step for record in run] == [1, 2, 3]


def test_another_error_in_a_step_stays_what_it_is() -> None:
    model = net()
    run = fit(copy.deepcopy(model), data(), optimizer=torch.optim.SGD(model.parameters()), steps=1, loss_fn=_failing)
    with pytest.raises(RuntimeError, match="of its own"):
        next(run)


def _failing(out: Tensor, target: Tensor) -> Tensor:
    raise RuntimeError("of its own")
