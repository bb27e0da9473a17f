"""Native policies inside each other, copied models, and blocks that end in another order."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles.reference_models import classifier, images, labels
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from mpkit import Policy

SINGLE = ["fp32", "fp16-true", "bf16-true", "fp16-master", "fp16-mixed", "bf16-mixed", "article"]


def outputs(model: nn.Module) -> Tensor:
    return model(images()).detach().float()


def alone(policy: str, engine: str = "native") -> Tensor:
    model = classifier()
    with Policy.preset(policy).apply(model, engine=engine):
        return outputs(model)


@pytest.mark.parametrize("inner", SINGLE)
@pytest.mark.parametrize("outer", ["fp16-true", "bf16-mixed", "article"])
def test_the_inner_policy_replaces_the_outer_one(outer: str, inner: str) -> None:
    if inner.endswith("true"):
        pytest.skip("it rounds the weights for good, so that the outer result is another")
    model = classifier()
    with Policy.preset(outer).apply(model, engine="native"):
        before = outputs(model)
        with Policy.preset(inner).apply(model, engine="native"):
            inside = outputs(model)
        assert torch.equal(outputs(model), before)
    if outer != "fp16-true":  # which rounded the weights
        assert torch.equal(inside, alone(inner))
    if inner == "fp32":
        assert torch.equal(inside, model(images()))


@pytest.mark.parametrize("engine", ["native", "emulated"])
def test_a_policy_replaces_torch_autocast(engine: str) -> None:
    model = classifier()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(images())
        with Policy().apply(model, engine=engine):
            assert torch.equal(model(images()), alone("fp32"))
        with Policy.preset("fp16-mixed").apply(model, engine=engine):
            assert torch.equal(outputs(model), alone("fp16-mixed", engine))
        assert torch.equal(model(images()), low)


def test_emulation_inside_of_a_native_policy_is_emulation() -> None:
    model = classifier()
    with (
        Policy.preset("article").apply(model, engine="native"),
        Policy.preset("bf16-mixed").apply(model, engine="emulated"),
    ):
        assert torch.equal(outputs(model), alone("bf16-mixed", "emulated"))


def changed(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    return model


class OwnCopy(nn.Sequential):
    """A model that copies its attributes by itself."""

    def __deepcopy__(self, memo: dict[int, Any]) -> OwnCopy:
        twin = OwnCopy.__new__(OwnCopy)
        twin.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return twin


class OwnState(nn.Sequential):
    """A model whose state is not its attributes."""

    def __getstate__(self) -> dict[str, Any]:
        return {"attributes": dict(self.__dict__)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state["attributes"])


class Rebuilt(nn.Sequential):
    """A model that is made anew from its parts, without a state."""

    def __reduce__(self) -> Any:
        return Rebuilt, tuple(self)


@pytest.mark.parametrize("make", [OwnCopy, OwnState, Rebuilt])
@pytest.mark.parametrize("twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_models_that_know_how_they_are_copied(make: type[nn.Module], twin: Callable[[nn.Module], nn.Module]) -> None:
    model = make(*classifier())  # type: ignore[misc]
    with (
        Policy.preset("fp16-true").apply(model, engine="native"),
        Policy.preset("bf16-true").apply(model, engine="native"),
    ):
        low, other = model(images()), twin(model)
        assert other(images()).dtype == torch.float32
        assert changed(other)(images()).abs().max() == 0
        assert torch.equal(model(images()), low)
    assert model(images()).dtype == torch.float32


@pytest.mark.parametrize("policy", ["bf16-true", "bf16-mixed", "article"])
@pytest.mark.parametrize("twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_a_copy_made_inside_an_emulated_block(twin: Callable[[nn.Module], nn.Module], policy: str) -> None:
    model = classifier()
    with Policy.preset(policy).apply(model):
        before, other = outputs(model), twin(model)
        other(images())
        assert torch.equal(outputs(model), before)
    assert torch.equal(other(images()), model(images()))


def test_a_model_that_calls_itself() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, x: Tensor, deep: bool = True) -> Tensor:
            out: Tensor = self.a(x)
            return self.b(out + self(x, deep=False)) if deep else out

    model = Twice()
    with Policy.preset("bf16-true").apply(model, engine="native"):
        assert model(images()).dtype == torch.bfloat16
        model.b.bias = None
        assert model(images()).dtype == torch.bfloat16
    assert "weight" not in model.a.__dict__


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_a_copy_made_inside_the_block_is_a_plain_model_of_its_own(twin: Callable[[nn.Module], nn.Module]) -> None:
    model = classifier()
    with Policy.preset("bf16-true").apply(model, engine="native"):
        low, other = model(images()), twin(model)
        assert low.dtype == torch.bfloat16
        assert other(images()).dtype == torch.float32
        assert changed(other)(images()).abs().max() == 0  # it reads weights of its own
        assert torch.equal(model(images()), low)
    assert model(images()).dtype == torch.float32
    assert "forward" not in model.__dict__


def test_a_running_average_made_inside_the_block_is_of_fp32_weights() -> None:
    model = classifier()
    with Policy.preset("fp16-master").apply(model, engine="native"):
        average = AveragedModel(model)
        average.update_parameters(model)
    changed(model)
    assert average(images()).abs().max() > 0


def doubled(self: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: 2 * nn.Sequential.forward(self, x)  # type: ignore[arg-type]


def test_a_forward_of_the_models_own_comes_back() -> None:
    model = classifier()
    model.forward = own = doubled(model)
    plain = model(images())
    with Policy.preset("fp16-true").apply(model, engine="native"):
        assert model(images()).dtype == torch.float16
        assert copy.deepcopy(model).forward is own  # a function is not copied: what any copy of this model has
    assert model.__dict__["forward"] is own
    with pytest.raises(ValueError, match="in it"), Policy.preset("fp16-true").apply(model, engine="native"):
        raise ValueError("in it")
    assert model.__dict__["forward"] is own
    assert torch.allclose(model(images()), plain, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("engine", ["native", "emulated"])
@pytest.mark.parametrize("kind", ["fp32", "fp16-true", "fp16-mixed", "article"])
def test_a_block_cannot_end_before_one_inside_it(kind: str, engine: str) -> None:
    model = classifier()
    first = Policy.preset(kind).apply(model, engine=engine)
    second = Policy.preset("bf16-true").apply(model, engine=engine)
    first.__enter__()
    second.__enter__()
    inside = model(images())
    with pytest.raises(RuntimeError, match="ends while one that began inside it goes on; end that one first"):
        first.__exit__(None, None, None)
    assert torch.equal(model(images()), inside), "nothing has ended"
    second.__exit__(None, None, None)
    first.__exit__(None, None, None)
    assert model(images()).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")
    assert "forward" not in model.__dict__


@pytest.mark.parametrize("engine", ["native", "emulated"])
@pytest.mark.parametrize("policy", SINGLE)
def test_an_application_is_entered_again_and_inside_itself_and_decorates(policy: str, engine: str) -> None:
    """As `ctx = torch.autocast(...)` is in many a script; what is inside comes out as in a block of its own."""
    model = classifier()
    ctx = Policy.preset(policy).apply(model, engine=engine)
    expected = alone(policy, engine)
    for _ in range(2):
        with ctx:
            assert torch.equal(outputs(model), expected)
            with ctx, Policy().apply(model, engine=engine), ctx as same:
                assert same is model
                assert torch.equal(outputs(model), expected)
            assert torch.equal(outputs(model), expected)
    assert torch.equal(ctx(outputs)(model), expected)
    with pytest.raises(KeyError), ctx, ctx:
        raise KeyError
    assert "forward" not in model.__dict__
    assert not _get_current_function_mode_stack()
    assert model(images()).dtype == torch.float32


def test_an_application_ends_in_order_and_in_its_own_thread() -> None:
    model = classifier()
    ctx = Policy.preset("bf16-mixed").apply(model)
    with ctx:
        before, elsewhere = outputs(model), []
        thread = threading.Thread(target=lambda: elsewhere.append(ctx(outputs)(model)))
        thread.start()
        thread.join()
        assert torch.equal(elsewhere[0], before)
        other = Policy().apply(model)
        other.__enter__()
        with pytest.raises(RuntimeError, match="ends while one that began inside it goes on; end that one first"):
            ctx.__exit__(None, None, None)
        other.__exit__(None, None, None)
        assert torch.equal(outputs(model), before)


def test_every_entrance_looks_at_the_model_again() -> None:
    model = classifier()
    ctx = Policy.preset("fp16-mixed").apply(model)
    with ctx:
        model(images())
    model[0].half()
    with pytest.raises(TypeError, match=r"parameter 0\.weight is torch\.float16; a policy starts from float32"), ctx:
        pytest.fail("the block must not run")


def test_of_three_blocks_the_innermost_holds() -> None:
    model, other = classifier(), classifier()
    with Policy.preset("fp16-true").apply(model, engine="native"):
        with Policy.preset("bf16-true").apply(other, engine="native"):
            with Policy().apply(model, engine="native"):
                assert model(images()).dtype == torch.float32
            assert other(images()).dtype == torch.bfloat16
            assert model(images()).dtype == torch.float32, "the block around is of the other model, and holds"
        assert model(images()).dtype == torch.float16


def test_a_block_in_another_thread_changes_nothing_here() -> None:
    ready, done = threading.Event(), threading.Event()

    def elsewhere() -> None:
        with Policy.preset("fp16-mixed").apply(classifier()):
            ready.set()
            done.wait(60)

    thread = threading.Thread(target=elsewhere)
    model = classifier()
    with Policy.preset("bf16-mixed").apply(model):
        before = outputs(model)
        thread.start()
        assert ready.wait(60)
        try:
            assert torch.equal(outputs(model), before)
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize("engine", ["native", "emulated"])
@pytest.mark.parametrize("policy", SINGLE)
def test_a_loop_inside_one_block_trains_as_with_a_block_a_step(policy: str, engine: str) -> None:
    """What was cast of the weights in one step must not be read in the next."""

    def losses(once: bool) -> list[float]:
        model, found = classifier(), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

        def block() -> Any:
            return Policy.preset(policy).apply(model, engine=engine)

        with block() if once else nullcontext():
            for _ in range(4):
                with nullcontext() if once else block():
                    optimizer.zero_grad()
                    loss = F.cross_entropy(model(images()).float(), labels())
                    loss.backward()
                    optimizer.step()
                found.append(loss.item())
            if once:
                model.load_state_dict({name: torch.zeros_like(p) for name, p in model.state_dict().items()})
                assert outputs(model).abs().max() == 0
        return found

    assert losses(True) == losses(False)
    assert losses(True)[-1] < losses(True)[0]


def test_a_forward_that_the_user_takes_away_or_puts_there_stays_so() -> None:
    model = classifier()
    with Policy.preset("fp16-true").apply(model, engine="native"):
        del model.forward
        assert model(images()).dtype == torch.float32
    with Policy.preset("fp16-true").apply(model, engine="native"):
        model.forward = own = doubled(model)
    assert model.__dict__["forward"] is own
    with Policy.preset("fp16-true").apply(model, engine="native"):
        low = model.forward
        model.forward = wrapped = functools.wraps(low)(lambda x: low(x))  # with the attributes of what it wraps
    assert model.__dict__["forward"] is wrapped
    assert "__reduce_ex__" not in model.__dict__
    copy.deepcopy(model)


def test_the_signature_stays() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, pixels: Tensor, flip: bool = False) -> Tensor:
            out: Tensor = self.layer(pixels.flip(0) if flip else pixels)
            return out

    model = Named()
    plain = inspect.signature(model.forward)
    with Policy.preset("fp16-true").apply(model, engine="native"):
        assert inspect.signature(model.forward) == plain
        assert model(pixels=torch.ones(2, 8), flip=True).dtype == torch.float16


def test_the_native_hook_rounds_weights_after_a_step() -> None:
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    with Policy.preset("bf16-true").apply(model, engine="native"):
        F.cross_entropy(model(images()).float(), labels()).backward()
        optimizer.step()
        assert all(torch.equal(p, p.bfloat16().float()) for p in model.parameters())
    optimizer.step()
    assert not all(torch.equal(p, p.bfloat16().float()) for p in model.parameters())


@pytest.mark.parametrize("policy", ["fp32", "fp16-mixed", "bf16-mixed"])
def test_checkpointing_inside_the_block(policy: str) -> None:
    def gradients(through: bool) -> Tensor:
        model = classifier()
        with Policy.preset(policy).apply(model, engine="native"):
            out = checkpoint(model, images(), use_reentrant=False) if through else model(images())
            F.cross_entropy(out, labels()).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    assert torch.equal(gradients(True), gradients(False))


def test_the_article_leaves_alone_what_is_no_float32() -> None:
    whole = torch.arange(4).reshape(2, 2)
    number = torch.complex(torch.rand(2, 2), torch.rand(2, 2))
    out, x = torch.empty(2, 2), torch.full((2, 2), 1 + 2.0**-12)
    with Policy.preset("article").apply(nn.Linear(2, 2), engine="native"):
        assert (whole @ whole).dtype == torch.int64
        assert torch.equal(whole @ whole, torch.mm(whole, whole))
        assert (number @ number).dtype == torch.complex64
        assert (x.double() @ x.double()).dtype == torch.float64
        torch.mm(x, x, out=out)
    assert torch.equal(out, x @ x)


def test_a_second_derivative_through_the_article_is_refused() -> None:
    layer = nn.Linear(4, 1)
    with Policy.preset("article").apply(layer, engine="native"):
        x = torch.rand(3, 4, requires_grad=True)
        (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


def test_the_articles_backward_pass_is_not_autocasts() -> None:
    layer, x = nn.Linear(64, 64, bias=False), torch.rand(64, 64)
    with Policy.preset("article").apply(layer, engine="native"):
        out = layer(x).sum()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out.backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, torch.ones(64, 64) @ x.half().float())
