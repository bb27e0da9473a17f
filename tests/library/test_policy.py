"""Policies: their formats, their gradients against torch's own 16-bit training, and what they leave behind."""

from __future__ import annotations

import contextlib
import gc
import re
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from oracles.reference_models import (
    SCALE,
    autoencoder,
    classifier,
    conv_net,
    distance,
    gradients,
    images,
    labels,
    loss_of,
)
from torch import Tensor, nn
from torch.optim import optimizer as torch_optimizer
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from mpkit import BF16, E4M3, E5M2, FP16, FP32, TF32, FloatFormat, Policy
from mpkit.policy.emulation import is_low
from mpkit.policy.meter import Meter
from mpkit.policy.native import natively
from mpkit.policy.nesting import Block
from mpkit.policy.policy import PRESETS

NAMES = ["fp32", "tf32", "fp16-true", "fp16-master", "fp16-mixed", "bf16-true", "bf16-mixed", "article"]
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def nothing_is_left() -> bool:
    hooks = torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks
    return not any(hooks) and not _get_current_function_mode_stack()


# ---- what a policy is ----


@pytest.mark.parametrize(
    ("name", "formats"),
    [  # params, forward, backward, loss, update
        ("fp32", (FP32, FP32, FP32, FP32, FP32)),
        ("tf32", (FP32, TF32, TF32, FP32, FP32)),
        ("fp16-true", (FP16, FP16, FP16, FP16, FP16)),
        ("fp16-master", (FP16, FP16, FP16, FP32, FP32)),
        ("fp16-mixed", (FP32, FP16, FP16, FP32, FP32)),
        ("bf16-true", (BF16, BF16, BF16, BF16, BF16)),
        ("bf16-mixed", (FP32, BF16, BF16, FP32, FP32)),
        ("article", (FP32, FP16, FP32, FP32, FP32)),
    ],
)
def test_presets(name: str, formats: tuple[FloatFormat, ...]) -> None:
    p = Policy.preset(name)
    assert (p.params, p.forward, p.backward, p.loss, p.update) == formats


def test_the_presets_are_these_and_a_policy_is_fp32_by_default() -> None:
    assert set(NAMES) <= set(PRESETS)
    assert Policy() == Policy.preset("fp32")


def test_bad_names_engines_formats_and_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"policy 'fp17' is unknown; use one of fp32, .*article, .*int8-mixed\."):
        Policy.preset("fp17")
    with pytest.raises(TypeError, match=r"a format is asked for, but 'fp16' \(str\) came; write mpkit\.FP16\."):
        Policy(forward="fp16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=re.escape('is unknown; use "emulated" (every machine), "native" (a GPU)')):
        Policy().apply(classifier(), engine="real").__enter__()
    match = re.escape("parameter 0.weight is torch.float16; a policy starts from float32 parameters. Call model.float")
    for name in ("fp32", "fp16-mixed"):
        with pytest.raises(TypeError, match=match), Policy.preset(name).apply(classifier().half()):
            pytest.fail("the block must not run")
    assert nothing_is_left()


# ---- gradients ----


@pytest.mark.parametrize(
    ("make", "policy", "limit"),
    [  # limits: a few times what was measured; FP16 rounds by up to 2^-11 = 4.9e-4, BF16 by up to 3.9e-3
        (classifier, "fp16-mixed", 2e-5),
        (classifier, "bf16-mixed", 2e-5),
        (autoencoder, "fp16-mixed", 4.9e-4),  # the CPU's float16 kernel rounds inside the sigmoid's slope as well
        (autoencoder, "bf16-mixed", 2e-5),
        (conv_net, "fp16-mixed", 4.9e-4),
        (conv_net, "bf16-mixed", 3.9e-3),
    ],
)
def test_mixed_gradients_agree_with_torch_autocast(make: Callable[[], nn.Module], policy: str, limit: float) -> None:
    native = gradients(make, lambda _: torch.autocast("cpu", dtype=DTYPES[policy[:4]]), torch.float32)
    emulated = gradients(make, Policy.preset(policy).apply, torch.float32)
    exact = gradients(make, nullcontext, torch.float32)
    assert distance(emulated, native) < limit
    assert distance(emulated, native) < distance(exact, native)


@pytest.mark.parametrize("policy", ["fp16-true", "fp16-master", "bf16-true"])
@pytest.mark.parametrize("make", [classifier, autoencoder, conv_net])
def test_true_gradients_agree_with_a_model_that_is_stored_low(make: Callable[[], nn.Module], policy: str) -> None:
    dtype = DTYPES[policy[:4]]
    native = gradients(make, nullcontext, dtype)
    emulated = gradients(make, Policy.preset(policy).apply, torch.float32)
    exact = gradients(make, nullcontext, torch.float32)
    assert distance(emulated, native) < 8 * torch.finfo(dtype).eps
    assert distance(emulated, native) < distance(exact, native)


@pytest.mark.parametrize("policy", ["fp16-mixed", "bf16-mixed"])
def test_a_step_written_out_by_hand(policy: str) -> None:
    """Every rounding of the autoencoder's forward and backward pass, in plain float32 with torch's conversions."""

    def low(x: Tensor) -> Tensor:
        return x.to(DTYPES[policy[:4]]).float()

    model = autoencoder()
    layers = [m for m in model if isinstance(m, nn.Linear)]
    with torch.no_grad():
        kept, h = [], low(images())
        for layer in layers:
            z = low(F.linear(h, low(layer.weight), low(layer.bias)))
            kept.append((h, h := low(torch.sigmoid(z))))
        grad = low(SCALE * 2 * (h - images()) / h.numel())
        by_hand = []
        for layer, (before, after) in zip(reversed(layers), reversed(kept), strict=True):
            dz = low(grad * (1 - after) * after)
            by_hand += [low(dz.sum(0)), low(dz.T @ before).flatten()]
            grad = low(dz @ low(layer.weight))
    mine = gradients(autoencoder, Policy.preset(policy).apply, torch.float32)
    assert distance(mine, torch.cat(by_hand[::-1]) / SCALE) < 2e-5


def rounded_share(x: Tensor) -> float:
    return float((x.half().float() == x).float().mean())


def test_the_article_rounds_activations_but_no_gradient() -> None:
    model, seen = autoencoder(), []
    for layer in model:
        layer.register_forward_hook(lambda *found: seen.append(found[2]))
    with Policy.preset("article").apply(model):
        loss = loss_of(autoencoder, model(images()))
    (SCALE * loss).backward()
    assert all(rounded_share(h.detach()) == 1.0 for h in seen)
    article = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert rounded_share(article) < 0.1
    assert rounded_share(SCALE * gradients(autoencoder, Policy.preset("fp16-mixed").apply, torch.float32)) == 1.0
    exact = gradients(autoencoder, nullcontext, torch.float32)
    assert 1e-5 < distance(article / SCALE, exact) < 1e-2, "rounded activations still show in the gradient"


def test_the_article_s_backward_pass_is_torch_s_on_rounded_operands() -> None:
    x, w, c = torch.randn(8, 6), torch.randn(6, 5), torch.randn(8, 5)
    leaf = w.clone().requires_grad_()
    with Policy.preset("article").apply(nn.Identity()):
        loss = ((x @ leaf).float() * c).sum()
    loss.backward()
    assert leaf.grad is not None
    assert torch.allclose(leaf.grad, x.half().float().T @ c, rtol=1e-6)


def test_tf32_rounds_operands_only() -> None:
    model = classifier()
    with Policy.preset("tf32").apply(model):
        out = model(images())
    exact = classifier()(images())
    assert not is_low(out)
    assert rounded_share(out.detach()) < 0.05
    # 10 mantissa bits: up to 2^-11 an operand, far less on average
    assert 1e-5 < distance(out.detach(), exact.detach()) < 2**-11
    x = torch.tensor([[1 + 2.0**-11, 2.0**-30]])  # a tie, which goes to even; and far below FP16's range
    with Policy.preset("tf32").apply(nn.Identity()):
        assert (x @ torch.eye(2)).tolist() == [[1.0, 2.0**-30]]


def test_eight_bit_operands_can_be_asked_for() -> None:
    with Policy(forward=E4M3).apply(nn.Identity()):
        assert float(torch.tensor([[1.06]]) @ torch.tensor([[1.0]])) == 1.0


# ---- weights ----


def is_fp16(model: nn.Module) -> bool:
    return all(torch.equal(p.half().float(), p) for p in model.parameters())


def train(model: nn.Module, policy: str, make: Callable[[list[Tensor]], torch.optim.Optimizer], steps: int) -> None:
    optimizer = make(list(model.parameters()))
    with Policy.preset(policy).apply(model):
        for _ in range(steps):
            optimizer.zero_grad()
            (loss_of(classifier, model(images()))).backward()
            optimizer.step()
            assert is_fp16(model) == (policy == "fp16-true")


OPTIMIZERS = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9),
    "adam": lambda ps: torch.optim.Adam(ps, lr=1e-3),
    "fused adam": lambda ps: torch.optim.Adam(ps, lr=1e-3, fused=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("policy", ["fp16-true", "fp16-master", "fp16-mixed"])
def test_weights_are_stored_in_the_update_s_format_after_each_step(policy: str, optimizer: str) -> None:
    model = classifier()
    train(model, policy, OPTIMIZERS[optimizer], 3)
    assert is_fp16(model) == (policy == "fp16-true")
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), classifier().parameters(), strict=True))
    assert nothing_is_left()


def test_small_updates_vanish_in_true_fp16_and_add_up_in_master_weights() -> None:
    """FP16 keeps 1 + 2^-12 as 1 (IEEE 754, nearest even); FP32 adds it up."""
    ends = {}
    for name in ("fp16-true", "fp16-master"):
        weight = nn.Linear(1, 1, bias=False)
        nn.init.ones_(weight.weight)
        optimizer = torch.optim.SGD(weight.parameters(), lr=2.0**-12)
        with Policy.preset(name).apply(weight):
            for _ in range(100):
                weight.weight.grad = -torch.ones(1, 1)
                optimizer.step()
        ends[name] = weight.weight.item()
    assert ends == {"fp16-true": 1.0, "fp16-master": 1 + 100 * 2.0**-12}


def test_the_optimizer_s_own_arithmetic_stays_float32() -> None:
    """Adam's square root and moments are not rounded, in any policy, inside or outside the block."""
    states = []
    for inside in (True, False):
        model = classifier()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False, fused=False)
        for p in model.parameters():
            p.grad = torch.full_like(p, 1.2345e-5)
        with Policy.preset("fp16-master").apply(model):
            if inside:
                optimizer.step()
        if not inside:
            optimizer.step()
        moments = [optimizer.state[p]["exp_avg"] for p in model.parameters()]
        states.append([*moments, *(p.detach() for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_other_models_and_parameters_are_untouched() -> None:
    model, other = classifier(), classifier()
    both = torch.optim.SGD([*model.parameters(), *other.parameters()], lr=0.1)
    for p in [*model.parameters(), *other.parameters()]:
        p.grad = torch.full_like(p, 1e-3)
    with Policy.preset("fp16-true").apply(model):
        assert is_fp16(model)
        assert not is_fp16(other)
        both.step()
    assert is_fp16(model)
    for p, q in zip(other.parameters(), classifier().parameters(), strict=True):
        assert torch.allclose(p, q - 1e-4, rtol=0, atol=1e-8)
    assert not is_fp16(other)
    both.step()
    assert not is_fp16(model), "outside the block nothing is rounded any more"


def test_store_rounds_in_place_for_16_bit_updates_only() -> None:
    for name in NAMES:
        weight = torch.randn(100)
        kept = weight.clone()
        Policy.preset(name).store_([weight])
        dtype = DTYPES[name[:4]] if name.endswith("true") else torch.float32
        assert torch.equal(weight, kept.to(dtype).float())


# ---- the block ----


def test_fp32_changes_nothing() -> None:
    model = classifier()
    with Policy().apply(model) as same:
        assert same is model
        assert nothing_is_left()
        out = model(images())
    assert torch.equal(out, classifier()(images()))


@pytest.mark.parametrize("name", NAMES)
def test_an_exception_leaves_nothing_active(name: str) -> None:
    model = classifier()

    def break_off() -> None:
        with Policy.preset(name).apply(model):
            model(images())
            raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        break_off()
    assert nothing_is_left()
    x, w = torch.randn(4, 8), torch.randn(8, 8)
    assert torch.equal(x @ w, torch.mm(x, w))


def test_a_failing_optimizer_leaves_nothing_active() -> None:
    class Broken(torch.optim.SGD):
        def step(self, closure: object = None) -> None:
            raise RuntimeError("no step")

    model = classifier()
    broken = Broken(model.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="no step"), Policy.preset("fp16-true").apply(model):
        broken.step()
    assert nothing_is_left()


def test_an_inner_block_replaces_the_outer_one() -> None:
    """As a nested torch.autocast does. Whatever is inside, it comes out as it would alone."""
    model = classifier()
    alone = {}
    for name in NAMES:
        other = classifier()
        with Policy.preset(name).apply(other):
            alone[name] = other(images())
    assert len({tuple(out.flatten().tolist()) for out in alone.values()}) >= 4
    for name in ("fp32", "tf32", "fp16-mixed", "bf16-mixed", "article"):
        with Policy.preset("fp16-mixed").apply(model):
            before = model(images())
            with Policy.preset(name).apply(model):
                assert torch.equal(model(images()), alone[name])
            assert torch.equal(model(images()), before)
            assert torch.equal(before, alone["fp16-mixed"])
    assert nothing_is_left()


def test_the_outer_block_goes_on_after_an_error_in_the_inner_one() -> None:
    model = classifier()
    with Policy.preset("fp16-mixed").apply(model):
        before = model(images())
        for name in ("fp32", "bf16-mixed"):
            with contextlib.suppress(KeyError), Policy.preset(name).apply(model):
                raise KeyError
            assert torch.equal(model(images()), before)


def test_a_tensor_stored_in_one_format_is_rounded_again_by_another() -> None:
    """A value with ten mantissa bits, stored in an FP16 block, read in a BF16 block: eight bits are left."""
    values = torch.tensor([[1 + 2.0**-9, -1.0]])
    with Policy.preset("fp16-mixed").apply(nn.Identity()):
        stored = values @ torch.eye(2)
    assert is_low(stored)
    assert torch.equal(stored, values)
    with Policy.preset("bf16-mixed").apply(nn.Identity()):
        total = stored @ torch.ones(2, 1)
    assert total.item() == 0.0, "2^-9 would be left of the FP16 values"


def test_a_policy_that_nobody_enters_warns() -> None:
    with pytest.warns(RuntimeWarning, match="called without `with`, so nothing ran under the policy; write: with pol"):
        Policy.preset("fp16-mixed").apply(classifier())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Policy.preset("fp16-mixed").apply(classifier()):
            pass
        gc.collect()


def test_only_modules_can_be_run() -> None:
    with pytest.raises(TypeError, match=r"a torch\.nn\.Module is asked for, but a function came; pass the model"):
        Policy.preset("fp16-mixed").apply(F.relu)  # type: ignore[arg-type]


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    plain, checkpointed = classifier(), classifier()
    x = images().requires_grad_()
    with Policy.preset("fp16-mixed").apply(plain):
        F.cross_entropy(plain(x).float(), labels()).backward()
    with Policy.preset("fp16-mixed").apply(checkpointed):
        out = checkpoint(checkpointed, x, use_reentrant=reentrant)
        F.cross_entropy(out.float(), labels()).backward()
    for p, q in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert distance(q.grad, p.grad) < 1e-3


def test_an_optimizer_with_a_closure_runs_the_model_under_the_policy() -> None:
    model, seen = classifier(), []
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        out = model(images())
        seen.append(is_low(out))
        loss = F.cross_entropy(out.float(), labels())
        loss.backward()
        return loss

    with Policy.preset("fp16-mixed").apply(model):
        optimizer.step(closure)
    assert len(seen) >= 2
    assert all(seen)


def test_what_is_only_added_stays_fp32_unless_it_is_stored() -> None:
    """Tensor cores add in FP32: under TF32 a bias of 1 + 2^-20 is not rounded, under FP16 the result is."""
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(1 + 2.0**-20)
    found = {}
    for name in ("tf32", "fp16-mixed"):
        with Policy.preset(name).apply(layer):
            found[name] = layer(torch.zeros(1, 1)).item()
    assert found == {"tf32": 1 + 2.0**-20, "fp16-mixed": 1.0}


def test_the_same_policy_object_can_be_used_again_and_without_gradients() -> None:
    model, mixed = classifier(), Policy.preset("fp16-mixed")
    with mixed.apply(model):
        train_time = model(images())
    with torch.no_grad(), mixed.apply(model):
        evaluated = model(images())
    with mixed.apply(model), torch.inference_mode():
        inferred = model(images())
    assert torch.equal(train_time, evaluated)
    assert torch.equal(train_time, inferred)
    assert not evaluated.requires_grad
    assert rounded_share(evaluated) == 1.0


def test_backward_inside_the_block_gives_the_same_bits() -> None:
    inside, outside = classifier(), classifier()
    with Policy.preset("fp16-mixed").apply(inside):
        F.cross_entropy(inside(images()), labels()).backward()
    with Policy.preset("fp16-mixed").apply(outside):
        loss = F.cross_entropy(outside(images()), labels())
    loss.backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(inside.parameters(), outside.parameters(), strict=True))


def test_layers_of_transformers_written_with_linear_run() -> None:
    """Attention by hand and by scaled_dot_product_attention; layer norm, softmax and embedding come out wide."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm = nn.Embedding(11, 16), nn.LayerNorm(16)
            self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, tokens: Tensor, by_hand: bool) -> Tensor:
            x = self.embed(tokens)
            normed = self.norm(x)
            assert not is_low(normed)
            q, k, v = self.qkv(normed).chunk(3, -1)
            assert is_low(q)
            if by_hand:
                weights = (q @ k.transpose(-1, -2) / 4).softmax(-1)
                assert not is_low(weights)
                mixed = weights @ v
            else:
                mixed = F.scaled_dot_product_attention(q, k, v)
            assert is_low(mixed)
            residual = x + self.out(mixed)
            assert not is_low(residual), "a residual stream that starts in FP32 stays in FP32"
            return residual

    torch.manual_seed(0)
    block, tokens = Block(), torch.arange(10).view(2, 5)
    with Policy.preset("fp16-mixed").apply(block):
        by_hand, fused = block(tokens, True), block(tokens, False)
    assert torch.allclose(by_hand, fused, atol=2e-3)
    (by_hand.sum() + fused.sum()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in block.parameters())


@pytest.mark.parametrize("policy", sorted(PRESETS))
def test_an_activation_in_place_after_anything_that_was_rounded(policy: str) -> None:
    """autograd refuses to change a custom function's output in place if that output is a view."""

    def gradient(inplace: bool) -> Tensor:
        model = conv_net()
        model.relu = nn.ReLU(inplace=inplace)
        with Policy.preset(policy).apply(model, meter=Meter()):
            loss = model(images()).square().mean()
            loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    # Not to the bit: the gradient of an operation in place is rounded where its tensor was made.
    assert distance(gradient(True), gradient(False)) < 4.9e-4


@pytest.mark.parametrize(
    ("capability", "native"),
    [
        ((9, 0), {"fp32", "tf32", "fp16-true", "fp16-master", "fp16-mixed", "bf16-true", "bf16-mixed", "article"}),
        ((7, 5), {"fp32", "fp16-true", "fp16-master", "fp16-mixed", "article"}),
        ((6, 1), {"fp32"}),
    ],
)
def test_auto_is_native_where_the_card_has_every_format(
    capability: tuple[int, int], native: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An H100, a T4 and a GTX 1080; on a CPU, and on an AMD GPU, all is emulated."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert {name for name in NAMES if Policy.preset(name).engine_on("cuda:1") == "native"} == native
    assert {Policy.preset(name).engine_on("cpu") for name in NAMES} == {"emulated"}
    assert Policy(FP32, E4M3, E5M2).engine_on("cuda") == "emulated", "no native engine runs it"
    assert Policy.preset("fp16-mixed").engine_for(classifier(), "auto") == "emulated", "its model is on the CPU"
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert Policy.preset("fp16-mixed").engine_on("cuda") == "emulated"


def test_a_card_without_tf32_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Tesla T4")
    model = classifier()
    monkeypatch.setattr(model, "parameters", lambda: iter([SimpleNamespace(device=torch.device("cuda"))]))
    with (
        pytest.raises(ValueError, match=r"TF32 is a mode .* this model is on a Tesla T4, which has none; move it"),
        natively(Block(), "tf32", TF32, FP32, model),
    ):
        pass
